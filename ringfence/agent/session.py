"""The agent's side of its conversation with the control plane: state out, directives in, reports.

Nothing here blocks the rest of the agent. A broken connection is taken up again with growing
pauses; meanwhile the last directive stays in force and reports gather in the spool.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from ringfence.agent.spool import Spool
from ringfence.wire.generated.agent_pb2 import AgentState, Directive
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub

_REPORT_TIMEOUT_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_REFUSALS = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED})
"""Answers to a report that trying again will not change."""

_log = structlog.get_logger()


class Backoff:
    """Pauses that double up to half a minute, each shortened at random to spread the agents."""

    def __init__(self) -> None:
        self._pause = _PAUSE_SECONDS

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._pause = _PAUSE_SECONDS

    async def wait(self) -> None:
        """Sleep one pause."""
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)


class Session:
    """Holds the standing conversation over one connection after another."""

    def __init__(
        self,
        stub: Callable[[], ControlPlaneStub],
        state: Callable[[], AgentState],
        hear: Callable[[Directive], None],
    ) -> None:
        """`stub` gives the current connection, `state` what to say; `hear` must not block."""
        self._stub = stub
        self._state = state
        self._hear = hear
        self._changed = asyncio.Event()
        self.connected = False

    def tell(self) -> None:
        """Send the state as it is now."""
        self._changed.set()

    async def run(self) -> None:
        """Converse until cancelled."""
        backoff = Backoff()
        while True:
            try:
                async for directive in self._stub().Session(self._say()):
                    if not self.connected:
                        self.connected = True
                        backoff.reset()
                        _log.info("connected to the control plane")
                    self._hear(directive)
                _log.info("the control plane ended the session")
            except grpc.aio.AioRpcError as error:
                _log.warning(
                    "no session with the control plane",
                    code=error.code().name,
                    detail=error.details(),
                    advice=_advice(error.code()),
                )
            self.connected = False
            await backoff.wait()

    async def _say(self) -> AsyncIterator[AgentState]:
        while True:
            self._changed.clear()
            yield self._state()
            await self._changed.wait()


async def deliver(stub: Callable[[], ControlPlaneStub], spool: Spool) -> None:
    """Send the spool's batches in order until cancelled, each until the control plane has it."""
    backoff = Backoff()
    while True:
        place, batch = await spool.oldest()
        try:
            await stub().Report(batch, timeout=_REPORT_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                _log.error("a report was refused and is lost", id=batch.id, detail=error.details())
                spool.refused(place)
                continue
            _log.warning(
                "reports wait", waiting=len(spool), code=error.code().name, detail=error.details()
            )
            await backoff.wait()
        else:
            spool.done(place)
            backoff.reset()


def _advice(code: grpc.StatusCode) -> str:
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return "check that the control plane runs and that its gRPC port can be reached"
        case grpc.StatusCode.FAILED_PRECONDITION:
            return "agent and control plane speak different protocols: run the same release"
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return "the certificate was revoked: remove the state directory and enrol again"
        case _:
            return "see the control plane's log"
