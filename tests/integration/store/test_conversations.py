"""Conversations in the store's own words, against the numpy that discovery and analysis use."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from ringfence.control.observed import observed
from ringfence.discovery.behaviour import SLOT_NS
from ringfence.flows.connections import conversations, records
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.model.protocol import TCP, UDP
from ringfence.model.query import parse
from ringfence.store.flows.conversations import (
    CONVERSATIONS,
    HOUR_CONVERSATIONS,
    HOUR_EDGES,
    SLOT_CONVERSATIONS,
    SLOT_EDGES,
    summed,
)
from ringfence.store.flows.filter import OF_HOP, Condition
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.flows.store import FlowStore
from tests.integration.store.observed import (
    NODE,
    POD,
    WINDOW,
    insert,
    keep,
    pod_to_outside,
    pod_to_pod_across,
    pod_to_service,
    revisions,
    through_an_overlay,
)
from tests.integration.store.test_flow_hops import PATHS
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    DB,
    FRONT,
    NODE1,
    OUTSIDE,
    SECOND,
    START,
    Agent,
    address,
)


def service_to_two_backends_with_drops() -> tuple[Agent, ...]:
    before = (FRONT, (CARTS_IP, 80))
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), forward_packets=12)
    one.saw(POD, 8, FRONT, (CARTS, 8080), before)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), before, forward_packets=7)
    one.dropped(FRONT, (CARTS_IP, 80), packets=2)
    two.dropped(FRONT, (CARTS2, 8080))
    return one, two


def source_nat_to_two_addresses() -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (OUTSIDE, 666))
    one.saw(NODE, 2, NODE1, (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)), forward_packets=4)
    one.saw(NODE, 3, "192.0.2.99", (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)), forward_packets=9)
    return (one,)


def only_dropped() -> tuple[Agent, ...]:
    two = Agent("node2")
    two.dropped(FRONT, (DB, 3306))
    return (two,)


WORLDS = [
    *(agents for agents, *_ in PATHS),
    service_to_two_backends_with_drops(),
    source_nat_to_two_addresses(),
    only_dropped(),
    through_an_overlay(None),
    through_an_overlay((FRONT, (CARTS_IP, 80))),
]


def by_path(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["connection"], row["provider"]))


@pytest.mark.parametrize("agents", WORLDS)
async def test_the_store_tells_the_same_records(store: FlowStore, agents: Any) -> None:
    await insert(store, *agents)
    seen = records(await store.query(HOPS, WINDOW))
    expected = [
        {**row, "dropped": dropped, "translated": translated}
        for row, dropped, translated in zip(
            seen.table.to_pylist(), seen.dropped.tolist(), seen.translated.tolist(), strict=True
        )
    ]
    found = (await store.query(CONVERSATIONS, WINDOW)).to_pylist()
    assert by_path(found) == by_path(expected)


def apart() -> list[Agent]:
    """All worlds at once: of observers that saw as much in as good a place either could count."""
    agents = [replace(agent, flows=list(agent.flows)) for agents in WORLDS for agent in agents]
    for more, (agent, at) in enumerate((one, at) for one in agents for at in range(len(one.flows))):
        agent.flows[at] = agent.flows[at] | {
            "forward_packets": agent.flows[at]["forward_packets"] + more
        }
    return agents


@pytest.mark.parametrize(
    ("question", "whole", "edges", "slot_ns"),
    [
        (SLOT_CONVERSATIONS, CONVERSATIONS, SLOT_EDGES, 300 * SECOND),
        (HOUR_CONVERSATIONS, hourly(CONVERSATIONS), HOUR_EDGES, 3600 * SECOND),
    ],
)
async def test_a_slot_is_told_as_if_it_were_all(
    store: FlowStore, question: str, whole: str, edges: str, slot_ns: int
) -> None:
    """Three windows, two of them in one slot of five minutes, the last hours later."""
    told, agents = [], apart()
    for number, start in enumerate((START, START + 20 * SECOND, START + 3 * 3600 * SECOND)):
        for at, agent in enumerate(agents):
            report = agent.report(f"{number} {at}")
            key = replace(report.key, start_ns=start, end_ns=start + 15 * SECOND)
            told.append(replace(report, key=key))
    await keep(store, *told)
    window = WINDOW | {"since": START - SECOND, "until": START + 4 * 3600 * SECOND}
    asked = window | {"every": slot_ns}
    rows = (await store.query(question, asked)).to_pylist()
    await tells_the_same(store, edges, asked, rows)
    slots = {row.pop("slot") for row in rows}
    expected = []
    for slot in slots:
        window |= {"since": slot * slot_ns, "until": (slot + 1) * slot_ns}
        expected += (await store.query(whole, window)).to_pylist()
    assert len(slots) == 2
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    assert len(conversations(await store.query(question, window | {"every": slot_ns}))) > 0


async def test_a_short_time_is_asked_for_in_parts_that_add_up(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = apart()
    starts = [START + minutes * 60 * SECOND for minutes in (0, 1, 29, 31, 100)]
    told = []
    for start in starts:
        for at, agent in enumerate(agents):
            report = agent.report(f"{start} {at}")
            key = replace(report.key, start_ns=start, end_ns=start + 15 * SECOND)
            told.append(replace(report, key=key))
    await keep(store, *told)
    since, until = START - SECOND, START + 2 * 3600 * SECOND
    window = WINDOW | {"since": since, "until": until, "every": SLOT_NS}
    how = {"interval": SLOT_NS, "late": START}
    whole = (await store.query(SLOT_EDGES, window | how)).to_pylist()
    query, asked = store.query, list[int]()

    async def watch(sql: str, parameters: dict[str, Any]) -> Any:
        if sql == SLOT_EDGES:
            asked.append(parameters["until"] - parameters["since"])
        return await query(sql, parameters)

    monkeypatch.setattr(store, "query", watch)
    found = (await observed(store, DEFAULT_TENANT, since, until)).table.to_pylist()
    assert len(asked) > 1, "nothing is asked for of parts in which there is nothing"
    assert max(asked) <= 1800 * SECOND
    names = ("first_consumer", "provider", "dialled_port", "provider_port", "protocol")
    sums: list[Counter[Any]] = [Counter(), Counter()]
    for total, rows in zip(sums, (whole, found), strict=True):
        for row in rows:
            total[tuple(row[name] for name in names)] += row["conversations"]
    assert sums[0] == sums[1]


async def tells_the_same(
    store: FlowStore, edges: str, asked: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    """Edges add up the slots' rows: none is lost, and each interval is told once."""
    late_ns = START + 3600 * SECOND
    found = (await store.query(edges, asked | {"interval": SECOND, "late": late_ns})).to_pylist()
    keys = ("first_consumer", "provider", "dialled", "dialled_port", "provider_port", "protocol")

    def kind(row: dict[str, Any]) -> tuple[Any, ...]:
        replied = row["reverse_packets"] > 0
        good = row["answered"] > 0 or (replied and not row["refused"])
        return (
            *(row[key] for key in keys),
            good if row["protocol"] == TCP else replied,
            row["refused"] + row["dropped"] > 0,
            row["first_ns"] < late_ns,
        )

    told: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        told.setdefault(kind(row), []).append(row)
    assert sorted(map(kind, found)) == sorted(told)
    for edge in found:
        added = told[kind(edge)]
        for name in ("opened", "answered", "refused", "dropped", "forward_bytes"):
            assert edge[name] == sum(row[name] for row in added)
        assert edge["conversations"] == sum(max(row["opened"], 1) for row in added)
        assert sorted(edge["intervals"]) == sorted({row["first_ns"] // SECOND for row in added})
        assert edge["first_ns"] == min(row["first_ns"] for row in added)
        assert edge["last_ns"] == max(row["last_ns"] for row in added)


async def sums(store: FlowStore, written: str, *keys: str, whole: Any = ()) -> list[dict[str, Any]]:
    condition = Condition(parse(written), revisions, OF_HOP)
    query = summed(condition.sql, list(keys), set(whole))
    found = await store.query(query, WINDOW | condition.parameters | {"limit": 100})
    return list(found.to_pylist())


async def test_a_service_is_not_counted_twice(store: FlowStore) -> None:
    await insert(store, *pod_to_service(CARTS2))
    (row,) = await sums(store, "everything", "consumer_revision", "provider_revision", "port")
    assert (row["port"], row["connections"], row["forward_packets"]) == (8080, 1, 5)
    (same,) = await sums(store, 'provider.kind = "service" and port = 80', "port")
    assert same["port"] == 8080


async def test_addresses_are_told_where_nobody_held_them(store: FlowStore) -> None:
    await insert(store, *pod_to_outside())
    keys = ("consumer_revision", "consumer_address", "provider_address")
    (row,) = await sums(store, "everything", *keys)
    assert (row["consumer_address"], row["provider_address"]) == (bytes(16), address(OUTSIDE))
    (row,) = await sums(store, "everything", *keys, whole=["consumer_address"])
    assert row["consumer_address"] == address(FRONT)


async def test_sums_are_over_what_the_filter_leaves(store: FlowStore) -> None:
    one, two = pod_to_pod_across()
    one.saw(POD, 7, FRONT, (DB, 53), protocol=UDP, forward_bytes=1)
    await insert(store, one, two)
    rows = await sums(store, "everything", "protocol")
    assert {row["protocol"]: row["forward_bytes"] for row in rows} == {6: 500, 17: 1}
    assert [row["forward_bytes"] for row in await sums(store, 'protocol = "UDP"')] == [1]
    assert await sums(store, "port = 1", "protocol") == []
