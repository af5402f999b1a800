"""A batch is stored once, whatever happens on the way."""

import asyncio
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.ingest import FlowIngest
from ringfence.control.inventory import Inventory
from ringfence.control.labelling import Report, label
from ringfence.control.metrics import Metrics
from ringfence.control.services import Window
from ringfence.model.client import ClientKind
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.relational.database import Database
from tests.integration.store.observed import (
    HISTORY,
    POD,
    WINDOW,
    keep,
    packets,
    pod_to_pod_same_node,
    pod_to_service,
    rows,
)
from tests.integration.world import CARTS, CARTS2, CLUSTER, FRONT, ITEMS, SECOND, START, Agent


async def test_windows_add_up_and_what_is_stored_is_known(store: FlowStore) -> None:
    rtt: dict[str, Any] = {"rtt_samples": 2, "rtt_sum_ns": 90, "rtt_min_ns": 40}
    agent, unmeasured = Agent("node1"), Agent("node1")
    agent.saw(POD, 7, FRONT, (CARTS, 8080), forward_retransmitted=3, reverse_rst=1, **rtt)
    unmeasured.saw(POD, 7, FRONT, (CARTS, 8080), forward_packets=0, opened=0)
    reports = [agent.report("w1"), agent.report("w2"), unmeasured.report("w3")]
    for report in reports:
        await keep(store, report)
    keys = [report.key for report in reports]
    assert await store.known([*keys, agent.report("w4").key]) == set(keys)
    for question in (HOPS, hourly(HOPS)):
        (hop,) = (await store.query(question, WINDOW)).to_pylist()
        assert (hop["forward_packets"], hop["opened"]) == (10, 2)
        counts = (hop["forward_retransmitted"], hop["reverse_rst"], hop["reverse_syn"])
        assert counts == (6, 2, 0)
        assert {name: hop[name] for name in rtt} == rtt | {"rtt_samples": 4, "rtt_sum_ns": 180}


async def test_what_is_reported_again_in_other_company_is_stored_once(
    store: FlowStore, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'control.db'}")
    await database.start()
    inventory = Inventory(database, DEFAULT_TENANT, Metrics())
    inventory.timeline.replace(START - 60 * SECOND, CLUSTER, ITEMS)
    ingest = FlowIngest(store, inventory, Exports({}, inventory.timeline), lambda: START)
    await ingest.start()
    one, two = pod_to_service(CARTS2)

    async def send(report: Report) -> bool:
        agent = ClientIdentity(ClientKind.AGENT, report.key.node, CLUSTER, DEFAULT_TENANT)
        window = Window(report.key.start_ns, report.key.end_ns)
        return await ingest.ingest(agent, report.key.id, window, report.flows, report.drops)

    first = [send(one.report("a")), send(two.report("b")), send(one.report("a"))]
    assert await asyncio.gather(*first) == [False, False, True]
    again = [send(one.report("c")), send(two.report("b")), send(one.report("a"))]
    assert await asyncio.gather(*again) == [False, True, True]
    assert await rows(store, "flows") == 2 * len(one.flows) + len(two.flows)
    assert await rows(store, "batches") == 3
    assert ingest.through() == {
        (CLUSTER, "node1"): START + 15 * SECOND,
        (CLUSTER, "node2"): START + 15 * SECOND,
    }
    await ingest.stop()
    await database.stop()


@pytest.mark.parametrize("table", ["flows", "flows_hourly", "batches"])
async def test_an_insertion_that_fails_is_finished_before_the_next(
    store: FlowStore, table: str
) -> None:
    """The agents hear of a failure, and come again in other company."""
    (agent,) = pod_to_pod_same_node()
    first, second, third = (agent.report(name) for name in ("a", "b", "c"))
    await store._run(store._writer, methodcaller("command", f"RENAME TABLE {table} TO gone"))
    with pytest.raises(StoreError):
        await store.insert([first.key, second.key], *label([first, second], HISTORY))
    await store._run(store._writer, methodcaller("command", f"RENAME TABLE gone TO {table}"))
    assert await store.known([first.key, third.key]) == {first.key}
    await keep(store, third)
    keys = [first.key, second.key, third.key]
    assert await store.known(keys) == set(keys)
    assert await packets(store) == (15, 15)
