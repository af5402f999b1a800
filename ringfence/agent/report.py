"""An agent's reports: what passed in each window of time, from the kernel into the spool.

Nothing is told twice or left out when an agent ends in between: the kernel keeps what was taken
for a report until the spool has it, and a successor repeats an interrupted one under its name.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.agent import host
from ringfence.agent.capture import Capture
from ringfence.agent.config import AgentConfig
from ringfence.agent.drops import DropLedger
from ringfence.agent.enforce import Enforcer
from ringfence.agent.errors import SpoolError
from ringfence.agent.pods import Here, Pod, places
from ringfence.agent.spool import Spool, write_atomically
from ringfence.agent.worker import KernelThread
from ringfence.kernel.errors import KernelError
from ringfence.model.errors import RingfenceError
from ringfence.model.flow import Mode
from ringfence.wire.generated.agent_pb2 import Audit, Batch

log = structlog.get_logger()


class Reporter:
    """Reports until ended, at a pace that may change meanwhile; calls `told` after each window."""

    def __init__(
        self,
        config: AgentConfig,
        here: Here,
        capture: Capture,
        enforcer: Enforcer,
        spool: Spool,
        kernel: KernelThread,
        told: Callable[[], None],
    ) -> None:
        self._config, self._here = config, here
        self._capture, self._enforcer, self._spool = capture, enforcer, spool
        self._kernel, self._told = kernel, told
        self._interval = config.interval_seconds
        self._cut_short = asyncio.Event()
        self._ending = False
        self.mode = Mode.CONVERSATION
        self.declared_ports: frozenset[tuple[int, int]] = frozenset()
        self.audit = Audit()

    def pace(self, mode: Mode, interval_seconds: int) -> None:
        """Report so from now on, at the pace of before for 0.

        Where that changes, the window under way ends here.
        """
        interval = interval_seconds or self._interval
        if (mode, interval) != (self.mode, self._interval):
            self.mode, self._interval = mode, interval
            self.cut_short()

    def cut_short(self) -> None:
        """End the window under way."""
        self._cut_short.set()

    def end(self) -> None:
        """Make the window under way the last."""
        self._ending = True
        self.cut_short()

    async def run(self) -> None:
        """Put a batch into the spool for each window; they end at multiples of the interval.

        A new pace, a flow map that fills up, or the end cuts the window under way short.
        """
        start, last = time.time_ns(), False
        while not last:
            width, now = self._interval * 10**9, time.time_ns()
            if start > now + width:  # the clock was set back
                start = now
            end = (max(start, now) // width + 1) * width
            with suppress(TimeoutError):
                async with asyncio.timeout((end - now) / 10**9):
                    await self._cut_short.wait()
                self._cut_short.clear()
                end = max(start, time.time_ns())
            last = self._ending
            try:
                await self.keep(self._rescue(start, end))
                await self.keep(self.gather(start, end, last))
            except RingfenceError as error:
                log.warning("no report for this interval", problem=str(error))
            start = end
            self._told()

    async def keep(self, batches: Iterator[Batch]) -> None:
        """Put batches into the spool one by one; they go out when the kernel forgot their part."""
        while batch := await self._kernel.run(partial(next, batches, None)):
            try:
                self._spool.put(batch)
            except SpoolError as error:
                log.warning("no report for this interval", problem=str(error))
        await self._kernel.run(self._capture.done)
        self._spool.release()
        host.give_back_memory()

    def _rescue(self, start: int, end: int) -> Iterator[Batch]:
        """What was taken for a report that was cut short, here or by an agent that was killed."""
        records = self._capture.left()
        if not len(records):
            return
        try:
            known, *window = self._config.window_file.read_text().split()
            start, end = map(int, window)
        except (OSError, ValueError) as error:
            log.warning("an interrupted report may come twice", problem=str(error))
            known = uuid.uuid4().hex
        if not self._spool.holds(known):  # Drops of now come with the next.
            yield from self._batches(known, start, end, records, self._here.pods, DropLedger())

    def gather(self, start: int, end: int, last: bool) -> Iterator[Batch]:
        """A window's batches, as far as the kernel tells; raises KernelError."""
        pods = self._here.pods
        addresses = dict(places(pods, self._here.addresses))
        try:
            self._enforcer.read_drops(self._capture.drops(), addresses)
        except KernelError as error:
            log.warning("drops not reported", problem=str(error))
        if last:
            self._capture.retire()
        self.audit = self._capture.audit()
        self.audit.losses.update(self._spool.lost)
        fresh = uuid.uuid4().hex
        try:
            write_atomically(self._config.window_file, f"{fresh} {start} {end}".encode())
        except OSError as error:
            with suppress(OSError):  # as on a disk that is read-only now
                self._config.window_file.unlink()  # it names the window before
            log.warning("a report cut short now may be lost or come twice", problem=str(error))
        # Taken last: what fails before costs no flows.
        records = self._capture.take()
        yield from self._batches(fresh, start, end, records, pods, self._enforcer.ledger)

    def _batches(
        self,
        window_id: str,
        start: int,
        end: int,
        records: NDArray[np.void],
        pods: Collection[Pod],
        ledger: DropLedger,
    ) -> Iterator[Batch]:
        """A window's batches, most often one."""
        of_node = self._here.addresses
        slices = self._capture.flows(records, pods, of_node, self.declared_ports, self.mode)
        for number, (flows, drops, more) in enumerate(ledger.beside(slices)):
            yield Batch(
                id=f"{window_id}-{number}" if number else window_id,
                window_start_ns=start,
                window_end_ns=end,
                flows=flows,
                drops=drops,
                more=more,
            )
