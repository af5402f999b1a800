"""Hands notices of alerts to their sinks: each at its own pace, in order, until it has them.

A sink gets so many messages a minute and no more, lest a flood of alerts drowns those who read
them: the last message has all in it that waits by then.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import structlog

from ringfence.control.alerts import Alerts
from ringfence.control.background import Background
from ringfence.control.metrics import Metrics
from ringfence.control.secrets import Secrets
from ringfence.export.alerts.interface import AlertSink, Message, read_message
from ringfence.export.alerts.kinds import make_sink
from ringfence.export.delivery import LONGEST_SECONDS
from ringfence.export.errors import ExportError, RefusedError
from ringfence.model.backoff import Backoff
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId
from ringfence.store.relational.alerts import (
    HeldSink,
    all_sinks,
    drop_notices,
    next_notices,
    note_attempt,
)
from ringfence.store.relational.database import Database

_LOG = structlog.get_logger(__name__)
_LOOK_SECONDS = 10.0
MOST_MESSAGES, WINDOW_SECONDS = 20, 60.0
"""A sink gets at most so many in so long."""
MOST_TOGETHER = 500
"""So many notices one message has at most."""


class AlertDelivery:
    """A task for each sink. A notice leaves the database once its sink has it, or refuses it."""

    def __init__(
        self,
        database: Database,
        tenant: TenantId,
        alerts: Alerts,
        secrets: Secrets,
        metrics: Metrics,
    ) -> None:
        self.secrets = secrets
        """Seals those of sinks."""
        self._database, self._tenant, self._alerts = database, tenant, alerts
        self._tasks: dict[HeldSink, asyncio.Task[None]] = {}
        self._sent: dict[str, deque[float]] = {}
        """When each sink got its latest messages, by the event loop's clock."""
        self._following = Background("alert-sinks", self._pause, self._look, metrics)

    async def start(self) -> None:
        """Deliver what is left from before, and what comes."""
        self._alerts.queued.set()
        self._following.start()

    async def stop(self) -> None:
        """Deliver no more; what is left stays for the next start."""
        await self._following.stop()
        for sink in [*self._tasks]:
            await self._end(sink)

    def renew(self) -> None:
        """Sinks have changed."""
        self._alerts.queued.set()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._alerts.queued.wait()
        self._alerts.queued.clear()

    async def _look(self) -> None:
        """See to it that a task runs for each sink that has something to get."""
        async with self._database.read() as connection:
            held = [
                HeldSink(one.name, one.url, one.secret, one.actor, one.changed_ns)
                for one in await all_sinks(connection, self._tenant)
            ]
        for sink in self._tasks.keys() - set(held):
            await self._end(sink)
        for sink in held:
            task = self._tasks.get(sink)
            if task is None or task.done():
                if task is not None and (problem := task.exception()):
                    # Its text may have the secret.
                    kind = type(problem).__name__
                    _LOG.error("alert sink failed", sink=sink.name, problem=kind)
                self._tasks[sink] = asyncio.create_task(self._deliver(sink))

    async def _end(self, sink: HeldSink) -> None:
        task = self._tasks.pop(sink)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _deliver(self, held: HeldSink) -> None:
        """Hand over all that waits for a sink."""
        backoff = Backoff()
        try:
            sink = make_sink(held.url, self.secrets.open(held.secret, held.place))
        except Exception as error:  # noqa: BLE001 - the others get theirs
            # It was made once, so its files have changed since.
            await self._wait(held.name, _told(error), backoff)
            return
        try:
            while True:
                limit = 1 if await self._room(held.name) > 1 else MOST_TOGETHER
                async with self._database.read() as connection:
                    found = await next_notices(connection, self._tenant, held.name, limit)
                if not found:
                    return
                notices = [read_message(words) for _, words in found]
                try:
                    refused, problem = await attempt(sink, notices)
                except Exception as error:  # noqa: BLE001 - no notice is lost
                    after = error.after if isinstance(error, ExportError) else 0.0
                    await self._wait(held.name, _told(error), backoff, after)
                    continue
                backoff.reset()
                self._sent[held.name].append(asyncio.get_running_loop().time())
                async with self._database.write() as connection:
                    await drop_notices(connection, (number for number, _ in found))
                await self._note(held.name, refused, problem)
        finally:
            await sink.close()

    async def _room(self, name: str) -> int:
        """How many messages a sink may get by now; waits until it is one at least."""
        sent = self._sent.setdefault(name, deque(maxlen=MOST_MESSAGES))
        clock = asyncio.get_running_loop().time
        if len(sent) == MOST_MESSAGES:
            await asyncio.sleep(sent[0] + WINDOW_SECONDS - clock())
        now = clock()
        return MOST_MESSAGES - sum(now - one < WINDOW_SECONDS for one in sent)

    async def _wait(self, name: str, problem: str, backoff: Backoff, after: float = 0.0) -> None:
        """Tell why a sink does not get its notices, and leave it alone for a while."""
        _LOG.warning("alert waits", sink=name, problem=problem)
        await self._note(name, 0, problem)
        await asyncio.sleep(max(backoff.delay(), min(after, LONGEST_SECONDS)))

    async def _note(self, name: str, refused: int, problem: str) -> None:
        async with self._database.write() as connection:
            await note_attempt(connection, self._tenant, name, refused, problem)


def _told(error: Exception) -> str:
    """What may be told of an error: of one that is not ours its text may have the secret."""
    return str(error) if isinstance(error, ExportError | InputError) else type(error).__name__


async def attempt(sink: AlertSink, notices: Sequence[Message]) -> tuple[int, str]:
    """Hand notices over; how many were refused, and why. Raises ExportError to be tried again."""
    try:
        await sink.send(notices)
    except RefusedError as error:
        _LOG.error("alert refused", problem=str(error), alerts=[one.id for one in notices])
        return len(notices), str(error)
    return 0, ""


async def try_sink(held: HeldSink, secrets: Secrets, one: Message) -> str:
    """Why a sink does not take a notice, empty if it does."""
    try:
        sink = make_sink(held.url, secrets.open(held.secret, held.place))
        try:
            return (await attempt(sink, [one]))[1]
        finally:
            await sink.close()
    except (ExportError, InputError) as error:
        return str(error)
