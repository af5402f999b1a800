"""The door to the flow store: insertion exactly once, and queries, off the event loop.

The embedded engine allows one process per directory and one call at a time per client, so calls
run in threads with a client each: one that writes, and a few that read.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import pyarrow as pa
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from ringfence.store.errors import StoreError, UnfinishedError
from ringfence.store.flows import migrations, queries
from ringfence.store.flows.journal import Entry, Journal
from ringfence.store.flows.schema import BATCH_ROWS
from ringfence.store.flows.stream import Streams
from ringfence.store.flows.tables import Retention

_LOG = structlog.get_logger(__name__)

_T = TypeVar("_T")
_READERS = 2
"""More at once would need more memory, and end no sooner."""
_LONGEST_SECONDS = 50
"""How long one question may take: who asked may have gone, and others wait for the reader."""
_MIB = 1 << 20
_AT_REST = 320 * _MIB
"""What the embedded engine is larger by than it counts: its code, and what it has freed."""
_UNREADABLE = frozenset({33, 50, 117})
"""What ClickHouse says of damaged rows: CANNOT_READ_ALL_DATA, UNKNOWN_TYPE, INCORRECT_DATA."""
_SESSION = {
    "prefer_column_name_to_alias": 1,
    "max_threads": 2,
    # A block may hold the rows of many days: agents keep what they cannot deliver.
    "max_partitions_per_insert_block": 0,
    # What was inserted, but not rolled up any more, is rolled up when it is inserted again.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # The rows of a roll-up come grouped from their view: to merge them once more changes nothing.
    "optimize_on_insert": 0,
    # On a cluster an insertion is done when every shard has its piece.
    "distributed_foreground_insert": 1,
    # Of what a question asks within a question each shard needs the answers of all shards.
    "distributed_product_mode": "global",
}


@dataclass(frozen=True, slots=True)
class FlowStoreConfig:
    """Where observations are kept, and for how long."""

    directory: Path
    """Of the embedded store; insertions in progress are beside it."""
    retention: Retention = field(default_factory=Retention)
    memory_mib: int = 2048
    """What the embedded store may take; 1024 at least."""
    url: str | None = field(default=None, repr=False)
    """Of a ClickHouse server, `clickhouse://…`, to be used instead of the embedded store."""
    cluster: str = ""
    """The ClickHouse cluster to spread over, as that server names it."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Which batch: its id is unique within the tenant, and its window goes with it."""

    tenant: str
    kubernetes_cluster: str
    node: str
    id: str
    start_ns: int
    end_ns: int
    more: bool = False
    """Whether the window goes on in another batch."""


class FlowStore:
    """Observations in ClickHouse, or in the embedded chDB, whose directory this process owns."""

    def __init__(self, config: FlowStoreConfig) -> None:
        self._config = config
        directory = config.directory
        self._journal = Journal(directory.with_name(f"{directory.name}-unfinished"))
        self._readers: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._clients: list[Any] = []
        self.streams = Streams(self._connect)
        """For answers that are larger than memory."""

    @property
    def kept_days(self) -> int:
        """For how long observations are kept, the longest."""
        return self._config.retention.longest

    def aside(self) -> int:
        """How many files of rows that could not be read are kept beside the store."""
        return self._journal.aside()

    async def start(self) -> None:
        """Bring the schema up to date, and finish what was cut short; raises StoreError.

        What has to wait, as for room on the disk, is left to the insertions to come.
        """
        self._journal.open()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="flow-store-reader")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="flow-store-writer")
        try:
            await self._run(self._writer, self._prepare)
        except StoreError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let running calls end, and close every client."""
        await self.streams.stop()
        for pool in (self._readers, self._writer):
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
        self._readers = self._writer = None
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._local = threading.local()

    async def insert(
        self, batches: Sequence[BatchKey], flows: pa.Table, drops: pa.Table
    ) -> set[BatchKey]:
        """Store the rows of batches (FLOW_ROWS, DROP_ROWS), unless one is known: then none.

        Gives those that are known. Raises StoreError where nothing is stored, and UnfinishedError
        where all will be before anything else is.
        """
        # A batch is known once all its rows are in.
        tables = {"flows": flows, "drops": drops, "batches": _rows(batches)}
        held = {name: rows for name, rows in tables.items() if len(rows)}
        return await self._run(self._writer, lambda client: self._insert(client, batches, held))

    async def query(self, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
        """The rows of a query; raises StoreError, also where others keep the readers busy."""
        limit = {"max_execution_time": _LONGEST_SECONDS}
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                return await self._run(self._readers, partial(_query, sql, parameters, limit))
        except TimeoutError as error:
            raise StoreError(
                f"the flow store did not answer within {_LONGEST_SECONDS} s: ask for a shorter"
                " time, or again later, when it is less busy"
            ) from error

    async def _run(self, pool: ThreadPoolExecutor | None, call: Callable[[Any], _T]) -> _T:
        if pool is None:
            raise StoreError("the flow store is not started")
        return await asyncio.get_running_loop().run_in_executor(pool, self._call, call)

    def _call(self, call: Callable[[Any], _T]) -> _T:
        try:
            if not hasattr(self._local, "client"):
                self._local.client = self._connect()
                self._clients.append(self._local.client)
            return call(self._local.client)
        except (ClickHouseError, pa.ArrowException, OSError) as error:
            raise StoreError(f"the flow store failed: {error}") from error

    def _prepare(self, client: Any) -> None:
        pa.array([0])  # imports pandas, which takes a second: here no answer waits for it
        migrations.prepare(client, self._config.retention, self._config.cluster, self._finish)
        try:
            self._finish(client)
        except StoreError as error:  # as with a full disk, on which questions are answered
            _LOG.error("nothing is stored yet", reason=str(error))

    def _insert(
        self, client: Any, batches: Sequence[BatchKey], tables: Mapping[str, pa.Table]
    ) -> set[BatchKey]:
        self._finish(client)
        known = _known(client, batches)
        if known:
            return known
        named = " ".join(f"{batch.tenant} {batch.id}" for batch in batches)
        self._journal.add(blake2b(named.encode(), digest_size=16).hexdigest(), tables)
        try:
            self._finish(client)
        except StoreError as error:
            raise UnfinishedError(str(error)) from error
        return known

    def _finish(self, client: Any) -> None:
        """Insert all that is written down; raises StoreError where it has to wait."""
        for entry in self._journal.unfinished():
            try:
                for table, file in entry.tables():
                    _insert_file(client, entry, table, file)
                entry.finish()
            except (ClickHouseError, OSError) as error:
                raise StoreError(
                    f"the flow store failed, and all wait for {entry.path}: {error}"
                ) from error

    def _connect(self) -> Any:
        config = self._config
        if config.url is not None:
            return clickhouse_connect.get_client(dsn=config.url, settings=_SESSION)
        memory = config.memory_mib * _MIB - _AT_REST
        return clickhouse_connect.get_client(
            dsn=f"chdb://{config.directory.absolute()}",
            settings=_SESSION | _within(memory),
            chdb_options={"max_server_memory_usage": memory, "mark_cache_size": memory // 32},
        )


def _insert_file(client: Any, entry: Entry, table: str, file: Path) -> None:
    """Insert the rows of a table, or set them aside if they cannot be read.

    The rest of the entry goes in all the same: were its batches not known, what had gone in of it
    would go in again.
    """
    settings = {"insert_deduplication_token": entry.token}
    try:
        with file.open("rb") as rows:
            client.raw_insert(table, insert_block=rows, fmt="ArrowStream", settings=settings)
    except ClickHouseError as error:
        if getattr(error, "code", None) not in _UNREADABLE:
            raise
        kept = entry.set_aside(file)
        _LOG.error("rows lost to a damaged file", table=table, kept=str(kept), reason=str(error))


def _known(client: Any, batches: Sequence[BatchKey]) -> set[BatchKey]:
    """Those of the batches that are stored."""
    told = {
        "tenants": sorted({batch.tenant for batch in batches}),
        "nodes": sorted({batch.node for batch in batches}),
        "ends": sorted({batch.end_ns for batch in batches}),
        "ids": sorted({batch.id for batch in batches}),
    }
    found = _query(queries.KNOWN_BATCHES, told, {}, client)
    stored = {(row["tenant"], row["id"]) for row in found.to_pylist()}
    return {batch for batch in batches if (batch.tenant, batch.id) in stored}


def _query(
    sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any], client: Any
) -> pa.Table:
    return client.query_arrow(sql, parameters=dict(parameters), settings=dict(settings))


def _within(memory: int) -> dict[str, int]:
    """Settings for a query in an engine that has so much memory."""
    return {
        "max_memory_usage": memory * 3 // 4,
        # Beyond this a query goes to disk instead of failing.
        "max_bytes_before_external_group_by": memory // 8,
        "max_bytes_before_external_sort": memory // 8,
    }


def _rows(batches: Sequence[BatchKey]) -> pa.Table:
    """The batches as BATCH_ROWS."""
    return pa.Table.from_pylist(
        [
            {
                "tenant": batch.tenant,
                "kubernetes_cluster": batch.kubernetes_cluster,
                "node": batch.node,
                "id": batch.id,
                "window_start_ns": batch.start_ns,
                "window_end_ns": batch.end_ns,
                "more": batch.more,
            }
            for batch in batches
        ],
        schema=BATCH_ROWS,
    )
