"""A ClickHouse cluster of two shards within one embedded engine, and what a flow store tells there.

The engine listens nowhere, and takes both shards of its configuration for itself. So a shard is
here its part of one table: a partition, so that each shard knows its piece of an insertion again,
and of the rows those that are the shard's, when they are read through the `Distributed` table.
Keeper, `Replicated` engines and `ON CLUSTER` are what this leaves out.

Run: python -m tests.integration.store.shards DIRECTORY; writes JSON.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import clickhouse_connect

from ringfence.control.labelling import label
from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.migrations import VERSION
from ringfence.store.flows.store import _SESSION, BatchKey
from ringfence.store.flows.tables import Retention
from tests.integration.store.observed import HISTORY, command, cut_short, keep, refusing, rows
from tests.integration.store.questions import aged_reports, answers, reports

CLUSTER = "two"
TABLES = ("flows", "drops", "batches", "flows_hourly", "drops_hourly")
_SHARD = "sipHash64(tenant, kubernetes_cluster, node) % 2"
_REPLICA = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
_CONFIG = f"""<clickhouse><tcp_port>9000</tcp_port><remote_servers>
<{CLUSTER}>{_REPLICA}{_REPLICA}</{CLUSTER}>
</remote_servers></clickhouse>"""


class TwoShards(FlowStore):
    """A flow store over that cluster."""

    def _connect(self) -> Any:
        directory = self._config.directory
        config = directory.with_suffix(".xml")
        config.write_text(_CONFIG)
        # Whoever reads a table itself reads both shards.
        visible = {f"default.{name}_local": f"shardNum() IN (0, {_SHARD} + 1)" for name in TABLES}
        # Each shard would copy what it finds in its own table, and here that is all rows.
        copied = {"parallel_distributed_insert_select": 0}
        client = clickhouse_connect.get_client(
            dsn=f"chdb://{directory}",
            settings=_SESSION | copied | {"additional_table_filters": str(visible)},
            chdb_options={"config-file": str(config)},
        )
        run = client.command
        client.command = lambda statement: run(self._written(statement))
        return client

    def _written(self, statement: str) -> str:
        return _on_one_server(statement)


class TwoShardsOfSchema3(TwoShards):
    """One that makes its tables as that release did."""

    def _written(self, statement: str) -> str:
        statement = statement.replace(", 'UTC'", "").replace("('UTC')", "")
        return super()._written(statement.replace(f"schema {VERSION}", "schema 3"))


def _on_one_server(statement: str) -> str:
    statement = statement.replace(f" ON CLUSTER '{CLUSTER}'", "")
    statement = re.sub(r"\bReplicated(\w*MergeTree)", r"\1", statement)
    statement = statement.replace(" replicated_dedup", " non_replicated_dedup")
    return re.sub(r"PARTITION BY (.*)", rf"PARTITION BY ({_SHARD}, \1)", statement)


@asynccontextmanager
async def _started(
    directory: Path, retention: Retention, release: type[TwoShards] = TwoShards
) -> AsyncIterator[FlowStore]:
    store = release(FlowStoreConfig(directory / "flows", retention, cluster=CLUSTER))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def _held(store: FlowStore) -> dict[str, int]:
    return {table: await rows(store, table) for table in TABLES}


async def _left(store: FlowStore, expected: dict[str, int]) -> None:
    """Wait until ClickHouse has taken rows away in the background."""
    while True:
        found = await _held(store)
        if all(found[table] <= expected[table] for table in TABLES):
            return
        await asyncio.sleep(0.1)


async def _column(store: FlowStore, told: str, source: str) -> list[Any]:
    found = await store.query(f"SELECT DISTINCT {told} AS one FROM {source}", {})
    return list(found["one"].to_pylist())


async def _insert_failing_on_the_way(store: FlowStore, keys: list[BatchKey]) -> None:
    """Twice a table takes nothing in, and its rows are the first that are not there."""
    rows_of = label(reports(), HISTORY)
    for table in ("flows_hourly_local", "batches_local"):
        async with refusing(store, table):
            with suppress(StoreError):
                await store.insert(keys, *rows_of)


async def _upgraded(directory: Path) -> dict[str, Any]:
    """What a store of the third release tells, where an insertion had been cut short."""
    first, *others = reports()
    async with _started(directory, Retention(), TwoShardsOfSchema3) as store:
        for table in ("batches_local", "batches"):
            await command(store, f"ALTER TABLE {table} DROP COLUMN more")
        await keep(store, first)
        await cut_short(store, *others)
    async with _started(directory, Retention()) as store:
        return {
            "answers": await answers(store),
            "hour": await _column(store, "toTypeName(hour)", "flows_hourly"),
            "beside": await rows(store, "system.tables WHERE name LIKE '%next%'"),
        }


async def _main(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    keys = [report.key for report in reports()]
    async with _started(directory, Retention()) as store:
        await _insert_failing_on_the_way(store, keys)
        told["known"] = len(await store.insert(keys, *label(reports(), HISTORY)))
        told["answers"] = await answers(store)
        held = await _held(store)
        await store.insert(keys, *label(reports(), HISTORY))
        told["sent again"] = await _held(store) == held
        told["shards"] = await rows(store, f"(SELECT DISTINCT {_SHARD} FROM flows)")
        told["hours"] = await _column(store, "toUnixTimestamp(hour) % 3600", "flows_hourly")
        parts = "system.parts WHERE active AND rows > 0 AND table = 'flows_local'"
        told["days"] = await _column(store, "extract(partition, '....-..-..')", parts)
        await keep(store, *aged_reports())
        told["with aged"] = await rows(store, "flows") - held["flows"]
    async with _started(directory, Retention(detailed=1, conversations=5, hourly=9)) as store:
        await _left(store, held)
        told["later"] = await _held(store) == held
    return told


if __name__ == "__main__":
    scratch = Path(sys.argv[1])
    today, third = scratch / "today", scratch / "third"
    for one in (today, third):
        one.mkdir()
    told = asyncio.run(_main(today)) | {"upgraded": asyncio.run(_upgraded(third))}
    print(json.dumps(told))
