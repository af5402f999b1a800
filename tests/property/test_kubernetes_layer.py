"""The Kubernetes layer and its oracle agree, whatever the cluster and the policies."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.policy import SPOKEN, Action, Direction
from ringfence.model.protocol import SCTP, TCP, UDP, PortRange
from ringfence.model.verdict import EndRole, Stage
from ringfence.model.workload import ContainerPort
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.kubernetes.cluster import NAMESPACE_NAME, Cluster, KubernetesLabels, Node, Pod
from ringfence.policy.kubernetes.connectivity import Connectivity
from ringfence.policy.kubernetes.oracle import KubernetesOracle
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Nodes,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    Requirement,
    Requires,
    Selector,
    UnknownPeer,
)
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.topology import Workload

CONNECTIONS = 25
NAMESPACES: dict[str, KubernetesLabels] = {
    "x": {"env": "prod"},
    "y": {"env": "test", "App": "a"},
    "z": {},
}
NODES = [
    Node(f"n{at}", {"os": os}, (parse_address(f"192.168.0.{at}"),))
    for at, os in enumerate(("linux", "windows"), 1)
]
BLOCKS = [
    parse_network(text)
    for text in ("0.0.0.0/0", "::/0", "10.0.1.0/24", "10.0.1.2", "192.168.0.0/24")
]
OUTSIDE = [parse_address(text) for text in ("203.0.113.9", "2001:db8::9")]
PORTS = [80, 81, 443]
keys, values = (
    st.sampled_from(["app", "App", "env", NAMESPACE_NAME]),
    st.sampled_from(["a", "prod", "x"]),
)
protocols = st.sampled_from([TCP, UDP, SCTP])
directions = st.sampled_from(Direction)
labels = st.dictionaries(st.sampled_from(["app", "App", "env"]), values, max_size=2)


@st.composite
def pods(draw: st.DrawFn) -> list[Pod]:
    found = []
    for at in range(6):
        node, host_network = (
            draw(st.sampled_from(NODES)),
            draw(st.sampled_from([False] * 4 + [True])),
        )
        own = parse_address(f"10.0.{at % 2}.{at}"), parse_address(f"fd00::{at}")
        ports = tuple(
            ContainerPort(draw(st.sampled_from(["web", "dns"])), draw(protocols), port)
            for port in draw(st.lists(st.sampled_from(PORTS), max_size=2, unique=True))
        )
        found.append(
            Pod(
                draw(st.sampled_from(sorted(NAMESPACES))),
                f"p{at}",
                draw(labels),
                node.addresses if host_network else own,
                node.name,
                host_network,
                ports,
            )
        )
    return found


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    return tuple(
        Requirement(
            draw(keys),
            operator,
            tuple(sorted(draw(st.sets(values, min_size=1, max_size=2))))
            if operator in (Requires.IN, Requires.NOT_IN)
            else (),
        )
        for operator in draw(st.lists(st.sampled_from(Requires), max_size=2))
    )


selected = st.builds(Pods, st.sampled_from(sorted(NAMESPACES)) | selectors(), selectors())


def peers(*, outbound: bool) -> st.SearchStrategy[Peer]:
    blocks = st.lists(st.sampled_from(BLOCKS), max_size=2).map(tuple)
    networks = st.builds(Networks, blocks, blocks)
    others: list[st.SearchStrategy[Peer]] = [st.builds(Nodes, selectors()), st.just(UnknownPeer())]
    return st.one_of(selected, selected, networks, *(others if outbound else ()))


@st.composite
def ports(draw: st.DrawFn) -> Ports | NamedPort:
    if draw(st.booleans()):
        return NamedPort(draw(st.none() | protocols), draw(st.sampled_from(["web", "dns", "gone"])))
    first = draw(st.sampled_from(PORTS))
    ranges = draw(st.sampled_from([(), (PortRange(first, first),), (PortRange(first, 65535),)]))
    return Ports(draw(protocols), ranges)


@st.composite
def rules(draw: st.DrawFn, actions: tuple[Action, ...], at: int) -> PolicyRule:
    direction = draw(directions)
    outbound = direction is Direction.OUTBOUND
    return PolicyRule(
        f"rule[{at}]",
        direction,
        draw(st.sampled_from(actions)),
        draw(st.none() | st.lists(peers(outbound=outbound), max_size=2).map(tuple)),
        draw(st.none() | st.lists(ports(), min_size=1, max_size=2).map(tuple)),
    )


@st.composite
def policies(draw: st.DrawFn, number: int) -> KubernetesPolicy:
    stage = draw(st.sampled_from([Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE]))
    actions: tuple[Action, ...] = (*SPOKEN, Action.PASS)
    isolates: frozenset[Direction] = frozenset()
    if stage is Stage.NETWORK_POLICY:
        actions, isolates = (Action.ALLOW,), draw(st.frozensets(directions, min_size=1))
    listed = [draw(rules(actions, at)) for at in range(draw(st.integers(0, 3)))]
    return KubernetesPolicy(
        stage,
        stage.value,
        "",
        f"p{number}",
        draw(selected),
        tuple(rule for rule in listed if not isolates or rule.direction in isolates),
        draw(st.integers(0, 2)),
        isolates,
    )


@given(st.data())
def test_layer_agrees_with_the_oracle(data: st.DataObject) -> None:
    drawn = data.draw(pods())
    bound = [data.draw(policies(number)) for number in range(data.draw(st.integers(1, 5)))]
    held = [a for one in drawn for a in one.addresses] + [a for n in NODES for a in n.addresses]
    ends = st.sampled_from(held + OUTSIDE)
    asked = []
    for _ in range(CONNECTIONS):
        provider, port = data.draw(ends), data.draw(st.sampled_from(PORTS))
        protocol = data.draw(protocols)
        asked.append(Connection(protocol, data.draw(ends), provider, port, provider, port))

    cluster = Cluster(NAMESPACES, drawn, NODES)
    layer = KubernetesLayer(cluster, bound)
    assert layer.rules == KubernetesLayer(cluster, bound[::-1]).rules
    columns = tabulate(layer.snapshot, asked)
    verdicts = evaluate(layer, columns)
    oracle = KubernetesOracle(NAMESPACES, drawn, NODES, bound)
    explanations = explain([layer], columns)
    for row, connection in enumerate(asked):
        outbound, inbound = (
            oracle.allows(connection, direction)
            for direction in (Direction.OUTBOUND, Direction.INBOUND)
        )
        assert bool(verdicts.allowed[row]) is (outbound and inbound)
        expected = {EndRole.CONSUMER: outbound, EndRole.PROVIDER: inbound}
        for end in explanations[row].ends:
            assert end.denies is not expected[end.role]
            place = end.deciding.place if end.deciding else -1
            assert verdicts.deciding(end.role)[row] == place


@given(st.data())
def test_connectivity_agrees_with_the_oracle(data: st.DataObject) -> None:
    drawn = [
        replace(pod, host_network=False, node="", addresses=(parse_address(f"fd00::{at}"),))
        for at, pod in enumerate(data.draw(pods()))
    ]
    # Pods of a folder have no addresses that a block could hold: they are IPv6, the blocks IPv4.
    bound = [
        replace(data.draw(policies(number).map(only_v4)), priority=number) for number in range(4)
    ]
    protocol, port = data.draw(protocols), data.draw(st.sampled_from(PORTS))
    workloads = {Workload(pod.namespace, pod.name, "Pod"): [pod] for pod in drawn}
    asked = protocol, PortRange(port, port)
    edges = {
        (edge.source, edge.target)
        for edge in Connectivity(NAMESPACES, workloads, bound, {}, focus=asked).edges()
    }
    oracle = KubernetesOracle(NAMESPACES, drawn, [], bound)

    def allows(consumer: Address, provider: Address, *directions: Direction) -> bool:
        connection = Connection(protocol, consumer, provider, port, provider, port)
        return all(oracle.allows(connection, direction) for direction in directions)

    outside = parse_address("203.0.113.9")
    for one, (mine,) in workloads.items():
        me, address = one.display, mine.addresses[0]
        out = {target for source, target in edges if source == me and outside_is_in(target)}
        into = {source for source, target in edges if target == me and outside_is_in(source)}
        assert bool(out) is allows(address, outside, Direction.OUTBOUND)
        assert bool(into) is allows(outside, address, Direction.INBOUND)
        for other, (its,) in workloads.items():
            if other != one:
                expected = allows(address, its.addresses[0], *Direction)
                assert ((me, other.display) in edges) is expected


def only_v4(policy: KubernetesPolicy) -> KubernetesPolicy:
    def narrowed(peer: Peer) -> Peer:
        if not isinstance(peer, Networks):
            return peer
        return Networks(
            tuple(one for one in peer.networks if one.is_v4),
            tuple(one for one in peer.exceptions if one.is_v4),
        )

    rules = [
        replace(rule, peers=rule.peers and tuple(map(narrowed, rule.peers)))
        for rule in policy.rules
    ]
    return replace(policy, rules=tuple(rules))


def outside_is_in(end: str) -> bool:
    first, dash, last = end.removesuffix("[External]").partition("-")
    if not dash or not end.endswith("[External]"):
        return False
    return parse_address(first) <= parse_address("203.0.113.9") <= parse_address(last)
