"""The door to the flow store: insertion exactly once, and queries, off the event loop.

The embedded engine allows one process per directory and one call at a time per client, so calls
run in a bounded pool of threads with a client each.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from ringfence.store.errors import StoreError
from ringfence.store.flows import queries
from ringfence.store.flows.schema import BATCH_ROWS, TABLES
from ringfence.store.flows.stream import Streams

_T = TypeVar("_T")
_THREADS = 6
_ENGINE = {"max_server_memory_usage": 2 << 30, "mark_cache_size": 64 << 20}
_SESSION = {
    "prefer_column_name_to_alias": 1,
    "max_threads": 2,
    "max_memory_usage": 1 << 30,
    # Beyond this a query goes to disk instead of failing.
    "max_bytes_before_external_group_by": 256 << 20,
    "max_bytes_before_external_sort": 256 << 20,
}


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Which batch: its id is unique within the tenant."""

    tenant: str
    kubernetes_cluster: str
    node: str
    id: str
    start_ns: int
    end_ns: int


class FlowStore:
    """Observations in ClickHouse; `dsn` is `clickhouse://…`, or `embedded(directory)`."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._clients: list[Any] = []
        self.streams = Streams(self._connect)
        """For answers that are larger than memory."""

    async def start(self) -> None:
        """Open the database and create what tables are missing; raises StoreError."""
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="flow-store")
        try:
            for table in TABLES:
                await self._run(methodcaller("command", table))
        except StoreError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let running calls end, and close every client."""
        await self.streams.stop()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)
            self._pool = None
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._local = threading.local()

    async def insert(self, batch: BatchKey, flows: pa.Table, drops: pa.Table) -> bool:
        """Store a batch (FLOW_ROWS, DROP_ROWS) once; True if it was there already.

        After a failure the same call may be made again: what is in already stays single.
        """
        same = {"tenant": batch.tenant, "id": batch.id}
        if (await self.query(queries.KNOWN_BATCH, same))["known"][0].as_py():
            return True
        window = pa.Table.from_pylist(
            [
                {
                    "tenant": batch.tenant,
                    "kubernetes_cluster": batch.kubernetes_cluster,
                    "node": batch.node,
                    "id": batch.id,
                    "window_start_ns": batch.start_ns,
                    "window_end_ns": batch.end_ns,
                }
            ],
            schema=BATCH_ROWS,
        )
        settings = {"insert_deduplication_token": f"{batch.tenant} {batch.id}"}
        # The batch is known only once all its rows are in.
        for table, rows in (("flows", flows), ("drops", drops), ("batches", window)):
            if len(rows):
                await self._run(methodcaller("insert_arrow", table, rows, settings=settings))
        return False

    async def query(self, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
        """The rows of a query; raises StoreError."""
        table: pa.Table = await self._run(
            lambda client: client.query_arrow(sql, parameters=dict(parameters))
        )
        return table

    async def _run(self, call: Callable[[Any], _T]) -> _T:
        if self._pool is None:
            raise StoreError("the flow store is not started")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, call)

    def _call(self, call: Callable[[Any], _T]) -> _T:
        try:
            if not hasattr(self._local, "client"):
                self._local.client = self._connect()
                self._clients.append(self._local.client)
            return call(self._local.client)
        except ClickHouseError as error:
            raise StoreError(f"the flow store failed: {error}") from error

    def _connect(self) -> Any:
        options = {"chdb_options": _ENGINE} if self._dsn.startswith("chdb:") else {}
        return clickhouse_connect.get_client(dsn=self._dsn, settings=_SESSION, **options)


def embedded(directory: Path) -> str:
    """The `dsn` of an embedded store in a directory, which this process then owns alone."""
    return f"chdb://{directory.absolute()}"
