"""A change on trial: kept when confirmed, taken back when not, whoever is away meanwhile."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ringfence.policy.program import decode
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

FILES = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
NEWER = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS.replace("3306", "3307")}]}
TRY = {"workspaces": [{"name": "shop"}], "confirm_seconds": 60}


async def enforced(world: World) -> tuple[int, list[tuple[str, int]], bool]:
    """The revision, the set, and whether it is on trial."""
    state = await world.ok("GET", "/enforcement")
    pairs = [(one["name"], one["version"]) for one in state["workspaces"]]
    return state["revision"], pairs, state["trial"] is not None


async def with_p1_enforced(world: World) -> FakeNode:
    """An agent that has heard p1 of shop, of which p2 is the latest by now."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=FILES)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    await world.ok("POST", "/apply", json=NEWER)
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    return agent


async def changes(world: World) -> list[str]:
    found = (await world.ok("GET", "/changes", params={"object": "enforcement"}))["items"]
    return [f"{one['actor']}: {one['what']}" for one in found]


def versions(policy: bytes) -> set[str]:
    """The versions of shop that a node's policy has rules of."""
    programs = decode(policy).programs.values()
    handles = {rule.handle for one in programs for rule in one.rules}
    return {version for version in ("p1", "p2") if any(f"shop/{version}" in h for h in handles)}


async def test_what_nobody_confirms_is_taken_back(world: World, clock: Clock) -> None:
    agent = await with_p1_enforced(world)
    first = await agent.directive()
    assert not first.HasField("fallback")
    code, _, said = await world.run("enforce", "shop", "--confirm", "60s", "--yes", "--no-wait")
    assert code == 0
    assert re.search(r"revision 2 is on trial: in \d+ s shop@p1 is enforced again, unless", said)
    tried = await agent.directive()
    assert tried.revision > first.revision
    assert (versions(tried.node_policy), versions(tried.fallback.node_policy)) == ({"p2"}, {"p1"})
    until_ns = clock() + 60 * 10**9
    assert until_ns < tried.fallback.at_ns < until_ns + 10 * 10**9
    assert await enforced(world) == (2, [("shop", 2)], True)
    _, out, said = await world.run("enforce")
    assert (out, "is on trial" in said) == ("shop@p2\n", True)

    clock.ahead_ns += 61 * 10**9
    back = await agent.directive()
    assert not back.HasField("fallback")
    assert back.node_policy == tried.fallback.node_policy
    assert await enforced(world) == (3, [("shop", 1)], False)
    assert (await changes(world))[0] == "ringfence: reverted revision 2: enforced shop@p1"
    _, _, said = await world.run("enforce")
    assert not said


async def test_what_is_confirmed_stays(world: World, clock: Clock) -> None:
    agent = await with_p1_enforced(world)
    await agent.directive()
    await world.ok("POST", "/enforcement", json=TRY)
    tried = await agent.directive()
    code, _, said = await world.run("confirm")
    assert (code, said) == (0, "revision 2 stays\n")
    stays = await agent.directive()
    assert stays.revision > tried.revision
    assert (stays.node_policy, stays.HasField("fallback")) == (tried.node_policy, False)
    clock.ahead_ns += 61 * 10**9
    code, _, said = await world.run("confirm")
    assert (code, said) == (1, "error: nothing is on trial: see `ringfence enforce`\n")
    assert await enforced(world) == (2, [("shop", 2)], False)
    found = await changes(world)
    assert [one.split(": ")[1] for one in found] == [
        "confirmed revision 2", "enforced shop@p2 on trial, for 1m", "enforced shop@p1",
    ]  # fmt: skip


async def test_one_goes_back_at_once_where_somebody_says_so(world: World) -> None:
    agent = await with_p1_enforced(world)
    first = await agent.directive()
    await world.ok("POST", "/enforcement", json=TRY)
    await agent.directive()
    code, _, said = await world.run("revert", "--no-wait")
    assert (code, said) == (0, "")
    assert (await agent.directive()).node_policy == first.node_policy
    assert await enforced(world) == (3, [("shop", 1)], False)


async def test_nothing_else_is_enforced_meanwhile_but_all_rules_may_go(world: World) -> None:
    await with_p1_enforced(world)
    await world.ok("POST", "/enforcement", json=TRY)
    for body in (TRY, {"workspaces": [{"name": "shop", "version": 1}]}):
        answer = await world.http.post("/api/v1/enforcement", json=body)
        assert answer.status_code == 409
        assert "revision 2 is on trial until" in answer.json()["detail"]
    gone = await world.http.delete("/api/v1/documents/Workspace/shop")
    assert "the enforced set, as p2, the enforced set, as p1" in gone.json()["detail"]
    code, _, said = await world.run("enforce", "--off", "--confirm", "1m", "--yes")
    assert (code, "revision 2 is on trial until" in said) == (1, True)
    answer = await world.http.delete("/api/v1/enforcement", params={"confirm_seconds": 60})
    assert answer.status_code == 409
    plan = await world.ok("DELETE", "/enforcement", params={"dry_run": True})
    assert plan["warnings"] == ["this ends the trial under way"]
    await world.ok("DELETE", "/enforcement")
    assert await enforced(world) == (3, [], False)


async def test_even_no_rules_can_be_tried_and_what_is_no_change_cannot(
    world: World, clock: Clock
) -> None:
    agent = await with_p1_enforced(world)
    first = await agent.directive()
    same = {"workspaces": [{"name": "shop", "version": 1}], "confirm_seconds": 60}
    answer = await world.http.post("/api/v1/enforcement", json=same)
    assert (answer.status_code, answer.json()["detail"]) == (
        409, "this is enforced already: there is nothing to try",
    )  # fmt: skip
    await world.run("enforce", "--off", "--confirm", "1m", "--yes", "--no-wait")
    off = await agent.directive()
    assert not decode(off.node_policy).programs
    assert off.fallback.node_policy == first.node_policy
    clock.ahead_ns += 61 * 10**9
    assert (await agent.directive()).node_policy == first.node_policy


async def test_no_rules_on_trial_stay_away_where_they_are_taken_away_for_good(
    world: World, clock: Clock
) -> None:
    await with_p1_enforced(world)
    await world.run("enforce", "--off", "--confirm", "1m", "--yes", "--no-wait")
    code, _, _ = await world.run("enforce", "--off", "--yes", "--no-wait")
    assert (code, await enforced(world)) == (0, (2, [], False))
    assert (await changes(world))[0].endswith(": confirmed revision 2")
    clock.ahead_ns += 61 * 10**9
    await asyncio.sleep(1)  # longer than between two looks
    assert await enforced(world) == (2, [], False)


async def test_a_control_plane_that_was_away_at_the_end_takes_back_when_it_starts(
    start: Callable[[], Awaitable[World]], clock: Clock
) -> None:
    world = await start()
    await with_p1_enforced(world)
    await world.ok("POST", "/enforcement", json=TRY)
    world = await start()
    assert await enforced(world) == (2, [("shop", 2)], True)
    clock.ahead_ns += 61 * 10**9
    world = await start()
    assert await enforced(world) == (3, [("shop", 1)], False)


async def test_a_directive_is_signed_for_its_node(world: World) -> None:
    agent = await with_p1_enforced(world)
    signed: Any = await agent.call.read()
    assert signed is not grpc.aio.EOF
    directive = wire.Directive.FromString(signed.directive)
    assert (directive.kubernetes_cluster, directive.node) == ("lab", "n1")
    assert abs(signed.now_ns - time.time_ns()) < 3600 * 10**9
