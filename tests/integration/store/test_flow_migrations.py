"""A flow store of an older release, of a newer one, and with other settings."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import clickhouse_connect
import pyarrow as pa
import pytest

from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.migrations import VERSION
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.flows.tables import Retention
from tests.integration.store.observed import (
    HISTORY,
    POD,
    WINDOW,
    command,
    cut_short,
    keep,
    known,
    packets,
    pod_to_pod_same_node,
    pod_to_service,
)
from tests.integration.world import CARTS, CARTS2, DB, FRONT, SECOND, Agent

DAY = 86_400 * SECOND
TABLES = ("flows", "drops", "batches", "flows_hourly", "drops_hourly")
VIEWS = ("flows_to_hourly", "drops_to_hourly")
SCHEMA_1 = (Path(__file__).parent / "schema_1.sql").read_text()


@asynccontextmanager
async def started(directory: Path, retention: Retention | None = None) -> AsyncIterator[FlowStore]:
    store = FlowStore(FlowStoreConfig(directory / "flows", retention or Retention()))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def count(store: FlowStore, table: str, where: str = "true") -> int:
    rows = await store.query(f"SELECT count() AS n FROM {table} WHERE {where}", {})
    return int(rows["n"][0].as_py())


def write_schema_1(directory: Path, *agents: Agent) -> None:
    """A store as the first release left it."""
    client = clickhouse_connect.get_client(dsn=f"chdb://{directory / 'flows'}")
    for statement in SCHEMA_1.split(";\n"):
        if statement.strip():
            client.command(statement)
    for agent in agents:
        flows, drops = agent.rows(HISTORY)
        for table, rows in (("flows", flows), ("drops", drops)):
            columns = client.query(f"SELECT * FROM {table} LIMIT 0").column_names
            client.insert_arrow(table, rows.select(list(columns)))
        key = agent.report(agent.node).key
        row = [key.tenant, key.kubernetes_cluster, key.node, key.id, key.start_ns, key.end_ns]
        client.insert("batches", [row])
    client.close()


async def write_schema_3(store: FlowStore) -> None:
    """Have an empty store be as that release made it."""
    made = []
    for name in (*TABLES, *VIEWS):
        (statement,) = (await store.query(f"SHOW CREATE {name}", {}))["statement"].to_pylist()
        third = statement.replace(", 'UTC'", "").replace("('UTC')", "")
        assert third != statement
        made.append(third.replace(f"schema {VERSION}", "schema 3"))
    await command(store, *(f"DROP TABLE {name}" for name in (*VIEWS, *TABLES)), *made)
    await command(store, "ALTER TABLE batches DROP COLUMN more")
    for name, statement in zip(VIEWS, made[len(TABLES) :], strict=True):
        select = statement.partition("\nAS ")[2]
        await command(store, f"ALTER TABLE {name} MODIFY QUERY {select}")


def told(hops: pa.Table) -> list[dict[str, object]]:
    rows = hops.sort_by([("connection", "ascending"), ("provider_port", "ascending")])
    return list(rows.to_pylist())


async def test_rows_of_the_first_schema_are_still_there(tmp_path: Path) -> None:
    agents = pod_to_service(CARTS2)
    agents[1].dropped(FRONT, (DB, 3306))
    async with started(tmp_path / "today") as store:
        await keep(store, *(agent.report(agent.node) for agent in agents))
        expected = told(await store.query(HOPS, WINDOW))
    assert len(expected) == 3
    write_schema_1(tmp_path / "old", *agents)
    for _ in range(2):
        async with started(tmp_path / "old") as store:
            assert told(await store.query(HOPS, WINDOW)) == expected
            assert told(await store.query(hourly(HOPS), WINDOW)) == expected
            assert await known(store) == {agent.node for agent in agents}
    async with started(tmp_path / "old") as store:
        await keep(store, pod_to_pod_same_node()[0].report("more"))
        assert len(await store.query(HOPS, WINDOW)) == 4
        assert len(await store.query(hourly(HOPS), WINDOW)) == 4


async def test_hours_and_days_of_the_third_schema_become_those_of_utc(tmp_path: Path) -> None:
    one, two = pod_to_service(CARTS2)
    two.dropped(FRONT, (DB, 3306))
    async with started(tmp_path) as store:
        await write_schema_3(store)
        await keep(store, one.report("one"), two.report("two"))
        expected = [told(await store.query(question, WINDOW)) for question in (HOPS, hourly(HOPS))]
    async with started(tmp_path) as store:
        await keep(store, pod_to_pod_same_node()[0].report("more"))
        for question, before in zip((HOPS, hourly(HOPS)), expected, strict=True):
            found = told(await store.query(question, WINDOW))
            assert len(found) == len(before) + 1
            assert all(hop in found for hop in before)
        made = f"name IN {TABLES} AND create_table_query LIKE '%''UTC''%'"
        assert await count(store, "system.tables", made) == len(TABLES)


async def test_an_insertion_that_an_older_release_began_is_finished_once(tmp_path: Path) -> None:
    report = pod_to_pod_same_node()[0].report("begun")
    async with started(tmp_path) as store:
        await write_schema_3(store)
        await cut_short(store, report)
        expected = await packets(store)
        assert await count(store, "batches") == 0
    async with started(tmp_path) as store:
        assert await known(store) == {report.key.id}
        assert await packets(store) == expected


async def test_a_migration_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    agents = pod_to_service(CARTS2)
    async with started(tmp_path / "today") as store:
        (made,) = (await store.query("SHOW CREATE TABLE flows", {}))["statement"].to_pylist()
    write_schema_1(tmp_path, *agents)
    client = clickhouse_connect.get_client(dsn=f"chdb://{tmp_path / 'flows'}")
    client.command(made.replace("CREATE TABLE default.flows", "CREATE TABLE flows_next"))
    client.command("INSERT INTO flows_next (tenant, node) SELECT tenant, node FROM flows LIMIT 1")
    client.close()
    async with started(tmp_path) as store:
        assert await count(store, "flows") == sum(len(agent.flows) for agent in agents)
        assert await count(store, "system.tables", "name LIKE '%next%'") == 0


async def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with started(tmp_path) as store:
        await cut_short(store, pod_to_pod_same_node()[0].report("begun"))
        for table, version in (("drops", VERSION + 1), ("flows", VERSION - 1)):
            await command(store, f"ALTER TABLE {table} MODIFY COMMENT 'schema {version}'")
    refusal = f"has schema {VERSION + 1}, this program knows {VERSION}"
    with pytest.raises(StoreError, match=refusal):
        async with started(tmp_path):
            pass
    client = clickhouse_connect.get_client(dsn=f"chdb://{tmp_path / 'flows'}")
    assert client.query("SELECT count() FROM flows").first_row == (2,)
    assert client.query("SELECT count() FROM batches").first_row == (0,), "nothing was written"
    client.close()


async def test_columns_that_a_release_adds_are_added(tmp_path: Path) -> None:
    async with started(tmp_path) as store:
        await keep(store, pod_to_pod_same_node()[0].report("before"))
        await command(
            store,
            "DROP VIEW flows_to_hourly",
            "ALTER TABLE flows DROP COLUMN refused",
            "ALTER TABLE flows_hourly DROP COLUMN refused",
        )
    async with started(tmp_path) as store:
        await keep(store, pod_to_pod_same_node()[0].report("after"))
        for question in (HOPS, hourly(HOPS)):
            (hop,) = (await store.query(question, WINDOW)).to_pylist()
            assert (hop["opened"], hop["refused"]) == (2, 0)


async def test_rows_go_at_their_age_and_a_new_one_counts_at_once(tmp_path: Path) -> None:
    reports = []
    for days in (1, 10):
        one, end = Agent("node1"), time.time_ns() - days * DAY
        for port in (0, 40000):
            at: dict[str, Any] = {"first_ns": end - SECOND, "last_ns": end - 1}
            one.saw(POD, 7, FRONT, (CARTS, 8080), consumer_port=port, **at)
        report = one.report(f"old{days}")
        key = replace(report.key, start_ns=end - SECOND, end_ns=end)
        reports.append(replace(report, key=key))

    async def left(store: FlowStore, expected: list[int]) -> None:
        """ClickHouse takes rows away in the background."""
        while True:
            found = [
                await count(store, "flows", "consumer_port != 0"),
                await count(store, "flows", "consumer_port = 0"),
                await count(store, "flows_hourly"),
            ]
            if found == expected:
                return
            await asyncio.sleep(0.1)

    async with started(tmp_path, Retention(detailed=30)) as store:
        await keep(store, *reports)
        await left(store, [2, 2, 2])
    async with started(tmp_path) as store:
        await left(store, [1, 2, 2])
    async with started(tmp_path, Retention(conversations=5, hourly=9)) as store:
        await left(store, [1, 1, 1])
    async with started(tmp_path, Retention(conversations=5, hourly=9)) as store:
        assert await count(store, "system.mutations", "NOT is_done") == 0
        changed = await count(store, "system.mutations")
    async with started(tmp_path, Retention(conversations=5, hourly=9)) as store:
        assert await count(store, "system.mutations") == changed, "nothing differs"


async def test_clickhouse_reads_the_statements_for_a_cluster(tmp_path: Path) -> None:
    """What only a cluster could run; the golden test holds it."""
    text = (Path(__file__).parents[2] / "golden/expected/flow-tables-cluster.sql").read_text()
    async with started(tmp_path) as store:
        for statement in text.rstrip().removesuffix(";").split(";\n\n"):
            read = "SELECT formatQuery({statement:String}) AS text"
            assert (await store.query(read, {"statement": statement}))["text"][0].as_py()
        with pytest.raises(StoreError, match="Syntax error"):
            await store.query(read, {"statement": "CREATE TABLE flows_local ON CLUSTER"})
