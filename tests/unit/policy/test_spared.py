"""Fail-safes of connections are those of the packets that open them, by the proof's meaning."""

import itertools

import pytest

from ringfence.model.address import Address, is_v4, parse_address, parse_network
from ringfence.model.policy import FilterEnd
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP
from ringfence.model.query import parse
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.program import NodeBinding, PodBinding
from ringfence.policy.proof.meaning import meaning
from ringfence.policy.proof.packets import TRANSLATED_OUTPUT, Axis, Outcome, Packet, judge
from ringfence.policy.proof.witness import opening
from ringfence.policy.spared import FailSafes
from tests.golden import shop

NODE1 = shop.node("node1", "192.0.2.1", "2001:db8::1")
NODE2 = shop.node("node2", "192.0.2.2", "2001:db8::2")
WEB = shop.pod("web", "web", "node1", "10.244.1.10", "2001:db8:1::10")
FRONT = shop.pod("front", "front", "node2", "10.244.2.20")
SERVICE = shop.service("web", "10.100.0.9", 80, [(WEB, 8080)], node_port=31000)
HELD = shop.policy_set(items=(NODE1, NODE2, WEB, FRONT, SERVICE))
CONTROL_PLANE = (parse_address("192.0.2.1"), 7443), (parse_address("198.51.100.9"), 7443)
ACCESS = NodeAccess((parse_network("203.0.113.0/24"),))
PLACES = ("192.0.2.1", "192.0.2.2", "10.244.1.10", "10.244.2.20", "203.0.113.7", "198.51.100.9",
          "2001:db8::1", "2001:db8::2", "2001:db8:1::10", "2001:db8:ffff::7", "255.255.255.255",
          "fe80::7", "ff02::1", "ff02::16", "ff02::1:2", "ff05::1:3")  # fmt: skip
TRAFFIC = [
    *((TCP, port) for port in (22, 80, 2379, 2381, 6443, 7443, 10250)),
    *((UDP, port) for port in (53, 67, 68, 546, 547, 4789, 6081, 8472, 10250)),
    *((ICMP, kind << 8) for kind in (8, 135)),
    *((ICMPV6, kind << 8) for kind in (128, *range(130, 138), 143)),
    (4, 0),
    (47, 0),
]


LISTENERS, NEIGHBOURS = (130, 131, 132, 143), (133, 134, 135, 136)
CLIENTS = {67: 68, 547: 546}
"""The ports from which clients ask servers of DHCP."""


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies(HELD, CONTROL_PLANE, ACCESS)


def binding(compiled: Compiled, item: Item) -> PodBinding | NodeBinding:
    node = item.node if item.kind is ItemKind.POD else item.name
    (policy,) = (one for one in compiled.policies.values() if one.node == node)
    pods = [one for one in policy.pods if one.name == item.name]
    return pods[0] if item.kind is ItemKind.POD else policy.binding


def hops(kind: int, to: Address) -> int:
    """The hop limit of such a message (RFC 2710, RFC 3810, RFC 4861).

    What listeners send goes to groups: sent elsewhere it is another's, with any.
    """
    if kind in NEIGHBOURS:
        return 255
    return 1 if kind in LISTENERS and to[0] == 0xFF else 64


def passed_by(compiled: Compiled, item: Item, role: EndRole, asked: Connection) -> str:
    """The fail-safe that the meaning of the node's policy has for the first packet, or empty."""
    node = item.node if item.kind is ItemKind.POD else item.name
    (policy,) = (one for one in compiled.policies.values() if one.node == node)
    outbound = role is EndRole.CONSUMER
    to, port = asked.dialled, asked.dialled_port
    if role is EndRole.PROVIDER:
        to, port = asked.provider, asked.provider_port
    packet = opening(asked.protocol, asked.consumer, to, port, to_own=to in item.addresses)
    itself = asked.consumer in item.addresses and to in item.addresses
    loopback = Axis.TO_LOOPBACK if outbound else Axis.FROM_LOOPBACK
    own = asked.consumer in item.addresses
    numbers = {**packet.numbers, loopback: int(itself), Axis.FROM_OWN: int(own)}
    if asked.protocol == ICMPV6:
        numbers[Axis.HOPS] = hops(port >> 8, to)
    if asked.protocol == UDP:
        numbers[Axis.HEAD] = CLIENTS.get(port, packet.numbers[Axis.HEAD])
    table = meaning(policy, binding(compiled, item), packet.family)
    hook = "output" if outbound else "input"
    found, name = judge(table, hook, Packet(packet.family, numbers))
    return name if found is Outcome.ACCEPT else ""


def test_they_pass_what_the_rules_of_a_namespace_pass(compiled: Compiled) -> None:
    safes, seen = FailSafes(HELD.snapshot, compiled.surroundings), set()
    for ends in itertools.product(PLACES, PLACES, TRAFFIC):
        consumer, provider = map(parse_address, ends[:2])
        protocol, port = ends[2]
        v4 = is_v4(consumer)
        if v4 is not is_v4(provider) or {ICMP: v4, ICMPV6: not v4}.get(protocol) is False:
            continue
        asked = Connection(protocol, consumer, provider, port, provider, port)
        columns = tabulate(HELD.snapshot, [asked])
        for role, at in (
            (EndRole.CONSUMER, int(columns.consumer_item[0])),
            (EndRole.PROVIDER, int(columns.provider_item[0])),
        ):
            told = [handle for handle, _ in safes.at(columns, role)]
            if at == -1:
                assert not told
                continue
            kernel = passed_by(compiled, HELD.snapshot.items[at], role, asked)
            assert bool(told) is bool(kernel), (ends, role, told, kernel)
            if told and told[0] not in {"fail-safe/itself", "fail-safe/neighbours"}:
                assert told[0] in kernel.lower().split("; ")
            seen |= set(told)
    assert seen == {
        f"fail-safe/{name}"
        for name in (
            *("itself", "control-plane", "neighbours", "ssh"),
            *("kubelet", "etcd", "tunnel", "api-server", "dhcp"),
        )
    }


def test_a_service_s_own_backend_reaches_it_by_policy_alone(compiled: Compiled) -> None:
    """What it dials is not its own address yet, and what comes back may be the node's."""
    web, virtual = parse_address("10.244.1.10"), parse_address("10.100.0.9")
    columns = tabulate(HELD.snapshot, [Connection(TCP, web, web, 8080, virtual, 80)])
    safes = FailSafes(HELD.snapshot, compiled.surroundings)
    assert not [one for role in EndRole for one in safes.at(columns, role)]


@pytest.mark.parametrize("parted", [True, False])
def test_a_node_may_dial_its_own_port_unless_it_judges_who_answers(*, parted: bool) -> None:
    """By loopback it passes, and is judged once more where rules mean some backends only."""
    other = shop.pod("other", "other", "node2", "10.244.2.21")
    service = shop.service("both", "10.100.0.8", 80, [(WEB, 8080), (other, 8080)], node_port=31001)
    end = shop.app("web") if parted else shop.app("front")
    policy = shop.allow("out", FilterEnd(parse('name = "node1"')), end, 8080)
    held = shop.policy_set(policy, items=(NODE1, NODE2, WEB, FRONT, other, service))
    compiled = compile_policies(held, (), NodeAccess())
    (node,) = (one for one in compiled.policies.values() if one.node == "node1")
    table = meaning(node, node.binding, 4)
    assert (TRANSLATED_OUTPUT in table.hooks) is parted
    dialled = parse_address("192.0.2.1")
    leads = WEB.addresses[0], other.addresses[0], dialled
    asked = [Connection(TCP, dialled, to, 8080, dialled, 31001, dialled) for to in leads]
    columns = tabulate(held.snapshot, asked)
    passing = []
    for to in leads:
        packet = opening(TCP, dialled, to, 8080, to_own=to == dialled)
        led = {Axis.TRANSLATED: 1, Axis.DIALLED_PORT: 31001, Axis.FROM_OWN: 1}
        led[Axis.DIALLED] = int.from_bytes(dialled[12:])
        found = Outcome.ACCEPT
        if parted:
            found, _ = judge(table, TRANSLATED_OUTPUT, Packet(4, {**packet.numbers, **led}))
        passing.append(found is Outcome.ACCEPT)
    assert passing == [True, not parted, True]
    safes = FailSafes(held.snapshot, compiled.surroundings, lambda: compiled.policies)
    ((handle, told),) = safes.at(columns, EndRole.CONSUMER)
    assert handle == "fail-safe/itself"
    assert told.tolist() == passing
    ((_, told),) = FailSafes(held.snapshot, compiled.surroundings).at(columns, EndRole.CONSUMER)
    assert told.tolist() == [False, False, True]


def test_the_receiving_node_passes_the_control_plane_s_ports_alone(compiled: Compiled) -> None:
    front, node = parse_address("10.244.2.20"), parse_address("192.0.2.1")
    web = parse_address("10.244.1.10")
    safes = FailSafes(HELD.snapshot, compiled.surroundings)
    for port, expected in ((7443, ["fail-safe/control-plane"]), (10250, []), (31000, [])):
        columns = tabulate(HELD.snapshot, [Connection(TCP, front, web, 8080, node, port, node)])
        assert [handle for handle, _ in safes.at(columns, EndRole.NODE)] == expected


def test_what_the_kernel_never_passes_is_no_fail_safe(compiled: Compiled) -> None:
    """Whatever hop limit it has, and whatever port it comes from."""
    safes = FailSafes(HELD.snapshot, compiled.surroundings)
    node, there = parse_address("2001:db8::1"), parse_address("2001:db8:ffff::7")
    v4, server = parse_address("192.0.2.1"), parse_address("198.51.100.9")
    for protocol, consumer, provider, port in (
        (ICMPV6, node, there, 133 << 8),
        (ICMPV6, node, there, 137 << 8),
        (ICMPV6, v4, server, 135 << 8),
        (UDP, v4, server, 547),
        (UDP, node, there, 547),
        (UDP, node, there, 67),
        (UDP, node, parse_address("ff02::1"), 547),
        (UDP, node, parse_address("fe80::7"), 67),
    ):
        asked = Connection(protocol, consumer, provider, port, provider, port)
        columns = tabulate(HELD.snapshot, [asked])
        assert not [one for role in EndRole for one in safes.at(columns, role)], asked


def test_a_node_asks_for_its_lease(compiled: Compiled) -> None:
    node, server = parse_address("192.0.2.1"), parse_address("198.51.100.9")
    safes = FailSafes(HELD.snapshot, compiled.surroundings)
    pod = parse_address("10.244.1.10")
    agents, v6 = parse_address("ff02::1:2"), parse_address("2001:db8::1")
    for source, to, port, expected in (
        (node, parse_address("255.255.255.255"), 67, ["fail-safe/dhcp"]),
        (node, server, 67, ["fail-safe/dhcp"]),  # as it renews
        (v6, agents, 547, ["fail-safe/dhcp"]),
        (v6, parse_address("fe80::7"), 547, ["fail-safe/dhcp"]),
        (pod, server, 67, []),
        (server, node, 68, []),
    ):
        columns = tabulate(HELD.snapshot, [Connection(UDP, source, to, port, to, port)])
        told = [handle for role in EndRole for handle, _ in safes.at(columns, role)]
        assert told == expected, (source, to, port)
