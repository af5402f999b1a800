"""Two Kubernetes clusters with equal networks: an address is what it is where it was seen."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ringfence.inventory.living import Living
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.workload import Item, ItemKind

EAST, WEST, FAR, NONE = map(ClusterId, ("east", "west", "far", ""))
SHARED, REUSED, FREE, ABROAD, HOST = (
    "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.9.0.2", "172.16.0.1"
)  # fmt: skip
ADDRESSES = (SHARED, REUSED, FREE, ABROAD, HOST)


def item(kind: ItemKind, cluster: ClusterId, name: str, *addresses: str) -> Item:
    key, held = item_key(cluster, kind, name), tuple(map(parse_address, addresses))
    return Item(key, kind, cluster, "shop", name, held, {}, "node1")


def node(cluster: ClusterId, network: str) -> Item:
    one = item(ItemKind.NODE, cluster, f"{cluster}-node1", f"192.0.2.{len(cluster)}", "10.1.0.1")
    return replace(one, pod_networks=(parse_network(network),))


NODES = [node(EAST, "10.1.0.0/24"), node(WEST, "10.1.0.0/24"), node(FAR, "10.9.0.0/24")]
NODES[2] = replace(NODES[2], addresses=NODES[2].addresses[:1])
PODS = [
    item(ItemKind.POD, EAST, "east-pod", SHARED),
    item(ItemKind.POD, WEST, "west-pod", SHARED),
    item(ItemKind.POD, FAR, "far-pod", ABROAD),
    item(ItemKind.HOST, NONE, "host", HOST, FREE),
]


def history() -> Timeline:
    """East's pod has SHARED from 10 to 30, west's from 20 on; REUSED moves from one to the other.

    It is held in the west from 10 to 20 and in the east from 20 to 30.
    """
    timeline = Timeline()
    for one in [*NODES, PODS[2], PODS[3]]:
        timeline.observe(1, one)
    timeline.observe(10, PODS[0])
    timeline.observe(20, PODS[1])
    timeline.gone(30, PODS[0].key)
    for begin, cluster in ((10, WEST), (20, EAST)):
        moved = item(ItemKind.POD, cluster, f"{cluster}-job", REUSED)
        timeline.observe(begin, moved)
        timeline.gone(begin + 10, moved.key)
    return timeline


def packed(*addresses: str) -> NDArray[np.uint8]:
    return np.array([list(parse_address(one)) for one in addresses], dtype=np.uint8)


def name_at(timeline: Timeline, address: str, home: ClusterId, first: int, last: int) -> str:
    begin, end = (np.array([at]) for at in (first, last))
    (found,) = timeline.resolve(packed(address), begin, end, SeenFrom.one(home, 1)).tolist()
    return timeline.revision(RevisionId(found))[0].name if found else ""


@pytest.mark.parametrize(
    ("address", "home", "at", "name"),
    [
        (SHARED, EAST, 15, "east-pod"),
        (SHARED, EAST, 25, "east-pod"),
        (SHARED, WEST, 25, "west-pod"),
        (SHARED, WEST, 15, ""),  # its own pod network, though another cluster's pod has it
        (SHARED, EAST, 35, ""),
        (SHARED, FAR, 15, "east-pod"),  # as far as its routes go, there is one
        (SHARED, FAR, 25, ""),  # which of two?
        (SHARED, NONE, 25, ""),
        (SHARED, FAR, 35, "west-pod"),
        (REUSED, WEST, 15, "west-job"),
        (REUSED, WEST, 25, ""),
        (REUSED, EAST, 15, ""),
        (REUSED, EAST, 25, "east-job"),
        ("10.1.0.1", EAST, 5, "east-node1"),  # every node's gateway may have one address
        ("10.1.0.1", WEST, 5, "west-node1"),
        ("10.1.0.1", FAR, 5, ""),
        ("192.0.2.4", FAR, 5, ""),
        (ABROAD, EAST, 5, "far-pod"),  # routed: nothing is in doubt
        (ABROAD, NONE, 5, "far-pod"),
        (HOST, EAST, 5, "host"),
        (FREE, EAST, 5, "host"),  # a pod network keeps off other clusters only
        (FREE, FAR, 5, "host"),
    ],
)
def test_the_own_cluster_is_asked_first(address: str, home: ClusterId, at: int, name: str) -> None:
    timeline = history()
    assert name_at(timeline, address, home, at, at) == name
    snapshot = timeline.at(at)
    living = Living(zip(map(RevisionId, snapshot.revisions.tolist()), snapshot.items, strict=True))
    whole = parse_address(address)
    for held in (snapshot, living):
        found = held.at(whole, home)
        assert (held.items[found].name if found != NOWHERE else "") == name
    (found,) = snapshot.locate(packed(address), SeenFrom.one(home, 1)).tolist()
    assert found == snapshot.at(whole, home)


def test_a_span_in_which_others_hold_it_too_is_the_own_pods() -> None:
    timeline = history()
    assert name_at(timeline, SHARED, EAST, 12, 29) == "east-pod"
    assert name_at(timeline, SHARED, WEST, 12, 29) == "west-pod"
    assert name_at(timeline, SHARED, FAR, 12, 19) == "east-pod"
    assert name_at(timeline, SHARED, FAR, 12, 29) == ""
    assert name_at(timeline, REUSED, EAST, 12, 29) == "east-job"


def test_many_rows_are_as_each_alone() -> None:
    timeline, homes = history(), (EAST, WEST, FAR, NONE)
    asked = [(one, at, home) for one in ADDRESSES for at in range(1, 40, 2) for home in homes]
    rows, times = packed(*(one for one, _, _ in asked)), np.array([at for _, at, _ in asked])
    seen_from = SeenFrom.of([home for _, _, home in asked], np.arange(len(asked)))
    held = timeline.resolve(rows, times, times + 1, seen_from).tolist()
    named = [timeline.revision(RevisionId(one))[0].name if one else "" for one in held]
    assert named == [name_at(timeline, one, home, at, at + 1) for one, at, home in asked]
    snapshot = timeline.at(25)
    found = snapshot.locate(rows, seen_from).tolist()
    assert found == [snapshot.at(parse_address(one), home) for one, _, home in asked]


def test_a_pod_network_that_is_told_later_brings_its_addresses_home() -> None:
    timeline = Timeline()
    timeline.observe(10, PODS[0])
    assert name_at(timeline, SHARED, WEST, 15, 15) == "east-pod"
    timeline.observe(12, NODES[1])
    assert name_at(timeline, SHARED, WEST, 15, 15) == ""
    assert name_at(timeline, SHARED, WEST, 11, 11) == "east-pod"
    timeline.gone(14, NODES[1].key)
    assert name_at(timeline, SHARED, WEST, 15, 15) == "east-pod"


def test_what_lives_follows_pods_and_nodes() -> None:
    living, address = Living([(RevisionId(1), PODS[0])]), parse_address(SHARED)
    assert living.at(address, WEST) == living.position(PODS[0].key)
    living.change({NODES[1].key: (RevisionId(2), NODES[1])})
    assert living.at(address, WEST) == NOWHERE
    living.change({PODS[1].key: (RevisionId(3), PODS[1])})
    assert living.at(address, WEST) == living.position(PODS[1].key)
    assert living.at(address, FAR) == NOWHERE
    living.change({PODS[1].key: None, NODES[1].key: None})
    assert living.at(address, WEST) == living.at(address, FAR) == living.position(PODS[0].key)


def test_what_is_nobodys_anywhere() -> None:
    snapshot = Snapshot([])
    assert snapshot.locate(packed(SHARED), SeenFrom.one(EAST, 1)).tolist() == [NOWHERE]
    assert snapshot.at(parse_address(SHARED), EAST) == NOWHERE
