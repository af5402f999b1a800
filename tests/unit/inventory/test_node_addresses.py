"""What an agent tells of its node's addresses, and how the timeline bears ten thousand items."""

from dataclasses import replace

import numpy as np

from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address, parse_address
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import ADDRESS
from ringfence.model.query import parse
from ringfence.model.workload import Item, ItemKind

LAB = ClusterId("lab")
MAIN, GATEWAY, NEXT = (parse_address(text) for text in ("192.0.2.1", "10.1.0.1", "10.2.0.1"))


def item(kind: ItemKind, name: str, *addresses: Address, node: str = "") -> Item:
    return Item(
        key=item_key(LAB, kind, name),
        kind=kind,
        cluster=LAB,
        namespace="",
        name=name,
        addresses=addresses,
        labels={ADDRESS: tuple(sorted(map(format_address, addresses))), "name": (name,)},
        node=node,
        host_network=bool(node),
    )


NODE = item(ItemKind.NODE, "node1", MAIN)
GUEST = item(ItemKind.POD, "proxy", MAIN, node="node1")


def addresses_of(timeline: Timeline, t: int, one: Item) -> tuple[Address, ...]:
    snapshot = timeline.at(t)
    return snapshot.items[snapshot.position(one.key)].addresses


def test_reported_addresses_join_the_node_now_and_later_and_its_guests_follow() -> None:
    timeline = Timeline()
    timeline.observe(1, NODE)
    timeline.observe(1, GUEST)
    assert len(timeline.set_node_addresses(LAB, "node1", [GATEWAY, MAIN], 5)) == 4
    assert addresses_of(timeline, 4, NODE) == (MAIN,)
    assert addresses_of(timeline, 5, NODE) == addresses_of(timeline, 5, GUEST) == (MAIN, GATEWAY)
    assert timeline.at(5).select(parse('address = "10.1.0.1" and name = "node1"'))

    assert timeline.set_node_addresses(LAB, "node1", [MAIN, GATEWAY], 6) == []
    assert timeline.replace(7, LAB, [NODE, GUEST]) == [], "a relist says nothing new"
    timeline.set_node_addresses(LAB, "node1", [NEXT], 8)
    assert addresses_of(timeline, 8, NODE) == (MAIN, NEXT), "what is no longer reported goes"

    asked = np.frombuffer(GATEWAY * 3, dtype=np.uint8).reshape(3, 16)
    at = np.array([4, 7, 8])
    holders = timeline.resolve(asked, at, at, SeenFrom.one(LAB, 3)).tolist()
    assert [bool(holder) for holder in holders] == [False, True, False]
    assert timeline.revision(holders[1])[0].key == NODE.key


def test_a_restart_keeps_reported_addresses_until_the_agent_speaks_again() -> None:
    timeline = Timeline()
    stored = timeline.observe(1, NODE) + timeline.set_node_addresses(LAB, "node1", [GATEWAY], 2)
    restarted = Timeline()
    restarted.load({change.revision: change for change in stored}.values())
    assert restarted.replace(3, LAB, [NODE]) == []
    restarted.set_node_addresses(LAB, "node1", [NEXT], 4)
    assert addresses_of(restarted, 4, NODE) == (MAIN, NEXT)


def test_ten_thousand_items_and_a_hundred_thousand_rows() -> None:
    pods = [
        item(ItemKind.POD, f"pod{number}", Address(number.to_bytes(16)))
        for number in range(1, 10_001)
    ]
    timeline = Timeline()
    timeline.replace(1, LAB, pods)
    assert timeline.replace(2, LAB, pods) == []
    for step, pod in enumerate(pods[:1000]):
        timeline.observe(10 + step, replace(pod, labels={**pod.labels, "seen": ("1",)}))
    assert len(timeline.latest().items) == 10_000
    assert len(timeline.select_revisions(parse('seen = "1"'), 0, 100_000)) == 1000
    numbers = np.arange(100_000) % 10_000 + 1
    rows = np.zeros((100_000, 16), dtype=np.uint8)
    rows[:, 14], rows[:, 15] = numbers >> 8, numbers & 255
    at = np.full(100_000, 10**9)
    held = timeline.resolve(rows, at, at, SeenFrom.one(LAB, len(rows)))
    assert len(np.unique(held)) == 10_000
