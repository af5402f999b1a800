"""The conversation with the control plane ends whole, so that another can begin."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest

from ringfence.agent.session import Session
from ringfence.link.channel import Link
from ringfence.wire.generated.agent_pb2 import AgentState, Inspected, Inspection, SignedDirective


def lost() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "socket closed")


class Breaking:
    """Both streams break at once: the second as gRPC has it, its failure instead of the end."""

    async def Session(self, said: AsyncIterator[AgentState]) -> AsyncIterator[SignedDirective]:  # noqa: N802
        await anext(said)
        yield SignedDirective()
        await asyncio.sleep(0)
        raise lost()

    async def Inspect(self, answers: AsyncIterator[Inspected]) -> AsyncIterator[Inspection]:  # noqa: N802
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise lost() from None
        yield Inspection()


class Once:
    """A link that holds one conversation."""

    def heard(self) -> None:
        pass

    async def converse(self, conversation: Any) -> None:
        await conversation(Breaking())


async def test_a_broken_conversation_ends_though_grpc_hides_the_cancellation() -> None:
    async def look(question: Inspection) -> Inspected:
        return Inspected(id=question.id)

    session = Session(cast("Link", Once()), AgentState, lambda _: None, look)
    with pytest.raises(grpc.aio.AioRpcError):
        async with asyncio.timeout(5):
            await session.run()
