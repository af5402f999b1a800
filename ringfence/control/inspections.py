"""Questions to agents about what is in their kernels now, and the answers, in bounded time."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import count

from ringfence.control.agents import NodeKey
from ringfence.model.ids import NodeName
from ringfence.wire.generated.agent_pb2 import Inspected, Inspection, Probe
from ringfence.wire.limits import LONGEST_RULE, MOST_RULES

ANSWER_SECONDS = 2.0
_TOO_LONG = "the agent's answer is too long"


class Inspections:
    """The agents that can be asked."""

    def __init__(self) -> None:
        self._lines: dict[NodeKey, _Line] = {}

    async def ask(self, node: NodeKey, uid: str, probes: Iterable[Probe] = ()) -> Inspected:
        """What stands in a pod's namespace, the node's own for an empty uid.

        Whatever keeps the agent from answering is the `problem` of the answer.
        """
        line = self._lines.get(node)
        if line is None:
            return Inspected(problem=f"no agent of {node[1]} is connected")
        return await line.ask(Inspection(uid=uid, probes=probes))

    async def converse(
        self, node: NodeKey, answers: AsyncIterator[Inspected]
    ) -> AsyncIterator[Inspection]:
        """An agent's questions, for as long as it answers; its last conversation counts."""
        line = self._lines[node] = _Line(node[1])
        reader = asyncio.create_task(line.hear(answers))
        reader.add_done_callback(lambda _: line.questions.put_nowait(None))
        try:
            while (question := await line.questions.get()) is not None:
                yield question
        finally:
            if self._lines.get(node) is line:
                del self._lines[node]
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


class _Line:
    """A conversation with the agent of one node."""

    def __init__(self, node: NodeName) -> None:
        self.questions: asyncio.Queue[Inspection | None] = asyncio.Queue()
        self._node = node
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Inspected]] = {}

    async def ask(self, question: Inspection) -> Inspected:
        question.id = next(self._numbers)
        answer = self._waiting[question.id] = asyncio.get_running_loop().create_future()
        self.questions.put_nowait(question)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found: Inspected = await answer
                return found
        except TimeoutError:
            said = f"the agent of {self._node} did not answer within {ANSWER_SECONDS:.0f} s"
            return Inspected(problem=said)
        finally:
            del self._waiting[question.id]

    async def hear(self, answers: AsyncIterator[Inspected]) -> None:
        async for one in answers:
            waiting = self._waiting.get(one.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(one if _bounded(one) else Inspected(problem=_TOO_LONG))


def _bounded(answer: Inspected) -> bool:
    """Whether an answer is no longer than one of an agent that does as it should."""
    return (
        len(answer.rules) <= MOST_RULES
        and len(answer.met) <= MOST_RULES
        and all(
            len(rule.text) <= LONGEST_RULE and len(rule.comment) <= LONGEST_RULE
            for rule in answer.rules
        )
    )
