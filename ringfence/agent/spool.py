"""Reports on their way to the control plane, kept on disk until it has them.

Every batch goes through here, whether or not the control plane answers, so that there is one path
only: it is written once, delivered in order, and taken away when the control plane has said so.
A batch that was delivered just before a crash is delivered again under the same id, which the
control plane knows. When there is no more room the oldest goes, and is counted.

A window may have several batches. They go out once the kernel has forgotten what is in them: until
then a successor may have to make them anew, and what it knows would cut the window elsewhere.
"""

import asyncio
import os
from collections import deque
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from ringfence.agent.errors import SpoolError
from ringfence.model.backoff import Backoff
from ringfence.model.flow import Loss
from ringfence.wire.generated.agent_pb2 import Batch
from ringfence.wire.limits import LARGEST_MESSAGE

_SUFFIX = ".batch"

log = structlog.get_logger()


class Spool:
    """A queue of batches in a directory, bounded in bytes. One process, one event loop."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._queue: deque[tuple[Path, int]] = deque()
        self._released = 0
        """How many of the queue may go out."""
        self._bytes = 0
        self._arrival = asyncio.Event()
        self._next = 0
        self.lost: dict[str, int] = dict.fromkeys(
            (
                Loss.SPOOL_FULL,
                Loss.REPORT_TOO_LARGE,
                Loss.REPORT_NOT_KEPT,
                Loss.REPORT_UNREADABLE,
                Loss.REPORT_REFUSED,
            ),
            0,
        )
        """Batches since the start, by cause."""

    def open(self) -> None:
        """Take up what an earlier run left; raises SpoolError.

        The last window in it may be one that has to be made anew: it waits for `release`.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._directory.glob("*.partial"):
                path.unlink()
            found = sorted(self._directory.glob(f"*{_SUFFIX}"))
            self._queue.extend((path, path.stat().st_size) for path in found)
        except OSError as error:
            raise SpoolError(f"cannot use the spool {self._directory}: {error}") from error
        self._bytes = sum(size for _, size in self._queue)
        if found:
            number, _, newest = found[-1].stem.partition("-")
            self._next = int(number) + 1
            self._released = sum(_window_of(path) != newest for path in found)

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._queue)

    def put(self, batch: Batch) -> None:
        """Add a batch at the end, to go out after `release`.

        Its id is WINDOW, or WINDOW-NUMBER after the first: that takes the place of what was put of
        its window and not released. Raises SpoolError, and counts it, when it cannot be kept.
        """
        window, number, _ = batch.id.partition("-")
        if not number:
            self._withdraw(window)
        data = batch.SerializeToString()
        largest = min(self._limit, LARGEST_MESSAGE)
        if len(data) > largest:
            self.lost[Loss.REPORT_TOO_LARGE] += 1
            raise SpoolError(f"a report of {len(data)} bytes is lost: {largest} is the most")
        while self._queue and self._bytes + len(data) > self._limit:
            self._lose(Loss.SPOOL_FULL)
        path = self._directory / f"{self._next:016d}-{window}{_SUFFIX}"
        try:
            write_atomically(path, data)
        except OSError as error:
            self.lost[Loss.REPORT_NOT_KEPT] += 1
            raise SpoolError(f"cannot keep a report in {self._directory}: {error}") from error
        self._next += 1
        self._queue.append((path, len(data)))
        self._bytes += len(data)

    def release(self) -> None:
        """What is in the spool will not be made anew, and may go out."""
        self._released = len(self._queue)
        self._arrival.set()

    def holds(self, window: str) -> bool:
        """Whether the window that was put last is this one, and all of it is there."""
        try:
            newest, _ = self._queue[-1]  # asked in another thread than the one that delivers
            return _window_of(newest) == window and not Batch.FromString(newest.read_bytes()).more
        except (IndexError, OSError, DecodeError):
            return False

    async def oldest(self) -> tuple[Path, Batch]:
        """The batch to deliver next and its place, waiting for one; it stays until `done`.

        One that is damaged or gone is lost; one that cannot be read now, as with too many open
        files, is tried again.
        """
        backoff = Backoff()
        while True:
            while not self._released:
                self._arrival.clear()
                await self._arrival.wait()
            place = self._queue[0][0]
            try:
                return place, Batch.FromString(place.read_bytes())
            except (FileNotFoundError, DecodeError):
                self._lose(Loss.REPORT_UNREADABLE)
            except OSError as error:
                log.warning("reports wait", waiting=len(self), problem=str(error))
                await asyncio.sleep(backoff.delay())

    def done(self, place: Path) -> None:
        """Take away a batch that the control plane has; harmless if it was dropped meanwhile."""
        if self._queue and self._queue[0][0] == place:
            self._remove()

    def refused(self, place: Path) -> None:
        """Take away a batch that the control plane will never accept."""
        if self._queue and self._queue[0][0] == place:
            self._lose(Loss.REPORT_REFUSED)

    def _withdraw(self, window: str) -> None:
        while len(self._queue) > self._released and _window_of(self._queue[-1][0]) == window:
            path, size = self._queue.pop()
            self._bytes -= size
            _take_away(path)

    def _lose(self, cause: Loss) -> None:
        self.lost[cause] += 1
        self._remove()

    def _remove(self) -> None:
        path, size = self._queue.popleft()
        self._released = max(self._released - 1, 0)
        self._bytes -= size
        _take_away(path)


def _take_away(path: Path) -> None:
    """Remove a file; one that stays, as on a read-only disk, is known when it comes again."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a report stays in the spool", file=str(path), problem=str(error))


def _window_of(path: Path) -> str:
    return path.stem.partition("-")[2]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads and that is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor has no path
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # the room that it takes is what others lack
        raise
