"""The Ringfence layer and a Kubernetes layer of one inventory, each by its own oracle.

An end allows only if each layer that governs it does, whoever asks: the evaluators, the one that
explains and the survey of all connections.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, is_v4, parse_address
from ringfence.model.ids import (
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import LABEL_PREFIX, inexact, make_labels
from ringfence.model.policy import (
    SPOKEN,
    Action,
    CatchAll,
    CidrEnd,
    Direction,
    FilterEnd,
    Policy,
    Rank,
    Workspace,
)
from ringfence.model.protocol import TCP, UDP
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.kubernetes.cluster import LiveCluster, Node, Pod
from ringfence.policy.kubernetes.oracle import KubernetesOracle
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import PolicySet
from ringfence.policy.reach import Reach, Survey
from tests.property.test_kubernetes_layer import (
    BLOCKS,
    CONNECTIONS,
    NAMESPACES,
    NODES,
    OUTSIDE,
    PORTS,
    pods,
    policies,
    protocols,
)

EAST, WEST = ClusterId("east"), ClusterId("west")
FOREIGN, HOST = parse_address("10.0.1.200"), parse_address("172.16.0.1")
QUERIES = [
    "everything",
    'kind = "pod"',
    'kubernetes.namespace = "x"',
    'kubernetes.label.app = "a"',
    'kubernetes.cluster = "west" or kind = "host"',
]


def item(kind: ItemKind, one: Pod | Node, **more: Any) -> Item:
    """A pod or node of an inventory, with the labels of its object."""
    spelled = ((LABEL_PREFIX + key, value) for key, value in one.labels.items())
    namespace = one.namespace if isinstance(one, Pod) else ""
    told = make_labels([("kind", kind), ("kubernetes.namespace", namespace), *spelled])
    key = item_key(EAST, kind, f"{namespace}/{one.name}")
    held = {"exact_labels": inexact(one.labels), **more}
    return Item(key, kind, EAST, namespace, one.name, one.addresses, told, **held)


def inventory(drawn: list[Pod]) -> list[Item]:
    """Two Kubernetes clusters, the second one with a pod like the first one's, and a host."""
    found = [item(ItemKind.NODE, node) for node in NODES]
    found += [
        item(
            ItemKind.POD,
            pod,
            node=pod.node,
            host_network=pod.host_network,
            containers=pod.ports,
        )
        for pod in drawn
    ]
    found += [item(ItemKind.NAMESPACE, Node(name, labels)) for name, labels in NAMESPACES.items()]
    other = replace(found[len(NODES)], addresses=(FOREIGN,), host_network=False, cluster=WEST)
    found.append(replace(other, key=item_key(WEST, ItemKind.POD, "p")))
    host = item(ItemKind.HOST, Node("h", {}, (HOST,)))
    return [*found, replace(host, cluster=ClusterId(""))]


@st.composite
def ringfence_workspaces(draw: st.DrawFn) -> Workspace:
    """A workspace that names pods by their labels and their namespaces."""
    queries = st.sampled_from([parse(text) for text in QUERIES])
    ends = st.one_of(
        queries.map(FilterEnd), st.sampled_from(BLOCKS).map(lambda one: CidrEnd((one,)))
    )
    spoken = st.sampled_from(SPOKEN)
    said = tuple(
        Policy(
            PolicyId(f"r{number}"),
            draw(ends),
            draw(ends),
            draw(st.sampled_from([None, TCP, UDP])),
            (),
            draw(spoken),
            draw(st.sampled_from(Rank)),
        )
        for number in range(draw(st.integers(0, 3)))
    )
    catch_all = CatchAll(draw(spoken), draw(spoken))
    return Workspace(WorkspaceName("w"), ScopeName("s"), True, catch_all, (), said)


@given(st.data())
def test_two_layers_agree_with_both_oracles(data: st.DataObject) -> None:
    """In one inventory, judged, explained and surveyed: an end allows only if each layer does."""
    drawn = data.draw(pods())
    bound = [data.draw(policies(number)) for number in range(data.draw(st.integers(1, 4)))]
    workspace = data.draw(ringfence_workspaces())
    items = inventory(drawn)
    snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(items, 1))
    tree = ScopeTree([Scope(ScopeName("s"), None, parse(data.draw(st.sampled_from(QUERIES))))])
    enforced = [(workspace, Version(1))]
    ours = PolicySet(snapshot, tree, enforced)
    theirs = KubernetesLayer(LiveCluster(snapshot, EAST), bound)
    held = sorted({address for one in items for address in one.addresses})
    ends = st.sampled_from([*held, *OUTSIDE])
    asked = []
    for _ in range(CONNECTIONS):
        provider, port = data.draw(ends), data.draw(st.sampled_from(PORTS))
        asked.append(
            Connection(data.draw(protocols), data.draw(ends), provider, port, provider, port)
        )
    columns = tabulate(snapshot, asked)
    told = explain([ours, theirs], columns)
    allowed = evaluate(ours, columns).allowed & evaluate(theirs, columns).allowed
    kubernetes = KubernetesOracle(NAMESPACES, drawn, NODES, bound)
    ringfence = Oracle(items, tree, enforced)
    survey = Survey([ours, theirs])
    reach = survey.judge(0, 1)
    for row, connection in enumerate(asked):
        expected = ringfence.judge(connection).allowed and all(
            kubernetes.allows(connection, direction) for direction in Direction
        )
        assert bool(allowed[row]) is told[row].allowed is expected
        for end in told[row].ends:
            deciding = end.deciding
            assert end.denies is (deciding is not None and deciding.action is Action.DENY)
        if is_v4(connection.consumer) is is_v4(connection.provider):
            assert reached(survey, reach, connection) is expected


def reached(survey: Survey, reach: Reach, connection: Connection) -> bool:
    """What the survey of all ends says of one connection."""
    consumer, provider = (
        place(survey, address) for address in (connection.consumer, connection.provider)
    )
    said = reach.allowed[consumer, provider]
    pair = consumer, provider
    snapshot = survey.snapshot
    positions = (
        snapshot.at(connection.consumer, connection.home),
        snapshot.at(connection.provider, connection.home),
    )
    own = survey.layers[0].own_nodes
    if pair in reach.own and (
        own[positions[0]] == positions[1] or own[positions[1]] == positions[0]
    ):
        said = reach.own[pair]
    held = np.unpackbits(said, count=len(survey.cells))
    (cell,) = (
        at
        for at, one in enumerate(survey.cells)
        if one.protocol == connection.protocol and one.first <= connection.provider_port <= one.last
    )
    return bool(held[cell])


def place(survey: Survey, address: Address) -> int:
    """The end of a survey that an address is."""
    position, number = survey.snapshot.at(address, ClusterId("")), int.from_bytes(address)
    for at, end in enumerate(survey.ends):
        if position in end.workloads and end.families & (1 if is_v4(address) else 2):
            return at
        if position == NOWHERE and any(first <= number <= last for first, last in end.ranges):
            return at
    raise AssertionError("every address is of some end")
