"""Policy as rules of each mechanism, on real packets between pods."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from ringfence.agent.mechanisms import Mechanism
from ringfence.kernel import conntrack, iptables, nft
from ringfence.kernel.bpf import object_path
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.netns import inode
from ringfence.kernel.rules import Drops
from ringfence.model.address import format_address, host_network, parse_address
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action, ServiceEnd
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP, PortRange
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables_table import DROP_SET_SIZE
from ringfence.policy.compile import compile_policies
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from tests.golden import shop
from tests.kernel.netns import Namespace, Node, Pod, node_with_pods
from tests.kernel.traffic import open_socket, ping, tcp_echo, tcp_exchange

FRIENDS, PROGRAM = SetId("friends"), ProgramId("p1")
ALLOWED = Rule("default/shop/p1/friends", Action.ALLOW, TCP, (PortRange(80, 80),), FRIENDS)
CATCH_ALL = Rule("catch-all/shop/p1", Action.DENY, None, (), None)


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


def inbound(mechanism: Mechanism, pod: Pod, *friends: str, allowed: Rule = ALLOWED) -> Ruleset:
    """The pod admits TCP 80, or what else is allowed, from its friends and nothing else."""
    own = tuple(map(parse_address, (pod.address, pod.address6)))
    binding = PodBinding("uid", "shop", pod.name, own, (PROGRAM,), ())
    policy = NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {FRIENDS: tuple(host_network(parse_address(friend)) for friend in friends)},
        {PROGRAM: Program((allowed, CATCH_ALL))},
        (binding,),
        NodeBinding((), None, None, None),
        (),
    )
    return mechanism.backend().render_pod(policy, binding)


def load(
    mechanism: Mechanism, where: Namespace, desired: Ruleset, previous: Ruleset | None = None
) -> None:
    mechanism.door.apply(where.path, mechanism.backend().transaction(desired, previous))


def read_drops(mechanism: Mechanism, where: Namespace, loaded: Ruleset) -> Drops:
    listed = mechanism.door.list_table(where.path)
    assert listed is not None
    return mechanism.door.read_drops(listed, loaded.drop_sets)


def drops(
    mechanism: Mechanism, where: Namespace, loaded: Ruleset
) -> dict[tuple[str, str, int, int], int]:
    """Packets dropped by (source, destination, protocol, port)."""
    found = read_drops(mechanism, where, loaded)
    assert not found.overflow
    return {
        (
            format_address(source.tobytes()),
            format_address(destination.tobytes()),
            int(protocol),
            int(port),
        ): int(packets)
        for source, destination, protocol, port, packets in zip(
            found.source, found.destination, found.protocol, found.port, found.packets, strict=True
        )
    }


def mark_of(loaded: Ruleset, handle: str) -> int:
    (mark,) = (mark for mark, denial in loaded.denials.items() if denial.handle == handle)
    return mark


def refused(where: Namespace, address: str, port: int) -> bool:
    """Whether a TCP connection finds no answer."""
    with open_socket(where, address, socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        try:
            client.connect((address, port))
        except TimeoutError:
            return True
    return False


@pytest.mark.parametrize("family", ["address", "address6"])
def test_allowed_passes_denied_is_dropped_and_reported(
    mechanism: Mechanism, node: Node, family: str
) -> None:
    friend, stranger, server = node.pods
    address, of_friend, of_stranger = (getattr(p, family) for p in (server, friend, stranger))
    rules = inbound(mechanism, server, of_friend)
    load(mechanism, server, rules)
    with tcp_echo(server, address, 80), tcp_echo(server, address, 81):
        tcp_exchange(friend, address, 80, b"hello")
        assert refused(stranger, address, 80)
        assert refused(friend, address, 81)
        with open_socket(stranger, address, socket.SOCK_DGRAM) as udp:
            for _ in range(5):
                udp.sendto(b"x", (address, 53))
        tcp_exchange(server, address, 81, b"a pod reaches itself")
    reported = drops(mechanism, server, rules)
    assert reported.pop((of_stranger, address, UDP, 53)) == 5
    assert set(reported) == {(of_stranger, address, TCP, 80), (of_friend, address, TCP, 81)}
    assert all(packets >= 1 for packets in reported.values())
    marks = read_drops(mechanism, server, rules).mark.tolist()
    assert {rules.denials[mark].handle for mark in marks} == {"catch-all/shop/p1"}


def test_icmp_is_reported_by_type_and_code(mechanism: Mechanism, node: Node) -> None:
    stranger, server, _ = node.pods
    rules = inbound(mechanism, server)
    load(mechanism, server, rules)
    assert not ping(stranger, server.address)
    assert drops(mechanism, server, rules) == {(stranger.address, server.address, 1, 8 << 8): 1}


@pytest.mark.parametrize("family", ["address", "address6"])
def test_icmp_is_admitted_by_type(mechanism: Mechanism, node: Node, family: str) -> None:
    stranger, server, _ = node.pods
    mine, its = getattr(stranger, family), getattr(server, family)
    protocol, request = (ICMPV6, 128) if ":" in its else (ICMP, 8)
    for type_, answered in ((request + 1, False), (request, True)):
        ports = (IcmpType(type_).ports,)
        load(
            mechanism,
            server,
            inbound(
                mechanism, server, mine, allowed=replace(ALLOWED, protocol=protocol, ports=ports)
            ),
        )
        assert ping(stranger, its) is answered


def test_what_finds_no_room_is_dropped_and_counted_and_nobody_else_is_told(
    mechanism: Mechanism, node: Node
) -> None:
    stranger, server, _ = node.pods
    rules = inbound(mechanism, server)
    load(mechanism, server, rules)
    others = DropCapture(object_path("drop"))
    others.open()
    with closing(others), open_socket(stranger, server.address, socket.SOCK_DGRAM) as udp:
        for port in range(1000, 1000 + DROP_SET_SIZE + 50):
            udp.sendto(b"x", (server.address, port))
        assert not (others.drain()["netns"] == inode(server.path)).any()
    found = read_drops(mechanism, server, rules)
    # Sets of iptables are shared out: the catch-all has one, and what opens nothing another.
    room = DROP_SET_SIZE if mechanism.door is nft else DROP_SET_SIZE // 2
    assert len(found) == room
    assert found.overflow == {mark_of(rules, CATCH_ALL.handle): DROP_SET_SIZE + 50 - room}


def test_connections_older_than_the_rules_live_on(mechanism: Mechanism, node: Node) -> None:
    friend, server, _ = node.pods
    with (
        tcp_echo(server, server.address, 80),
        open_socket(friend, server.address, socket.SOCK_STREAM) as client,
    ):
        client.connect((server.address, 80))
        _echo(client, b"before")
        assert not list(conntrack.entries(server.path))
        mechanism.door.start_tracking(server.path)
        assert conntrack.adopt_open_sockets(server.path) >= 1
        (entry,) = (e for e in conntrack.entries(server.path) if e.protocol == TCP)
        assert (entry.source, entry.destination_port) == (parse_address(friend.address), 80)
        rules = inbound(mechanism, server)
        load(mechanism, server, rules)
        for _ in range(3):
            _echo(client, b"after" * 20_000)
        assert refused(friend, server.address, 80)
        conntrack.delete(server.path, [entry])
        client.sendall(b"cut")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(3)
        found = read_drops(mechanism, server, rules)
        (row,) = np.flatnonzero(found.mark == mark_of(rules, MID_STREAM))
        assert found.source[row].tobytes() == parse_address(friend.address)
        assert (found.protocol[row], found.port[row]) == (TCP, 80)
        conntrack.delete(server.path, [entry])


def _echo(client: socket.socket, payload: bytes) -> None:
    client.sendall(payload)
    got = 0
    while got < len(payload):
        got += len(client.recv(1 << 16))


def test_taking_the_rules_away_restores_the_namespace(mechanism: Mechanism, node: Node) -> None:
    """Neighbours have rules in tables of their own, and around ours in the mangle table."""
    pod = node.pods[0]
    pod.nft(
        "table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 }; }\n"
        "chain c { type filter hook input priority 0; ip saddr @s drop; }; }"
    )
    pod.run("ipset", "create", "theirs", "hash:net")
    pod.run("ipset", "add", "theirs", "192.0.2.0/24")
    for tool in ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"):
        for rule in (
            "-t mangle -N THEIRS",
            "-t mangle -A INPUT -p tcp --dport 9 -j THEIRS",
            "-t mangle -A THEIRS -j MARK --set-mark 7",
            "-t mangle -P FORWARD DROP",
            "-t filter -A INPUT -i dummy0 -j DROP",
        ):
            pod.run(tool, *rule.split())
    pod.run("iptables-legacy", "-A", "OUTPUT", "-m", "set", "--match-set", "theirs", "dst")
    before = footprint(pod)
    mechanism.door.start_tracking(pod.path)
    load(mechanism, pod, inbound(mechanism, pod, "10.99.2.2"))
    loaded = footprint(pod)
    assert len(loaded) > len(before)
    rest = iter(loaded)
    assert all(line in rest for line in before), "all of theirs, in order"
    mechanism.door.remove(pod.path)
    assert footprint(pod) == before


def test_an_untouched_namespace_is_so_again(mechanism: Mechanism, node: Node) -> None:
    pod = node.pods[0]
    before = footprint(pod)
    mechanism.door.start_tracking(pod.path)
    load(mechanism, pod, inbound(mechanism, pod, "10.99.2.2"))
    mechanism.door.remove(pod.path)
    # The kernel gives a legacy table that was asked for once to nobody, and keeps it.
    kept = ["*mangle", *(f":{hook} ACCEPT" for hook in HOOKS), "COMMIT"] * 2
    assert footprint(pod) == before + (kept if mechanism.door is iptables.LEGACY else [])
    assert not mechanism.door.list_table(pod.path)


HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


def footprint(where: Namespace) -> list[str]:
    """All rules and sets of a namespace but for comments and counters."""
    sets = [line.split(" bucketsize")[0] for line in where.run("ipset", "save").splitlines()]
    lines = where.run("nft", "-s", "list", "ruleset").splitlines()
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save"):
        lines += where.run(tool).splitlines()
    lines = [line.partition(" [")[0] for line in lines if not line.startswith("#")]
    return [*sets, *lines]


NODE_PORT, WEB, CLUSTER_IP = 31095, 8080, "10.100.0.9"
WEB_PODS, WEB_SERVICE = shop.app("web"), ServiceEnd("sock-shop", "web")


def test_a_node_judges_node_ports_before_dnat_and_forwards_the_rest(
    mechanism: Mechanism, node: Node
) -> None:
    """Pod 3 serves behind a node port; its node admits pod 1 to it and pod 2 not."""
    friend, stranger, server = node.pods
    node.nft(
        f"table ip balancer {{ chain pre {{ type nat hook prerouting priority dstnat;\n"
        f"fib daddr type local tcp dport {{ {NODE_PORT}, 31096 }} dnat to {server.address}:{WEB}\n"
        f"}}; }}"
    )
    before = node.run("nft", "-s", "list", "ruleset")
    admitted = Rule(
        "default/shop/p1/web", Action.ALLOW, TCP, (PortRange(NODE_PORT, NODE_PORT),), FRIENDS
    )
    binding = NodeBinding(
        tuple(parse_address(pod.gateway) for pod in node.pods),
        None,
        None,
        PROGRAM,
        (Exposure(TCP, (PortRange(NODE_PORT, NODE_PORT),), None),),
    )
    policy = NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {FRIENDS: (host_network(parse_address(friend.address)),)},
        {PROGRAM: Program((admitted, CATCH_ALL))},
        (),
        binding,
        (),
    )
    rules = mechanism.backend().render_node(policy)
    load(mechanism, node, rules)
    with tcp_echo(server, server.address, WEB):
        tcp_exchange(friend, friend.gateway, NODE_PORT, b"allowed")
        assert refused(stranger, stranger.gateway, NODE_PORT)
        tcp_exchange(stranger, server.address, WEB, b"forwarding is not the node's to judge")
        tcp_exchange(stranger, stranger.gateway, 31096, b"nor a port of no Service")
    assert set(drops(mechanism, node, rules)) == {
        (stranger.address, stranger.gateway, TCP, NODE_PORT)
    }
    mechanism.door.remove(node.path)
    assert node.run("nft", "-s", "list", "ruleset") == before


def test_a_pod_reaches_itself_through_its_service(mechanism: Mechanism, node: Node) -> None:
    """Only where a policy lets it: what comes back has the gateway's address, as a probe has."""
    itself, stranger, _ = node.pods
    node.nft(
        f"table ip balancer {{ chain pre {{ type nat hook prerouting priority dstnat;\n"
        f"ip daddr {CLUSTER_IP} tcp dport 80 dnat to {itself.address}:{WEB}\n}};\n"
        f"chain post {{ type nat hook postrouting priority srcnat;\n"
        f"ip saddr {itself.address} ip daddr {itself.address} masquerade\n}}; }}"
    )
    home = shop.node("n1", *(pod.gateway for pod in node.pods))
    web = shop.pod("web", "web", "n1", itself.address)
    items = (home, web, shop.service("web", CLUSTER_IP, 80, [(web, WEB)]))
    for policies, passes in (([], False), ([shop.allow("web", WEB_PODS, WEB_SERVICE, 80)], True)):
        compiled = compile_policies(shop.policy_set(*policies, items=items), ())
        (policy,) = compiled.policies.values()
        load(mechanism, itself, mechanism.backend().render_pod(policy, policy.pods[0]))
        with tcp_echo(itself, itself.address, WEB):
            assert refused(itself, CLUSTER_IP, 80) is not passes
            assert refused(node, itself.address, WEB) is not passes
            assert refused(stranger, CLUSTER_IP, 80)
