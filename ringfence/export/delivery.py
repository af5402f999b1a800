"""Stands between those who take conversations in and a receiver that may be slow or away."""

import asyncio
import contextlib
from collections import Counter, deque

import pyarrow as pa
import structlog

from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.interface import Exporter
from ringfence.model.backoff import Backoff

_LOG = structlog.get_logger(__name__)

QUEUE_BYTES = 64 << 20
"""What may wait for one receiver; beyond it the oldest is dropped."""

_EMPTY_BYTES = 32 << 10
"""What Arrow takes for a batch of no rows, measured: it keeps several objects a column."""

CAUSES = ("queue full", "refused", "failed", "stopped")
"""Why conversations are dropped: no room; the receiver's no; a bug of ours; the server's end."""

STEP = 2_000
"""Conversations that are handed over at once, and again where that fails."""

LONGEST_SECONDS = 300.0
"""How long a receiver may ask to be left alone."""

FLUSH_SECONDS = 3.0
"""How long a stop waits for what is queued."""


def cost(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes, bytes."""
    return int(batch.nbytes) + _EMPTY_BYTES


class Delivery:
    """One exporter's queue and the task that empties it. `offer` never waits and never fails."""

    def __init__(
        self, name: str, exporter: Exporter, backoff: Backoff, room: int = QUEUE_BYTES
    ) -> None:
        """`name` stands in logs and metrics; `room` in bytes."""
        self.name, self._exporter, self._backoff, self._room = name, exporter, backoff, room
        self._queue: deque[pa.RecordBatch] = deque()
        self._held: pa.RecordBatch | None = None
        self._offered, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._lost_to = ""
        self.queued_bytes = 0
        self.sent = 0
        """Conversations that the receiver took; with UDP, that were sent to it."""
        self.dropped = Counter(dict.fromkeys(CAUSES, 0))
        """Conversations that went nowhere, by cause."""
        self.up = True
        """Whether the last attempt went well."""

    async def start(self) -> None:
        """Begin to deliver; the receiver is dialled when there is something for it."""
        self._task = asyncio.create_task(self._run())
        _LOG.info("export begins", exporter=self.name)

    async def stop(self) -> None:
        """Deliver what is queued, for a moment; the rest is dropped."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            # Python 3.11's wait_for may lose a cancellation that comes just then.
            async with asyncio.timeout(FLUSH_SECONDS if self.up else 0):
                await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        left = [*self._queue, *([] if self._held is None else [self._held])]
        if left:
            self.dropped["stopped"] += sum(map(len, left))
            _LOG.warning("export cut short", exporter=self.name, lost=self.dropped["stopped"])
        await self._close()

    def offer(self, batch: pa.RecordBatch) -> None:
        """Queue CONVERSATIONS; what has waited longest makes room for them."""
        if not len(batch):
            return
        for start in range(0, len(batch), STEP):
            part = batch.slice(start, STEP)
            self._queue.append(part)
            self.queued_bytes += cost(part)
        self._idle.clear()
        self._offered.set()
        while self.queued_bytes > self._room:
            self.dropped["queue full"] += len(self._next())

    def _next(self) -> pa.RecordBatch:
        batch = self._queue.popleft()
        self.queued_bytes -= cost(batch)
        return batch

    async def _run(self) -> None:
        while True:
            while self._held is None and not self._queue:
                self._idle.set()
                self._offered.clear()
                await self._offered.wait()
            if self._held is None:
                self._held = self._next()
            again = await self._attempt(self._held)
            if again is None:
                self._held = None
                self._backoff.reset()
            else:
                await asyncio.sleep(max(self._backoff.delay(), min(again, LONGEST_SECONDS)))

    async def _attempt(self, batch: pa.RecordBatch) -> float | None:
        """Try to hand a batch over; if it has to be tried again, after how many seconds."""
        try:
            await self._exporter.send(batch)
        except RefusedError as error:
            self._lose(batch, error.records, "refused", error)
        except ExportError as error:
            if self.up:
                _LOG.warning("export waits", exporter=self.name, problem=str(error))
            self.up = False
            await self._close()
            return error.after
        except Exception as error:  # noqa: BLE001 - exporting must outlive a bug
            self._lose(batch, len(batch), "failed", error)
        else:
            self.sent += len(batch)
            self._lost_to = ""
        if not self.up:
            _LOG.info("export goes on", exporter=self.name)
        self.up = True
        return None

    async def _close(self) -> None:
        try:
            await self._exporter.close()
        except Exception as error:  # noqa: BLE001 - exporting must outlive a bug
            _LOG.warning("export not closed", exporter=self.name, exc_info=error)

    def _lose(self, batch: pa.RecordBatch, records: int, cause: str, error: Exception) -> None:
        """Count what is lost, and tell of a problem once while it lasts."""
        self.dropped[cause] += records
        self.sent += len(batch) - records
        if str(error) != self._lost_to:
            self._lost_to = str(error)
            bug = error if cause == "failed" else None
            _LOG.warning(f"export {cause}", exporter=self.name, problem=self._lost_to, exc_info=bug)
