"""Queries whose answers are larger than memory: read part by part, each in a thread of its own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from clickhouse_connect.driver.exceptions import ClickHouseError
from numpy.typing import NDArray

from ringfence.store.errors import StoreError

_AT_ONCE = 2
_PATIENCE_SECONDS = 60
"""How long a stream that nobody reads on may keep others out."""
_PART_ROWS = 32_768


class Streams:
    """Runs at most two streams at once; `connect` makes a client."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._threads: set[ThreadPoolExecutor] = set()

    async def rows(
        self, sql: str, parameters: Mapping[str, Any], row: np.dtype[Any]
    ) -> AsyncGenerator[NDArray[Any], None]:
        """The rows of a query whose columns have the fixed widths of `row`, part by part.

        The engine waits while nobody asks for more, but not long if others wait. Raises StoreError.
        """
        await self._turn()
        with ExitStack() as held:
            held.callback(self._free.release)
            # A stream belongs to the thread that opened it.
            thread = ThreadPoolExecutor(1, thread_name_prefix="flow-stream")
            self._threads.add(thread)
            reader = _Reader(self._connect, sql, dict(parameters), row)
            held.callback(self._close, thread, reader)
            loop = asyncio.get_running_loop()
            while len(rows := await loop.run_in_executor(thread, reader.read)):
                given_up = asyncio.create_task(self._make_way(held))
                try:
                    yield rows
                finally:
                    given_up.cancel()
                if given_up.done():
                    raise StoreError(
                        f"nobody read on for {_PATIENCE_SECONDS} s, and others wait: ask again"
                    )

    async def _turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        self._waiting += 1
        self._wanted.set()
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
            if self._waiting:
                self._wanted.set()
            else:
                self._wanted.clear()

    async def _make_way(self, held: ExitStack) -> None:
        """Close a stream that nobody reads on, once another waits for its place."""
        await asyncio.sleep(_PATIENCE_SECONDS)
        while not self._wanted.is_set():
            await self._wanted.wait()
        self._wanted.clear()  # one makes way for one
        held.close()

    def _close(self, thread: ThreadPoolExecutor, reader: "_Reader") -> None:
        # Nothing is awaited here, for this may be a cancellation.
        thread.submit(reader.close).add_done_callback(lambda _: self._threads.discard(thread))
        thread.shutdown(wait=False)

    async def stop(self) -> None:
        """Let those that were left end."""
        for thread in list(self._threads):
            await asyncio.to_thread(thread.shutdown)


class _Reader:
    """Reads one stream, all in one thread."""

    def __init__(
        self,
        connect: Callable[[], Any],
        sql: str,
        parameters: dict[str, Any],
        row: np.dtype[Any],
    ) -> None:
        self._connect, self._sql, self._parameters, self._row = connect, sql, parameters, row
        self._client: Any = None
        self._source: Any = None

    def read(self) -> NDArray[Any]:
        """The next rows, none at the end; raises StoreError."""
        size = _PART_ROWS * self._row.itemsize
        data = bytearray()
        try:
            if self._source is None:
                self._client = self._connect()
                self._source = self._client.raw_stream(
                    self._sql, parameters=self._parameters, fmt="RowBinary"
                )
            while len(data) < size and (more := self._source.read(size - len(data))):
                data += more
        except ClickHouseError as error:
            raise StoreError(f"the flow store failed: {error}") from error
        return np.frombuffer(data, dtype=self._row)

    def close(self) -> None:
        """Have the engine stop, however far it came."""
        if self._source is not None:
            self._source.close()
        if self._client is not None:
            self._client.close()
