"""What components do in the background, at its own pace, for as long as the control plane runs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock
from ringfence.model.errors import RingfenceError

_LOG = structlog.get_logger(__name__)
_LOOK_SECONDS = 1.0


class Background:
    """Does a piece of work again and again, each time after `pause`, which must wait.

    No error ends it, not even a bug of ours: it is logged and counted, and what failed is tried
    again until it succeeds, without a pause before it but `retry_seconds`.
    """

    def __init__(
        self,
        name: str,
        pause: Callable[[], Awaitable[None]],
        work: Callable[[], Awaitable[None]],
        metrics: Metrics,
        retry_seconds: float = 2.0,
    ) -> None:
        self._retry_seconds = retry_seconds
        self._name, self._pause, self._work, self._metrics = name, pause, work, metrics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a pause."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop where it is; does nothing if it was not started."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self) -> None:
        while True:
            await self._until_done(self._pause)
            await self._until_done(self._work)

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await step()
            except Exception as error:  # noqa: BLE001 - following must outlive a bug
                problem = str(error) if isinstance(error, RingfenceError) else repr(error)
                self._metrics.background_failures.labels(self._name).inc()
                _LOG.error("failed in the background", work=self._name, problem=problem)
                await asyncio.sleep(self._retry_seconds)


async def attempt(work: Callable[[], Awaitable[object]], otherwise: Callable[[], None]) -> str:
    """Do what follows from a change that is written down; why it failed, empty if it did not.

    The change stays, so nothing may make it look undone: `otherwise` sees to it that the work is
    done later.
    """
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - a bug may not make it look undone either
        problem = str(error) if isinstance(error, RingfenceError) else repr(error)
        _LOG.exception("left for later", problem=problem)
        otherwise()
        return problem
    return ""


class Alarm:
    """Calls back at the next of some instants, for time alone changes something then.

    The clock may be set, and the machine may sleep: it is looked at again and again.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._timer: asyncio.Handle | None = None

    def set(self, instants: Iterable[int], now_ns: int) -> None:
        """Wait for these instants, epoch ns, in place of those before."""
        self.cancel()
        next_ns = min((one for one in instants if one > now_ns), default=None)
        if next_ns is not None:
            self._look(next_ns)

    def _look(self, next_ns: int) -> None:
        left = (next_ns - self._clock()) / 10**9
        loop = asyncio.get_running_loop()
        if left > 0:
            self._timer = loop.call_later(min(left, _LOOK_SECONDS), self._look, next_ns)
        else:
            self._timer = loop.call_soon(self._ring)

    def cancel(self) -> None:
        """Wait for nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
