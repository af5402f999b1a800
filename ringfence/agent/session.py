"""What an agent says to the control plane and hears from it: state, directives, reports.

Nothing here blocks the rest of the agent. While the connection is broken the last directive stays
in force and reports gather in the spool.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from ringfence.agent.spool import Spool
from ringfence.link.channel import Link
from ringfence.link.errors import LinkError
from ringfence.model.backoff import Backoff
from ringfence.wire.generated.agent_pb2 import AgentState, Directive
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub

_REPORT_TIMEOUT_SECONDS = 60.0
_REFUSED = grpc.StatusCode.INVALID_ARGUMENT
"""The answer to a report that no second try will change."""

log = structlog.get_logger()


class Session:
    """The standing conversation: tells the agent's state, hears directives."""

    def __init__(
        self, link: Link, state: Callable[[], AgentState], hear: Callable[[Directive], None]
    ) -> None:
        """`state` gives what to say now; `hear` takes a directive and must not block."""
        self._link, self._state, self._hear = link, state, hear
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Say the state again, as it is now."""
        self._changed.set()

    async def run(self) -> None:
        """Converse until cancelled, over one connection after another."""
        await self._link.converse(self._converse)

    async def _converse(self, stub: ControlPlaneStub) -> None:
        async for directive in stub.Session(self._say()):
            self._link.heard()
            self._hear(directive)

    async def _say(self) -> AsyncIterator[AgentState]:
        while True:
            self._changed.clear()
            yield self._state()
            await self._changed.wait()


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
