"""A quarantine with real packets: what is open is cut, DNS answers, and lifting gives all back."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.kernel import nft
from ringfence.model.ids import item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import UDP
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import parse
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy
from tests.golden import shop
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_cut import Talk, enforce
from tests.kernel.traffic import open_socket

CLUSTER_DNS = "10.96.0.10"


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


def dns_service(pod: Item) -> Item:
    port = ServicePort("dns", UDP, 53)
    backend = Backend("dns", UDP, pod.addresses[0], 53, True, pod.key)
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (port,), (backend,))
    key = item_key(shop.CLUSTER, ItemKind.SERVICE, "kube-dns")
    held = (shop.address(CLUSTER_DNS),)
    return Item(
        key, ItemKind.SERVICE, shop.CLUSTER, "kube-system", "kube-dns", held,
        make_labels([("kind", "service")]), service=spec,
    )  # fmt: skip


def policies(node: Node, *quarantines: Quarantine) -> NodePolicy:
    """What the node has to do where no workspace is enforced."""
    pods = [shop.pod(name, name, "n1", pod.address) for name, pod in named(node).items()]
    home = shop.node("n1", *(pod.gateway for pod in node.pods))
    idle = shop.policy_set(items=(home, *pods, dns_service(pods[-1])))
    rules = PolicySet(idle.snapshot, idle.tree, [], quarantines=quarantines)
    (policy,) = compile_policies(rules, ()).policies.values()
    return policy


def named(node: Node) -> dict[str, Pod]:
    return dict(zip(("peer", "victim", "dns"), node.pods, strict=True))


def answers(where: Pod, server: Pod) -> bool:
    """Whether the pod gets an answer from the cluster's DNS, which is the server."""
    with ExitStack() as resources:
        listener, client = (
            resources.enter_context(open_socket(one, one.address, socket.SOCK_DGRAM))
            for one in (server, where)
        )
        listener.bind((server.address, 53))
        listener.settimeout(0.5)
        client.settimeout(0.5)
        try:
            client.sendto(b"question", (CLUSTER_DNS, 53))
            listener.sendto(b"answer", listener.recvfrom(100)[1])
            return client.recv(100) == b"answer"
        except TimeoutError:
            return False


def test_a_quarantine_cuts_and_lifting_restores(node: Node) -> None:
    pods = named(node)
    peer, victim, dns = pods.values()
    node.nft(
        "table ip balancer { chain pre { type nat hook prerouting priority dstnat;\n"
        f"ip daddr {CLUSTER_DNS} udp dport 53 dnat to {dns.address}:53\n}}; }}"
    )
    victims = parse('name = "victim"')
    closed, open_ = (
        Quarantine(shop.CLUSTER, "sock-shop/victim", victims, allow, "", "", 1)
        for allow in ((), ("dns",))
    )
    enforcer = Enforcer(Nftables())
    with ExitStack() as resources:
        talk = Talk(resources)
        opened = talk.direct(peer, victim, 80), talk.direct(victim, peer, 80)
        bystander = talk.direct(peer, dns, 80)
        enforce(enforcer, policies(node, open_), **pods)
        for one in opened:
            with pytest.raises(OSError):  # noqa: PT011 - reset or aborted, as the end may be
                one.lives()
        with pytest.raises(TimeoutError):
            dial(peer, victim)
        with pytest.raises(TimeoutError):
            dial(victim, peer)
        assert answers(victim, dns)
        enforce(enforcer, policies(node, closed), **pods)
        assert not answers(victim, dns)
        assert bystander.lives()
        assert nft.list_table(peer.path) is None, "nobody else has rules"
        enforce(enforcer, policies(node), **pods)
        assert talk.direct(peer, victim, 81).lives()
        assert answers(victim, dns)
        assert nft.list_table(victim.path) is None


def dial(where: Pod, to: Pod) -> None:
    with open_socket(where, to.address, socket.SOCK_STREAM) as dialler:
        dialler.settimeout(0.5)
        dialler.connect((to.address, 80))
