"""A node that receives for a load balancer; no kube-proxy beside it asks for source ranges."""

from dataclasses import replace

from ringfence.agent.mechanisms import Mechanism
from ringfence.model.address import parse_address, parse_network
from ringfence.model.policy import CidrEnd, ServiceEnd
from ringfence.model.protocol import TCP
from ringfence.model.workload import ServiceType, TrafficPolicy
from ringfence.policy.compile import compile_policies
from tests.golden import shop
from tests.kernel.netns import node_with_pods
from tests.kernel.test_backends import drops, load, refused
from tests.kernel.traffic import tcp_echo, tcp_exchange

CLUSTER_IP, BALANCER, EXTERNAL = "10.100.0.9", "198.51.100.7", "192.0.2.77"
NODE_PORT, WEB = 31095, 8080


def test_an_allow_of_a_service_admits_at_its_load_balancer_whom_source_ranges_hold(
    mechanism: Mechanism,
) -> None:
    with node_with_pods(3) as node:
        friend, stranger, server = node.pods
        node.nft(
            "table ip balancer { chain pre { type nat hook prerouting priority dstnat;\n"
            f"ip daddr {{ {BALANCER}, {EXTERNAL} }} tcp dport 80 dnat to {server.address}:{WEB}\n"
            f"fib daddr type local tcp dport {NODE_PORT} dnat to {server.address}:{WEB}\n"
            "}; }"
        )
        home = shop.node("n1", *(pod.gateway for pod in node.pods))
        web = shop.pod("web", "web", "n1", server.address)
        front = shop.service("web", CLUSTER_IP, 80, [(web, WEB)], node_port=NODE_PORT)
        assert front.service
        spec = replace(
            front.service,
            type=ServiceType.LOAD_BALANCER,
            external_addresses=(parse_address(EXTERNAL), parse_address(BALANCER)),
            external_traffic_policy=TrafficPolicy.LOCAL,
            balancer_addresses=(parse_address(BALANCER),),
            source_ranges=(parse_network(friend.address),),
        )
        anyone = CidrEnd((parse_network("0.0.0.0/0"),))
        policies = shop.policy_set(
            shop.allow("web", anyone, ServiceEnd("sock-shop", "web"), 80),
            items=(home, web, replace(front, service=spec)),
        )
        (policy,) = compile_policies(policies, ()).policies.values()
        rules = mechanism.backend().render_node(policy)
        load(mechanism, node, rules)
        with tcp_echo(server, server.address, WEB):
            tcp_exchange(friend, BALANCER, 80, b"within the source ranges")
            assert refused(stranger, BALANCER, 80)
            for pod in (friend, stranger):
                tcp_exchange(pod, EXTERNAL, 80, b"they do not hold for other addresses")
                tcp_exchange(pod, pod.gateway, NODE_PORT, b"nor for node ports")
        assert set(drops(mechanism, node, rules)) == {(stranger.address, BALANCER, TCP, 80)}
