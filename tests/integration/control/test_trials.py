"""A change on trial: kept when confirmed, taken back when not, whoever is away meanwhile."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from ringfence.agent.orders import Orders
from ringfence.policy.program import decode
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_kubernetes_policies import ITEMS, TO_DB, policy
from tests.unit.control.shop import CLUSTER, DB, DOCUMENTS, FRONT, NODE

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
    assert "you run `ringfence confirm 2`\n" in said
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


async def test_a_clock_that_is_set_back_makes_no_trial_longer(world: World, clock: Clock) -> None:
    agent = await with_p1_enforced(world)
    first = await agent.directive()
    await world.ok("POST", "/enforcement", json=TRY | {"confirm_seconds": 5})
    tried = await agent.directive()
    clock.ahead_ns -= 24 * 3600 * 10**9
    back = await agent.directive()
    assert tried.node_policy != back.node_policy == first.node_policy
    assert await enforced(world) == (3, [("shop", 1)], False)


async def test_what_is_confirmed_stays(world: World, clock: Clock) -> None:
    agent = await with_p1_enforced(world)
    await agent.directive()
    await world.ok("POST", "/enforcement", json=TRY)
    tried = await agent.directive()
    code, _, said = await world.run("confirm", "1")
    assert (code, said) == (1, "error: revision 2 is on trial, not 1\n")
    code, _, said = await world.run("confirm", "2")
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


async def test_a_rollback_can_be_tried(world: World, clock: Clock) -> None:
    await with_p1_enforced(world)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    asked = ("rollback", "shop", "p1", "--enforce", "--confirm", "60s", "--yes", "--no-wait")
    code, _, said = await world.run(*asked)
    assert (code, "shop@p2 is enforced again, unless you run `ringfence confirm 3`" in said) == (
        0, True,
    ), said  # fmt: skip
    assert await enforced(world) == (3, [("shop", 3)], True)
    clock.ahead_ns += 61 * 10**9
    await asyncio.sleep(1)  # longer than between two looks
    assert await enforced(world) == (4, [("shop", 2)], False)
    code, _, said = await world.run("rollback", "shop", "p1", "--confirm", "60s")
    assert (code, said) == (3, "error: --confirm goes with --enforce\n")


async def with_a_policy_of_kubernetes(world: World) -> FakeNode:
    """An agent of a cluster that has a policy about shop/db."""
    await publish(await world.enrol("connector", "c"), [*ITEMS, policy("db", TO_DB)])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert (await agent.directive()).node_policy == b""
    return agent


NETPOL = ("netpol", "enforce", "--cluster", CLUSTER, "--yes", "--no-wait")


def handles(policy: bytes) -> set[str]:
    """Those of the rules that Kubernetes' policies made."""
    programs = decode(policy).programs.values() if policy else ()
    return {rule.handle for one in programs for rule in one.rules if "kubernetes" in rule.handle}


async def clusters(world: World) -> tuple[list[str], bool]:
    """Whose policies are enforced, and whether something is on trial."""
    state = await world.ok("GET", "/enforcement")
    return state["kubernetes_clusters"], state["trial"] is not None


async def test_policies_of_a_cluster_are_taken_back_unless_confirmed(
    world: World, clock: Clock
) -> None:
    agent = await with_a_policy_of_kubernetes(world)
    code, _, said = await world.run(*NETPOL, "--confirm", "60s")
    on_trial = r"the change for Kubernetes cluster lab is on trial: in \d+ s its policies are "
    assert (code, bool(re.fullmatch(f"{on_trial}no longer enforced, unless .*\n", said))) == (
        0, True,
    ), said  # fmt: skip
    tried = await agent.directive()
    assert (bool(handles(tried.node_policy)), handles(tried.fallback.node_policy)) == (True, set())
    assert tried.HasField("fallback")
    assert await clusters(world) == ([CLUSTER], True)
    code, _, said = await world.run("confirm", "7")
    told = "the change for Kubernetes cluster lab is on trial"
    assert (code, said) == (1, f"error: {told}, not 7\n")
    for more in ((), ("--off",), ("--off", "--confirm", "60s")):
        code, _, said = await world.run(*NETPOL, *more)
        assert (code, f"{told} until" in said) == (1, True), more

    clock.ahead_ns += 61 * 10**9
    back = await agent.directive()
    assert (handles(back.node_policy), back.HasField("fallback")) == (set(), False)
    assert await clusters(world) == ([], False)
    kept, _, tries = (await changes(world))[0].partition(": ")
    assert (kept, tries) == (
        "ringfence",
        "reverted the change for Kubernetes cluster lab: its policies no longer enforced",
    )

    await world.run(*NETPOL, "--confirm", "60s")
    await agent.directive()
    code, _, said = await world.run("confirm")
    assert (code, said) == (0, "the change for Kubernetes cluster lab stays\n")
    stays = await agent.directive()
    assert (handles(stays.node_policy), stays.HasField("fallback")) == (
        handles(tried.node_policy), False,
    )  # fmt: skip
    clock.ahead_ns += 61 * 10**9
    await asyncio.sleep(1)
    assert await clusters(world) == ([CLUSTER], False)


async def test_an_end_of_a_clusters_policies_can_be_tried_beside_what_else_is_enforced(
    start: Callable[[], Awaitable[World]], clock: Clock
) -> None:
    world = await start()
    agent = await with_a_policy_of_kubernetes(world)
    await world.run(*NETPOL)
    isolated = handles((await agent.directive()).node_policy)
    await world.ok("POST", "/apply", json=FILES)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    await agent.directive()
    code, _, said = await world.run(*NETPOL, "--off", "--confirm", "60s")
    assert (code, "its policies are enforced again" in said) == (0, True), said
    tried = await agent.directive()
    assert (handles(tried.node_policy), versions(tried.node_policy)) == (set(), {"p1"})
    fallback = tried.fallback.node_policy
    assert (handles(fallback), versions(fallback)) == (isolated, {"p1"})
    answer = await world.http.post("/api/v1/enforcement", json=TRY)
    assert (answer.status_code, "Kubernetes cluster lab is on trial" in answer.text) == (409, True)

    # The rules of Ringfence's own policies may go at any time, and the trial goes on.
    await world.ok("DELETE", "/enforcement")
    off = await agent.directive()
    assert (versions(off.node_policy), versions(off.fallback.node_policy)) == (set(), set())
    assert handles(off.fallback.node_policy) == isolated
    assert await clusters(world) == ([], True)
    world = await start()
    clock.ahead_ns += 61 * 10**9
    world = await start()
    assert await clusters(world) == ([CLUSTER], False)
    assert await enforced(world) == (2, [], False)


async def test_a_clock_set_back_over_a_restart_makes_no_trial_of_a_cluster_longer(
    start: Callable[[], Awaitable[World]], clock: Clock
) -> None:
    world = await start()
    await with_a_policy_of_kubernetes(world)
    await world.run(*NETPOL, "--confirm", "5s")
    assert await clusters(world) == ([CLUSTER], True)
    clock.ahead_ns -= 24 * 3600 * 10**9
    world = await start()
    for _ in range(20):
        if await clusters(world) == ([], False):
            return
        await asyncio.sleep(0.5)
    raise AssertionError("still on trial")


async def test_an_agent_that_hears_nothing_goes_back_to_before_a_clusters_policies(
    world: World, tmp_path: Path
) -> None:
    agent = await with_a_policy_of_kubernetes(world)
    now_ns = 0
    orders = Orders(tmp_path / "directive", (CLUSTER, "n1"), lambda *_: None, lambda: now_ns)

    async def heard() -> set[str]:
        signed: Any = await agent.call.read()
        assert orders.hear(signed) is not None
        return followed()

    def followed() -> set[str]:
        assert orders.order is not None
        policy = orders.order.policy
        programs = policy.programs.values() if policy else ()
        return {rule.handle for one in programs for rule in one.rules}

    await world.run(*NETPOL, "--confirm", "60s")
    isolated = await heard()
    assert any("isolation" in handle for handle in isolated)
    now_ns = 66 * 10**9
    assert followed() == set()
    assert "was on trial" in orders.problem
    await world.run("confirm")
    assert await heard() == isolated
    await world.run(*NETPOL, "--off", "--confirm", "60s")
    assert await heard() == set()
    now_ns *= 2
    assert followed() == isolated
