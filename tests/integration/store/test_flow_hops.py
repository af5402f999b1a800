"""Hops on a real embedded ClickHouse: each path leaves its records, each connection is one."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from ringfence.control.analysis import connections_of
from ringfence.flows.connections import records
from ringfence.inventory.snapshot import NOWHERE
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address
from ringfence.model.protocol import UDP
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS, hourly
from tests.integration.store.observed import (
    HISTORY,
    NODE,
    POD,
    WINDOW,
    dropped_at_balancer,
    insert,
    keep,
    node_port_elsewhere,
    node_port_same_node,
    pod_to_balancer,
    pod_to_outside,
    pod_to_pod_across,
    pod_to_pod_same_node,
    pod_to_service,
    text,
    through_an_overlay,
)
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    CLUSTER,
    DB,
    FRONT,
    GATEWAY1,
    ITEMS,
    NODE1,
    NODE2,
    OUTSIDE,
    SECOND,
    START,
    Agent,
    address,
    pod,
    timeline,
)

HOUR = 3600 * SECOND


def told(hops: pa.Table) -> set[tuple[str, str, int]]:
    return {
        (
            format_address(Address(hop["consumer"])),
            format_address(Address(hop["provider"])),
            hop["provider_port"],
        )
        for hop in hops.to_pylist()
    }


PATHS: list[Any] = [
    # path, hops, (consumer, dialled, provider) judged, receiving node
    (pod_to_pod_same_node(), {(FRONT, CARTS, 8080)}, (FRONT, CARTS, CARTS), None),
    (pod_to_pod_across(), {(FRONT, DB, 27017)}, (FRONT, DB, DB), None),
    (
        pod_to_service(CARTS),
        {(FRONT, CARTS_IP, 80), (FRONT, CARTS, 8080)},
        (FRONT, CARTS_IP, CARTS),
        None,
    ),
    (
        pod_to_service(CARTS2),
        {(FRONT, CARTS_IP, 80), (FRONT, CARTS2, 8080)},
        (FRONT, CARTS_IP, CARTS2),
        None,
    ),
    (  # externalTrafficPolicy Cluster, masqueraded to the gateway
        node_port_same_node(GATEWAY1),
        {(OUTSIDE, NODE1, 31095), (GATEWAY1, FRONT, 8079)},
        (OUTSIDE, NODE1, FRONT),
        "node1",
    ),
    (  # externalTrafficPolicy Local, the client's address kept
        node_port_same_node(OUTSIDE),
        {(OUTSIDE, NODE1, 31095), (OUTSIDE, FRONT, 8079)},
        (OUTSIDE, NODE1, FRONT),
        "node1",
    ),
    (
        node_port_elsewhere(),
        {(OUTSIDE, NODE2, 31095), (NODE2, FRONT, 8079)},
        (OUTSIDE, NODE2, FRONT),
        "node2",
    ),
    (
        pod_to_outside(),
        {(FRONT, OUTSIDE, 666), (NODE1, OUTSIDE, 666)},
        (FRONT, OUTSIDE, OUTSIDE),
        None,
    ),
]


@pytest.mark.parametrize(("agents", "hops", "judged", "receiver"), PATHS)
async def test_each_path_leaves_its_records(
    store: FlowStore, agents: Any, hops: Any, judged: Any, receiver: str | None
) -> None:
    await insert(store, *agents)
    found = await store.query(HOPS, WINDOW)
    assert told(found) == hops
    assert len(set(found["connection"].to_pylist())) == 1
    assert set(found["forward_packets"].to_pylist()) == {5}, "observers are never added up"
    seen = records(found)
    ends = zip(
        *(text(seen, name) for name in ("first_consumer", "dialled", "provider")), strict=True
    )
    assert list(ends) == [judged]
    snapshot = HISTORY.at(START)
    (at,) = connections_of(seen, snapshot).node_item.tolist()
    assert (snapshot.items[at].name if at != NOWHERE else None) == receiver


BALANCER = ("198.51.100.7", 80)


@pytest.mark.parametrize(
    ("agents", "judged", "receiver"),
    [
        (node_port_same_node(OUTSIDE, BALANCER), (OUTSIDE, FRONT), "node1"),
        (node_port_elsewhere(BALANCER), (OUTSIDE, FRONT), "node2"),
        (pod_to_balancer(BALANCER), (CARTS2, FRONT), "node2"),
        (dropped_at_balancer(BALANCER), (OUTSIDE, BALANCER[0]), "node2"),
    ],
)
async def test_who_translates_has_received_for_a_load_balancer(
    store: FlowStore, agents: Any, judged: Any, receiver: str
) -> None:
    *others, front_end = ITEMS
    assert front_end.service
    spec = replace(front_end.service, external_addresses=(address(BALANCER[0]),))
    history = Timeline()
    history.replace(START - 60 * SECOND, CLUSTER, (*others, replace(front_end, service=spec)))
    reports = (agent.report(f"b{number}") for number, agent in enumerate(agents))
    await keep(store, *reports, history=history)
    seen = records(await store.query(HOPS, WINDOW))
    (ends,) = zip(text(seen, "first_consumer"), text(seen, "provider"), strict=True)
    assert ends == judged
    snapshot = history.at(START)
    (at,) = connections_of(seen, snapshot).node_item.tolist()
    assert (snapshot.items[at].name if at != NOWHERE else None) == receiver


@pytest.mark.parametrize("before", [None, (FRONT, (CARTS_IP, 80))])
async def test_a_tunnel_is_linked_to_what_it_carries_and_counts_nothing_twice(
    store: FlowStore, before: Any
) -> None:
    await insert(store, *through_an_overlay(before))
    found = await store.query(HOPS, WINDOW)
    tunnels = {(NODE1, NODE2, 4789), (NODE2, NODE1, 4789)}
    inside = {(FRONT, CARTS2, 8080), (FRONT, DB, 27017)}
    assert told(found) == tunnels | inside | ({(FRONT, CARTS_IP, 80)} if before else set())
    assert len(found) == len(told(found))
    by_port = {hop["provider_port"]: hop for hop in found.to_pylist()}
    for port in (8080, 27017):
        ends = (format_address(by_port[port][f"tunnel_{end}"]) for end in ("consumer", "provider"))
        assert (*ends, by_port[port]["tunnel_port"]) == (NODE1, NODE2, 4789)
        assert (by_port[port]["tunnel_protocol"], by_port[port]["carries"]) == (UDP, 0)
    # The fuller of two that stand alike; the consumer's own veth saw it untranslated.
    assert by_port[8080]["forward_packets"] == (6 if before else 5)
    carried = {
        format_address(hop["consumer"]): hop["carries"]
        for hop in found.to_pylist()
        if hop["provider_port"] == 4789
    }
    assert carried == {NODE1: 2, NODE2: 2}
    assert set(text(records(found), "first_consumer")) == {FRONT}, "a tunnel is not judged alone"
    by_hour = {
        hop["provider_port"]: hop for hop in (await store.query(hourly(HOPS), WINDOW)).to_pylist()
    }
    assert {port: hop["carries"] for port, hop in by_hour.items()} == {
        port: hop["carries"] for port, hop in by_port.items()
    }


async def test_an_address_given_to_another_pod_is_another_end(store: FlowStore) -> None:
    history = timeline()
    (old,) = (item for item in history.latest().items if item.addresses == (address(DB),))
    history.gone(START + 20 * SECOND, old.key)
    successor = pod("other-1", DB, "node2")
    history.observe(START + 21 * SECOND, successor)
    for number, at in enumerate((START, START + 30 * SECOND)):
        agent = Agent("node1")
        agent.saw(POD, 7, FRONT, (DB, 27017), first_ns=at, last_ns=at)
        agent.saw(POD, 7, FRONT, (CARTS_IP, 80), first_ns=at, last_ns=at)
        before = (FRONT, (CARTS_IP, 80))
        agent.saw(NODE, 2, FRONT, (DB, 8080), before, first_ns=at, last_ns=at)
        await keep(store, agent.report(f"reuse{number}"), history=history)
    seen = records(await store.query(HOPS, WINDOW))
    met = zip(seen.column("provider_port"), seen.column("provider_item"), strict=True)
    assert set(met) == {(port, item.key) for port in (27017, 8080) for item in (old, successor)}
    assert len(seen) == 4


async def test_the_best_placed_observer_counts_whatever_others_saw(store: FlowStore) -> None:
    """Each saw another part of it; one at the provider also tells of drops."""
    one, two = Agent("node1"), Agent("node2")
    one.saw(NODE, 2, FRONT, (DB, 27017), forward_packets=12, opened=8, method="socket")
    one.saw(POD, 7, FRONT, (DB, 27017), forward_packets=10, opened=7)
    two.saw(NODE, 2, FRONT, (DB, 27017), forward_packets=11, opened=9, method="degree")
    two.saw(POD, 9, FRONT, (DB, 27017), forward_packets=3, opened=2, method="degree")
    two.dropped(FRONT, (DB, 27017), packets=7)
    await insert(store, one, two)
    for question in (HOPS, hourly(HOPS)):
        (hop,) = (await store.query(question, WINDOW)).to_pylist()
        told = (hop["node"], hop["forward_packets"], hop["opened"], hop["method"], hop["dropped"])
        assert told == ("node1", 10, 7, "syn", 7)


async def test_ranges_side_by_side_share_no_report(store: FlowStore) -> None:
    """Windows that end a moment after a boundary, as a drain takes its time."""
    for number in range(4):
        agent, start = Agent("node1"), START + 15 * number * SECOND
        late = SECOND // 2
        agent.saw(
            POD, 7, FRONT, (DB, 27017), first_ns=start + late, last_ns=start + 15 * SECOND + late
        )
        agent.dropped(FRONT, (DB, 27017), packets=1)
        report = agent.report(f"side{number}")
        key = replace(report.key, start_ns=start, end_ns=start + 15 * SECOND)
        await keep(store, replace(report, key=key))
    seen = []
    for since in range(START, START + 60 * SECOND, 15 * SECOND):
        within = WINDOW | {"since": since, "until": since + 15 * SECOND}
        (hop,) = (await store.query(HOPS, within)).to_pylist()
        seen.append((hop["forward_packets"], hop["dropped"]))
    assert seen == [(5, 1)] * 4


@pytest.mark.parametrize("question", [HOPS, hourly(HOPS)])
async def test_a_later_agent_leaves_what_others_told_before_it(
    store: FlowStore, question: str
) -> None:
    """One takes the consumer's node five hours later, and tells the translated hop itself."""
    one, two = pod_to_service(CARTS2)
    times = {"before": (two, 0), "with": (two, 5 * HOUR), "own": (one, 5 * HOUR)}
    for name, (agent, later) in times.items():
        report = agent.report(name)
        key = replace(report.key, start_ns=START + later, end_ns=START + later + 15 * SECOND)
        await keep(store, replace(report, key=key))
    for until, packets in ((HOUR, [5]), (6 * HOUR, [5, 5, 5])):
        found = await store.query(question, WINDOW | {"until": START + until})
        assert found["forward_packets"].to_pylist() == packets
    within = {"since": START + 5 * HOUR, "until": START + 6 * HOUR}
    assert told(await store.query(question, WINDOW | within)) == {
        (FRONT, CARTS_IP, 80),
        (FRONT, CARTS2, 8080),
    }


async def test_other_tenants_see_nothing(store: FlowStore) -> None:
    await insert(store, *pod_to_pod_same_node())
    assert len(await store.query(HOPS, WINDOW | {"tenant": "other"})) == 0


async def test_a_connection_told_in_both_modes_is_one_with_the_sum_of_both(
    store: FlowStore,
) -> None:
    before = (FRONT, (CARTS_IP, 80))
    one = Agent("node1")
    later: dict[str, Any] = {
        "first_ns": START + 20 * SECOND,
        "last_ns": START + 21 * SECOND,
        "opened": 0,
    }
    for port, more in ((0, {}), (40000, later), (40001, later), (0, later)):
        one.saw(POD, 7, FRONT, (CARTS_IP, 80), consumer_port=port, **more)
        one.saw(POD, 8, FRONT, (CARTS, 8080), before, consumer_port=port, **more)
    await insert(store, one)
    hops = await store.query(HOPS, WINDOW)
    assert len(set(hops["connection"].to_pylist())) == 1
    for hop in hops.to_pylist():
        assert sorted(hop["consumer_ports"]) == [40000, 40001]
        assert (hop["forward_packets"], hop["opened"]) == (4 * 5, 1)
    assert len(hops) == 2
    assert len(records(hops)) == 1
