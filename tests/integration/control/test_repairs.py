"""Rules that another changed, and an agent repaired, are told in the audit trail, once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from ringfence.control.agents import TOLERATED_SKEW_NS
from ringfence.model.repair import Damage
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.world import SECOND
from tests.unit.control.shop import DB, FRONT, NODE

Start = Callable[[], Awaitable[World]]


async def told(world: World, wanted: int) -> list[Any]:
    """What the audit trail tells, once there is so much of it."""
    found: list[Any] = []
    for _ in range(100):
        found = (await world.ok("GET", "/changes", params={"object": "rules/lab/n1"}))["items"]
        if len(found) >= wanted:
            break
        await asyncio.sleep(0.1)
    return [(one["at"], one["actor"], one["what"]) for one in found]


async def test_a_repair_is_told_once(start: Start, clock: Clock) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    agent = FakeNode(await world.enrol("agent", "n1"))
    at_ns = time.time_ns() - 100 * SECOND
    db = wire.Repair(uid="db", damage=Damage.RULES, at_ns=at_ns, times=1)
    own = wire.Repair(uid="", damage=Damage.TAKEN_AWAY, at_ns=at_ns + 1, times=3)
    for _ in range(2):
        await agent.tell(repairs=[db, own])
    ((_, actor, what),) = await told(world, 1)
    expected = (
        "repaired rules at n1 that another had changed: shop/db (rules changed),"
        " the node's own (taken away, 3 times since the agent's start)"
    )
    assert (actor, what) == ("ringfence", expected)

    clock.ahead_ns += 61 * SECOND
    world = await start()
    agent = FakeNode(await world.enrol("agent", "n1"))
    later = wire.Repair(uid="db", damage=Damage.SETS, at_ns=clock(), times=2)
    await agent.tell(repairs=[db, own])
    await agent.tell(repairs=[own, later], clock_ns=clock())
    found = await told(world, 2)
    assert [one[2] for one in found[1:]] == [expected]
    expected = "shop/db (sets changed, 2 times since the agent's start)"
    assert found[0][2].endswith(f"changed: {expected}")
    at_once = wire.Repair(uid="db", damage=Damage.SETS, at_ns=later.at_ns + 1, times=3)
    await agent.tell(repairs=[own, at_once], clock_ns=clock())
    await asyncio.sleep(1)
    assert len(await told(world, 2)) == 2, "one a minute is told"


async def test_old_times_do_not_fill_the_trail(world: World) -> None:
    begun_ns = time.time_ns()
    agent = FakeNode(await world.enrol("agent", "n1"))
    for at_ns in range(1000, 1003):
        await agent.tell(repairs=[wire.Repair(damage=Damage.RULES, at_ns=at_ns, times=1)])
        await told(world, 1)
    await asyncio.sleep(1)
    ((at, _, _),) = await told(world, 1)
    assert datetime.fromisoformat(at).timestamp() > begun_ns // SECOND


async def test_what_cannot_be_believed_is_not_told(world: World) -> None:
    agent = FakeNode(await world.enrol("agent", "n1"))
    now_ns = time.time_ns()
    ahead_ns = now_ns + 2 * TOLERATED_SKEW_NS
    soon = wire.Repair(uid="db", damage=Damage.RULES, at_ns=ahead_ns, times=1)
    await agent.tell(repairs=[soon])
    await agent.tell(repairs=[soon], clock_ns=ahead_ns)
    await agent.tell(repairs=[wire.Repair(uid="db", damage="\x1b[2J", at_ns=now_ns, times=1)])
    await asyncio.sleep(1)
    assert await told(world, 0) == []
