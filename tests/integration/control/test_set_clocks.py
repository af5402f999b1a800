"""Clocks that are set, forwards or back: what a connector tells last is how it is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import msgspec
import pytest

from ringfence.model.workload import Item
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_trials import FILES, NEWER
from tests.unit.control.shop import CLUSTER, DB, FRONT, NODE

DAY, MINUTE = 24 * 3600 * 10**9, 60 * 10**9


async def names(world: World) -> set[tuple[str, str]]:
    """The pods that there are, and their teams."""
    items = (await world.ok("GET", "/inventory", params={"kind": "pod"}))["items"]
    team = "kubernetes.label.team"
    return {(one["name"], *one["labels"].get(team, [""])) for one in items}


def in_team(item: Item, team: str) -> Item:
    return replace(item, labels={**item.labels, "kubernetes.label.team": (team,)})


@pytest.mark.parametrize("jump", [-DAY, -2 * MINUTE, 2 * MINUTE, DAY])
async def test_a_connectors_clock_is_set_and_set_right(
    world: World, clock: Clock, jump: int
) -> None:
    stub = await world.enrol("connector", "c")
    told = asyncio.Queue[dict[str, Any] | None]()

    async def events() -> AsyncIterator[wire.InventoryEvent]:
        while (event := await told.get()) is not None:
            yield wire.InventoryEvent(kubernetes_cluster=CLUSTER, **event)

    call = stub.Publish(events())

    async def tell(at_ns: int, item: Item) -> None:
        told.put_nowait({"at_ns": at_ns, "item": msgspec.json.encode(item)})
        assert (await call.read()).through_ns == at_ns

    start = clock()
    told.put_nowait({"at_ns": start + 1, "snapshot_begin": True})
    for one in (NODE, FRONT, DB):
        told.put_nowait({"at_ns": start + 1, "item": msgspec.json.encode(one)})
    told.put_nowait({"at_ns": start + 1, "snapshot_end": True})
    await call.read()
    await tell(start + jump, in_team(FRONT, "night"))
    assert await names(world) == {(FRONT.name, "night"), (DB.name, "")}
    await tell(start + 2, in_team(FRONT, "day"))
    told.put_nowait({"at_ns": start + 3, "gone": DB.key})
    await call.read()
    assert await names(world) == {(FRONT.name, "day")}
    told.put_nowait(None)


@pytest.mark.parametrize("jump", [-DAY, DAY])
async def test_the_control_planes_clock_is_set_and_set_right(
    world: World, clock: Clock, jump: int
) -> None:
    stub, start = await world.enrol("connector", "c"), clock()
    await publish(stub, [NODE, FRONT, DB], start)
    clock.ahead_ns += jump
    await publish(stub, [NODE, in_team(FRONT, "night")], start + 10**9)
    assert await names(world) == {(FRONT.name, "night")}
    clock.ahead_ns -= jump
    await publish(stub, [NODE, in_team(FRONT, "day"), DB], start + 2 * 10**9)
    assert await names(world) == {(FRONT.name, "day"), (DB.name, "")}


async def test_an_older_connector_is_the_last_again_when_a_newer_one_has_ended(
    world: World, clock: Clock
) -> None:
    stub, start = await world.enrol("connector", "c"), clock()
    older = stub.Publish()
    begin: dict[str, Any] = {"snapshot_begin": True}
    end: dict[str, Any] = {"snapshot_end": True}
    items: list[dict[str, Any]] = [{"item": msgspec.json.encode(one)} for one in (NODE, FRONT)]
    for event in (begin, *items, end):
        await older.write(wire.InventoryEvent(kubernetes_cluster=CLUSTER, at_ns=start, **event))
    await older.read()

    async def tell(team: str, at_ns: int) -> None:
        item = msgspec.json.encode(in_team(FRONT, team))
        event = wire.InventoryEvent(kubernetes_cluster=CLUSTER, at_ns=at_ns, item=item)
        await older.write(event)
        await older.read()

    newer = stub.Publish()
    for event in (begin, end):
        stamp = start + 10 * MINUTE
        await newer.write(wire.InventoryEvent(kubernetes_cluster=CLUSTER, at_ns=stamp, **event))
    await newer.read()
    await tell("meanwhile", start + 1)
    assert await names(world) == set()
    await newer.done_writing()
    assert await newer.read() is grpc.aio.EOF
    await tell("older", start + 2)
    assert await names(world) == {(FRONT.name, "older")}
    older.cancel()


async def test_revisions_grow_though_the_control_planes_clock_was_set_back(world: World) -> None:
    """An agent tells of one that a control plane with another clock handed out."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=FILES)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    first = await agent.directive()
    ahead = first.revision + DAY // 10**6
    await agent.tell(enforced_revision=ahead)
    again = await agent.directive()
    assert (again.revision, again.node_policy) == (ahead + 1, first.node_policy)
    await world.ok("POST", "/apply", json=NEWER)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    newer = await agent.directive()
    assert newer.revision > again.revision
    await agent.tell(enforced_revision=newer.revision)
    (state,) = (await world.ok("GET", "/agents"))["items"]
    assert state["enforced_revision"] == state["desired_revision"] == newer.revision
