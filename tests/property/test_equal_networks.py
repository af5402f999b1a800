"""Kubernetes clusters that have equal networks know nothing of one another.

Rows of both, told together, are labelled as those of each alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ringfence.flows.label import Agents, label_flows
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch

EAST, WEST = ClusterId("east"), ClusterId("west")
ADDRESSES = [parse_address(f"10.1.0.{number}") for number in range(2, 6)]
LAST = 30

Event = tuple[int, str, int, bool]
"""When which pod comes to which address, LAST to none, and whether as its node's guest."""
Row = tuple[int, int, int, int]
"""The numbers of both ends' addresses, and a time from first to last."""

events = st.lists(
    st.tuples(
        st.integers(1, LAST),
        st.sampled_from("abcd"),
        st.integers(-1, len(ADDRESSES) - 1),
        st.booleans(),
    ),
    unique_by=lambda one: one[:2],
    max_size=16,
)
rows = st.lists(
    st.tuples(
        st.integers(0, len(ADDRESSES) - 1),
        st.integers(0, len(ADDRESSES) - 1),
        st.integers(0, LAST),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)


def tell(timeline: Timeline, cluster: ClusterId, told: Sequence[Event]) -> None:
    main = (parse_address("192.0.2.1"), ADDRESSES[0])
    key = item_key(cluster, ItemKind.NODE, "n1")
    node = Item(key, ItemKind.NODE, cluster, "", "n1", main, {})
    timeline.observe(0, replace(node, pod_networks=(parse_network("10.1.0.0/24"),)))
    for at, name, number, guest in told:
        key = item_key(cluster, ItemKind.POD, name)
        if number < 0:
            timeline.gone(at, key)
            continue
        held = (ADDRESSES[number],)
        pod = Item(key, ItemKind.POD, cluster, "shop", name, held, {}, "n1", guest)
        timeline.observe(at, pod)


def reported(seen: Sequence[Row]) -> pa.Table:
    blanks = {pa.binary(16): bytes(16), pa.string(): ""}
    blank = {field.name: blanks.get(field.type, 0) for field in batch.FLOWS}
    table = [
        blank
        | {
            "consumer": ADDRESSES[consumer],
            "provider": ADDRESSES[provider],
            "first_ns": first,
            "last_ns": first + length,
        }
        for consumer, provider, first, length in seen
    ]
    return pa.Table.from_pylist(table, schema=batch.FLOWS)


LABELS = (
    "consumer_item", "provider_item", "dialled_item", "consumer_node", "provider_node", "rank",
    "at_consumer", "at_provider",
)  # fmt: skip


def labelled(timeline: Timeline, seen: Sequence[tuple[ClusterId, Row]]) -> list[tuple[object, ...]]:
    agents = Agents(
        [("t", EAST, "n1"), ("t", WEST, "n1")], np.array([int(one == WEST) for one, _ in seen])
    )
    found = label_flows(reported([row for _, row in seen]), timeline, agents)
    return list(zip(*(found[name].tolist() for name in LABELS), strict=True))


@given(events, events, rows, rows)
def test_rows_of_two_clusters_are_labelled_as_each_ones_alone(
    east: list[Event], west: list[Event], seen_east: list[Row], seen_west: list[Row]
) -> None:
    both, alone = Timeline(), {EAST: Timeline(), WEST: Timeline()}
    for cluster, told in ((EAST, east), (WEST, west)):
        for timeline in (both, alone[cluster]):
            tell(timeline, cluster, told)
    mixed = [(EAST, row) for row in seen_east] + [(WEST, row) for row in seen_west]
    mixed = mixed[::2] + mixed[1::2]
    found = labelled(both, mixed)
    for cluster, timeline in alone.items():
        mine = [one for one in mixed if one[0] == cluster]
        held = [said for one, said in zip(mixed, found, strict=True) if one[0] == cluster]
        assert held == labelled(timeline, mine)


@given(events, events, st.integers(0, LAST))
def test_an_instant_has_of_each_cluster_what_it_has_alone(
    east: list[Event], west: list[Event], at: int
) -> None:
    both = Timeline()
    for cluster, told in ((EAST, east), (WEST, west)):
        tell(both, cluster, told)
    packed = np.array([list(one) for one in ADDRESSES], dtype=np.uint8)
    for cluster, told in ((EAST, east), (WEST, west)):
        alone = Timeline()
        tell(alone, cluster, told)
        names = [located(one, packed, cluster, at) for one in (both, alone)]
        assert names[0] == names[1]


def located(
    timeline: Timeline, packed: NDArray[np.uint8], cluster: ClusterId, at: int
) -> list[str]:
    snapshot = timeline.at(at)
    found = snapshot.locate(packed, SeenFrom.one(cluster, len(packed))).tolist()
    assert found == [snapshot.at(Address(one.tobytes()), cluster) for one in packed]
    return [snapshot.items[one].key if one >= 0 else "" for one in found]
