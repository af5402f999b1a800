"""The timeline against the plainest model of it: each item's events, sorted by time."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import LATE_NS, Change, Timeline
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.query import parse
from ringfence.model.workload import Item, ItemKind

CLUSTER = ClusterId("lab")
ADDRESSES = [Address(bytes(15) + bytes([number])) for number in range(3)]
PODS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Event:
    at: int
    pod: str
    address: int | None  # None: gone
    guest: bool = False

    @property
    def item(self) -> Item:
        assert self.address is not None
        return Item(
            key=item_key(CLUSTER, ItemKind.POD, self.pod),
            kind=ItemKind.POD,
            cluster=CLUSTER,
            namespace="shop",
            name=self.pod,
            addresses=(ADDRESSES[self.address],),
            labels={"holds": (str(self.address),), "pod": (self.pod,)},
            host_network=self.guest,
        )

    def tell(self, timeline: Timeline) -> list[Change]:
        if self.address is None:
            return timeline.gone(self.at, item_key(CLUSTER, ItemKind.POD, self.pod))
        return timeline.observe(self.at, self.item)


event_lists = st.lists(
    st.builds(
        Event,
        at=st.integers(1, 30),
        pod=st.sampled_from(PODS),
        address=st.none() | st.integers(0, len(ADDRESSES) - 1),
        guest=st.booleans(),
    ),
    unique_by=lambda event: (event.at, event.pod),
    max_size=24,
)


def model_at(events: list[Event], t: int) -> dict[str, Event]:
    """The last event of each pod up to t, without those that are gone."""
    last: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: event.at):
        if event.at <= t:
            last[event.pod] = event
    return {pod: event for pod, event in last.items() if event.address is not None}


def told(events: list[Event]) -> tuple[Timeline, dict[RevisionId, Change]]:
    timeline, stored = Timeline(), {}
    for event in events:
        timeline.latest()  # a cached snapshot must not survive what contradicts it
        for change in event.tell(timeline):
            stored[change.revision] = change
    return timeline, stored


@given(event_lists)
def test_any_order_gives_the_same_inventory_and_storing_keeps_it(events: list[Event]) -> None:
    timeline, stored = told(events)
    restarted = Timeline()
    restarted.load(stored.values())
    for t in range(32):
        expected = {pod: event.item for pod, event in model_at(events, t).items()}
        for one in (timeline, restarted):
            assert {item.name: item for item in one.at(t).items} == expected
        for revision in timeline.at(t).revisions.tolist():
            item, since, until = timeline.revision(revision)
            assert since <= t < until
            assert expected[item.name] == item


@given(event_lists)
def test_a_reused_address_resolves_to_its_holder_of_that_instant(events: list[Event]) -> None:
    timeline, _ = told(events)
    asked = [(address, t) for address in range(len(ADDRESSES)) for t in range(32)]
    rows = np.array([list(ADDRESSES[address]) for address, _ in asked], dtype=np.uint8)
    times = np.array([t for _, t in asked], dtype=np.int64)
    held = timeline.resolve(rows, times, times, SeenFrom.one(CLUSTER, len(rows)))
    for (address, t), revision in zip(asked, held.tolist(), strict=True):
        holding = {p: e for p, e in model_at(events, t).items() if e.address == address}
        if not holding:
            assert revision == 0
            continue
        item, since, until = timeline.revision(revision)
        assert since <= t < until
        assert item == holding[item.name].item
        assert not item.host_network or all(event.guest for event in holding.values())


@given(event_lists, st.integers(0, 31), st.integers(0, 31))
def test_a_span_resolves_to_the_one_item_that_held_the_address(
    events: list[Event], first: int, length: int
) -> None:
    timeline, _ = told(events)
    instants = np.arange(first, first + length + 1)
    for address in ADDRESSES:
        row = np.frombuffer(address, dtype=np.uint8).reshape(1, 16)
        each = timeline.resolve(
            np.repeat(row, len(instants), axis=0),
            instants,
            instants,
            SeenFrom.one(CLUSTER, len(instants)),
        )
        holders = [revision for revision in each.tolist() if revision]
        items = {timeline.revision(revision)[0].key for revision in holders}
        (found,) = timeline.resolve(
            row, instants[:1], instants[-1:], SeenFrom.one(CLUSTER, 1)
        ).tolist()
        assert found == (holders[0] if len(items) == 1 else 0)


@given(event_lists, st.integers(0, 31), st.integers(1, 31))
def test_flow_search_finds_every_revision_that_overlaps(
    events: list[Event], since: int, length: int
) -> None:
    timeline, stored = told(events)
    found = set(timeline.select_revisions(parse('holds = "1"'), since, since + length).tolist())
    assert found == {
        change.revision
        for change in stored.values()
        if change.item.labels["holds"] == ("1",)
        and max(change.from_ns, since) < min(change.to_ns, since + length)
    }


@given(event_lists, st.integers(1, 31), st.sets(st.sampled_from(PODS)))
def test_a_full_snapshot_leaves_exactly_its_items(
    events: list[Event], at: int, present: set[str]
) -> None:
    earlier = [event for event in events if event.at < at]
    later = [event for event in events if event.at > at]
    timeline, _ = told(earlier)
    items = [Event(at, pod, 0).item for pod in sorted(present)]
    timeline.replace(at, CLUSTER, items)
    assert {item.name for item in timeline.at(at).items} == present
    assert {item.name for item in timeline.at(at - 1).items} == set(model_at(earlier, at - 1))
    for event in later:
        event.tell(timeline)
    expected = model_at([*(Event(at, pod, 0) for pod in present), *later], FOREVER)
    assert {item.name for item in timeline.latest().items} == set(expected)


def test_events_beyond_the_window_change_nothing() -> None:
    timeline = Timeline()
    Event(LATE_NS + 2, "a", 0).tell(timeline)
    assert Event(1, "a", 1).tell(timeline) == []
    assert len(Event(2, "a", 1).tell(timeline)) == 1


STEP = 10**9 // 4


@given(event_lists, st.integers(0, 40))
def test_an_address_is_its_new_holders_since_it_says(events: list[Event], since: int) -> None:
    """But not from before the item's last event, nor if three seconds have passed since."""
    timeline, plain = Timeline(), []
    last: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: event.at):
        now, before = replace(event, at=event.at * STEP), last.get(event.pod)
        told, held = (before.at, before.address) if before else (-FOREVER, None)
        gained = now.address is not None and now.address != held
        if since and gained and told < (since + 12) * STEP:
            plain.append(replace(now, at=min(now.at, max(since * STEP, told + 1))))
        plain.append(now)
        last[event.pod] = now
        if now.address is None:
            now.tell(timeline)
        else:
            timeline.observe(now.at, replace(now.item, since_ns=since * STEP))
    for t in range(32):
        expected = {pod: event.item for pod, event in model_at(plain, t * STEP).items()}
        assert {item.name: item for item in timeline.at(t * STEP).items} == expected


@given(event_lists, st.integers(0, 24))
def test_what_is_known_does_not_change_with_what_comes_later(
    events: list[Event], before: int
) -> None:
    timeline, _ = told(events[:before])
    known, alone = timeline.as_known(), told(events[:before])[0]
    for event in events[before:]:
        event.tell(timeline)
    for t in range(32):
        assert known.at(t).items == alone.at(t).items
        late, fresh = timeline.at(t), told(events)[0].at(t)
        assert late.items == fresh.items, "what was asked of the past is not taken for the present"
    since, until = 5, 20
    assert known.between(since, until).items == alone.as_known().between(since, until).items
