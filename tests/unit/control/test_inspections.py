"""Questions to agents, whose answers are believed only as far as an agent's may go."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ringfence.control.inspections import Inspections
from ringfence.model.ids import ClusterId, NodeName
from ringfence.wire.generated.agent_pb2 import Inspected, KernelRule
from ringfence.wire.limits import LONGEST_RULE, MOST_RULES

NODE = ClusterId("east"), NodeName("n1")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([KernelRule(text="x" * LONGEST_RULE)], ""),
        ([KernelRule(text="x" * (LONGEST_RULE + 1))], "the agent's answer is too long"),
        ([KernelRule()] * (MOST_RULES + 1), "the agent's answer is too long"),
    ],
)
async def test_an_answer_is_no_longer_than_an_agents(rules: list[KernelRule], problem: str) -> None:
    inspections, asked = Inspections(), asyncio.Queue[int]()

    async def answers() -> AsyncIterator[Inspected]:
        while True:
            yield Inspected(id=await asked.get(), rules=rules)

    async def agent() -> None:
        async for question in inspections.converse(NODE, answers()):
            asked.put_nowait(question.id)

    async with asyncio.TaskGroup() as group:
        talking = group.create_task(agent())
        await asyncio.sleep(0)
        found = await inspections.ask(NODE, "")
        talking.cancel()
    assert found.problem == problem
    assert bool(found.rules) is not bool(problem)
