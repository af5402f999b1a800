"""A batch is stored once, whatever happens on the way."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringfence.control import ingest
from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.ingest import FlowIngest
from ringfence.control.inventory import Inventory
from ringfence.control.labelling import Report, label
from ringfence.control.metrics import Metrics
from ringfence.control.times import Window
from ringfence.export.jsonl import JsonLines
from ringfence.export.url import parse_url
from ringfence.model.client import ClientKind
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.store.errors import StoreError, UnfinishedError
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.relational.database import Database
from tests.integration.store.observed import (
    HISTORY,
    POD,
    WINDOW,
    keep,
    known,
    packets,
    pod_to_pod_across,
    pod_to_pod_same_node,
    pod_to_service,
    refusing,
    rows,
)
from tests.integration.world import (
    CARTS,
    CARTS2,
    CLUSTER,
    DB,
    FRONT,
    ITEMS,
    OUTSIDE,
    SECOND,
    START,
    Agent,
)


async def test_windows_add_up_and_what_is_stored_is_known(store: FlowStore) -> None:
    rtt: dict[str, Any] = {"rtt_samples": 2, "rtt_sum_ns": 90, "rtt_min_ns": 40}
    agent, unmeasured = Agent("node1"), Agent("node1")
    agent.saw(POD, 7, FRONT, (CARTS, 8080), forward_retransmitted=3, reverse_rst=1, **rtt)
    unmeasured.saw(POD, 7, FRONT, (CARTS, 8080), forward_packets=0, opened=0)
    reports = [agent.report("w1"), agent.report("w2"), unmeasured.report("w3")]
    for report in reports:
        await keep(store, report)
    keys = [report.key for report in reports]
    more = [*reports, agent.report("w4")]
    assert await store.insert([one.key for one in more], *label(more, HISTORY)) == set(keys)
    assert await known(store) == {"w1", "w2", "w3"}
    for question in (HOPS, hourly(HOPS)):
        (hop,) = (await store.query(question, WINDOW)).to_pylist()
        assert (hop["forward_packets"], hop["opened"]) == (10, 2)
        counts = (hop["forward_retransmitted"], hop["reverse_rst"], hop["reverse_syn"])
        assert counts == (6, 2, 0)
        assert {name: hop[name] for name in rtt} == rtt | {"rtt_samples": 4, "rtt_sum_ns": 180}


@dataclass
class Intake:
    """An ingest, and a file that it exports to."""

    ingest: FlowIngest
    exports: Exports
    file: Path
    now_ns: int = START

    async def send(self, report: Report) -> bool:
        """Report as an agent does."""
        agent = ClientIdentity(ClientKind.AGENT, report.key.node, CLUSTER, DEFAULT_TENANT)
        key = report.key
        window = Window(key.start_ns, key.end_ns)
        return await self.ingest.ingest(
            agent, key.id, window, report.flows, report.drops, more=key.more
        )

    async def exported(self) -> list[tuple[str, str]]:
        """Who was said to have connected where, in all."""
        await self.exports.stop()
        told = map(json.loads, self.file.read_text().splitlines())
        return [(one["consumer"]["address"], one["provider"]["address"]) for one in told]


@pytest.fixture
async def intake(store: FlowStore, tmp_path: Path) -> AsyncIterator[Intake]:
    database = Database(f"sqlite:///{tmp_path / 'control.db'}")
    await database.start()
    inventory = Inventory(time.time_ns, database, DEFAULT_TENANT, Metrics())
    inventory.timeline.replace(START - 60 * SECOND, CLUSTER, ITEMS)
    file = tmp_path / "flows.jsonl"
    exports = Exports({"file": JsonLines(parse_url(f"jsonl://{file}"))}, inventory.timeline)
    await exports.start()
    ingest = FlowIngest(store, inventory, exports, lambda: made.now_ns)
    made = Intake(ingest, exports, file)
    yield made
    await ingest.stop()
    await exports.stop()
    await database.stop()


async def test_what_is_reported_again_in_other_company_is_stored_once(
    store: FlowStore, intake: Intake
) -> None:
    await intake.ingest.start()
    one, two = pod_to_service(CARTS2)
    send = intake.send
    first = [send(one.report("a")), send(two.report("b")), send(one.report("a"))]
    assert await asyncio.gather(*first) == [False, False, True]
    again = [send(one.report("c")), send(two.report("b")), send(one.report("a"))]
    assert await asyncio.gather(*again) == [False, True, True]
    assert await rows(store, "flows") == 2 * len(one.flows) + len(two.flows)
    assert await rows(store, "batches") == 3
    assert intake.ingest.through() == {
        (CLUSTER, "node1"): START + 15 * SECOND,
        (CLUSTER, "node2"): START + 15 * SECOND,
    }


async def test_more_than_goes_in_together_goes_in_once_group_by_group(
    store: FlowStore, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent,) = pod_to_pod_same_node()
    monkeypatch.setattr(ingest, "_ROWS_AT_ONCE", 3 * len(agent.flows))
    reports = [agent.report(f"w{number}") for number in range(20)]
    await intake.send(reports[7])
    sent = await asyncio.gather(*(intake.send(one) for one in [*reports, *reports]))
    assert [at for at, twice in enumerate(sent) if not twice] == [*range(7), *range(8, 20)]
    assert await known(store) == {one.key.id for one in reports}
    assert await rows(store, "flows") == 20 * len(agent.flows)


async def test_a_window_counts_as_told_once_its_last_batch_is_stored(
    store: FlowStore, intake: Intake
) -> None:
    """What it does not tell yet may be in the next: it is no sign that nothing arrived."""
    (agent,) = pod_to_pod_same_node()
    await intake.ingest.start()
    await intake.send(agent.report("w", more=True))
    assert intake.ingest.through() == {}
    await intake.ingest.start()
    assert intake.ingest.through() == {}, "nor after a restart"
    await intake.send(agent.report("w-1"))
    told = {(CLUSTER, "node1"): START + 15 * SECOND}
    assert intake.ingest.through() == told
    await intake.ingest.start()
    assert intake.ingest.through() == told


async def test_what_a_failed_insertion_stored_after_all_is_told_once(
    store: FlowStore, intake: Intake
) -> None:
    await intake.ingest.start()
    (agent,) = pod_to_pod_same_node()
    agent.dropped(OUTSIDE, (FRONT, 8079))
    with intake.ingest.arrivals.listen(DEFAULT_TENANT) as listener:
        async with refusing(store, "drops"):
            with pytest.raises(StoreError):
                await intake.send(agent.report("a"))
        assert not await listener.windows(0)
        sent = [await intake.send(agent.report("a")) for _ in range(2)]
        assert sent == [False, True]
        assert await listener.windows(0) == {Window(START, START + 15 * SECOND)}
    assert await intake.exported() == [(FRONT, CARTS)]
    assert (await rows(store, "flows"), await rows(store, "drops")) == (2, 1)


@pytest.mark.parametrize("restarted", [True, False])
async def test_whoever_comes_back_first_from_an_outage_tells_its_own_part_alone(
    store: FlowStore, intake: Intake, restarted: bool
) -> None:
    one, two = pod_to_pod_across()
    before = [Agent(agent.node).report(f"before-{agent.node}") for agent in (one, two)]
    if restarted:
        await keep(store, *before)
    await intake.ingest.start()
    if not restarted:
        for report in before:
            await intake.send(report)
    intake.now_ns = START + 3600 * SECOND
    await intake.send(two.report("two"))
    intake.now_ns += SECOND
    await intake.send(one.report("one"))
    assert await intake.exported() == [(FRONT, DB)]


@pytest.mark.parametrize("table", ["flows", "flows_hourly", "batches"])
async def test_an_insertion_that_fails_is_finished_before_the_next(
    store: FlowStore, table: str
) -> None:
    """The agents hear of a failure, and come again in other company."""
    (agent,) = pod_to_pod_same_node()
    first, second, third = (agent.report(name) for name in ("a", "b", "c"))
    async with refusing(store, table):
        with pytest.raises(UnfinishedError):
            await store.insert([first.key, second.key], *label([first, second], HISTORY))
    both = label([first, third], HISTORY)
    assert await store.insert([first.key, third.key], *both) == {first.key}
    await keep(store, third)
    assert await known(store) == {"a", "b", "c"}
    assert await packets(store) == (15, 15)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("empty", b""), ("zeros", bytes(4096)), ("cut", b"\xff\xff\xff\xff\x00\x10\x00\x00")],
)
async def test_a_damaged_file_keeps_nobody_waiting(
    store: FlowStore, capsys: pytest.CaptureFixture[str], name: str, damage: bytes
) -> None:
    """What a disk that fails makes of it. The rest of its insertion goes in, and that once."""
    (agent,) = pod_to_pod_same_node()
    agent.dropped(OUTSIDE, (FRONT, 8079))
    first, second = agent.report(name), agent.report("b")
    async with refusing(store, "flows"):
        with pytest.raises(UnfinishedError):
            await store.insert([first.key], *label([first], HISTORY))
    (entry,) = store._journal.unfinished()
    (drops,) = (file for table, file in entry.tables() if table == "drops")
    drops.write_bytes(damage)
    kept = store.aside()
    await keep(store, second)
    assert await store.insert([first.key], *label([first], HISTORY)) == {first.key}
    assert (await rows(store, "flows"), await rows(store, "drops")) == (4, 1)
    assert store.aside() == kept + 1
    assert "rows lost to a damaged file" in capsys.readouterr().out


async def test_a_start_does_not_wait_for_what_cannot_be_stored_yet(store: FlowStore) -> None:
    (agent,) = pod_to_pod_same_node()
    first, second = agent.report("a"), agent.report("b")
    async with refusing(store, "batches"):
        with pytest.raises(UnfinishedError):
            await store.insert([first.key], *label([first], HISTORY))
        await store.stop()
        await store.start()
        with pytest.raises(StoreError, match=r"all wait for .*flows-unfinished"):
            await keep(store, second)
    await keep(store, second)
    assert await packets(store) == (10, 10)
