"""What an agent says to the control plane and hears from it: state, directives, reports.

Nothing here blocks the rest of the agent. While the connection is broken the last directive stays
in force and reports gather in the spool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import grpc
import structlog

from ringfence.agent.spool import Spool
from ringfence.link.channel import Link, heed_cancellation
from ringfence.link.errors import LinkError
from ringfence.model.backoff import Backoff
from ringfence.wire.generated.agent_pb2 import (
    AgentState,
    DnsAnswer,
    DnsAnswers,
    Inspected,
    Inspection,
    SignedDirective,
)
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from ringfence.wire.limits import MOST_DNS_ANSWERS

_REPORT_TIMEOUT_SECONDS = 60.0
_ANSWERS_TIMEOUT_SECONDS = 10.0
_REFUSED = grpc.StatusCode.INVALID_ARGUMENT
"""The answer to a report that no second try will change."""

log = structlog.get_logger()


class Session:
    """The standing conversation: tells the agent's state, hears directives."""

    def __init__(
        self,
        link: Link,
        state: Callable[[], AgentState],
        hear: Callable[[SignedDirective], None],
        look: Callable[[Inspection], Awaitable[Inspected]],
    ) -> None:
        """`state` gives what to say now; `hear` takes a directive and must not block.

        `look` answers what the control plane asks of the kernel.
        """
        self._link, self._state, self._hear, self._look = link, state, hear, look
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Say the state again, as it is now."""
        self._changed.set()

    async def run(self) -> None:
        """Converse until cancelled, over one connection after another."""
        await self._link.converse(self._converse)

    async def _converse(self, stub: ControlPlaneStub) -> None:
        answering = asyncio.create_task(self._answer(stub))
        try:
            async for directive in stub.Session(self._say()):
                self._link.heard()
                self._hear(directive)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, stub: ControlPlaneStub) -> None:
        """Answer questions for as long as the conversation goes on."""
        backoff = Backoff()
        while True:
            answers = asyncio.Queue[Inspected]()
            try:
                async for question in stub.Inspect(_taken(answers)):
                    answers.put_nowait(await self._look(question))
            except grpc.aio.AioRpcError as error:
                heed_cancellation()
                log.info("cannot be asked", problem=error.details())
            await asyncio.sleep(backoff.delay())

    async def _say(self) -> AsyncIterator[AgentState]:
        while True:
            self._changed.clear()
            yield self._state()
            await self._changed.wait()


async def _taken(answers: asyncio.Queue[Inspected]) -> AsyncIterator[Inspected]:
    while True:
        yield await answers.get()


async def deliver(link: Link, spool: Spool) -> None:
    """Send the spool's batches in order until cancelled, each until the control plane has it."""
    backoff = Backoff()
    while True:
        place, batch = await spool.oldest()
        try:
            await link.stub.Report(batch, timeout=_REPORT_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is _REFUSED:
                log.warning("report refused and lost", id=batch.id, problem=error.details())
                spool.refused(place)
                continue
            log.warning("reports wait", waiting=len(spool), problem=str(link.explain(error)))
            await asyncio.sleep(backoff.delay())
        except LinkError as error:  # not enrolled yet
            log.info("reports wait", waiting=len(spool), problem=str(error))
            await asyncio.sleep(backoff.delay())
        else:
            link.heard()
            spool.done(place)
            backoff.reset()


async def tell_answers(
    link: Link, news: Callable[[], Awaitable[Iterable[DnsAnswer]]], seconds: float
) -> None:
    """Tell what DNS servers answered, each `seconds` what is new, until cancelled.

    What the control plane did not hear is told again, unless there are MOST_DNS_ANSWERS later ones.
    """
    backoff = Backoff()
    waiting: list[DnsAnswer] = []
    while True:
        waiting = [*waiting, *await news()][-MOST_DNS_ANSWERS:]
        pause = seconds
        try:
            if waiting:
                await link.stub.Resolve(
                    DnsAnswers(answers=waiting), timeout=_ANSWERS_TIMEOUT_SECONDS
                )
                waiting = []
                backoff.reset()
        except (grpc.aio.AioRpcError, LinkError) as error:
            log.info("DNS answers wait", waiting=len(waiting), problem=str(error))
            pause = backoff.delay()
        await asyncio.sleep(pause)
