"""A staged change: at some nodes first, and everywhere or nowhere by what is dropped there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from ringfence.model.flow import Observer
from ringfence.model.workload import ItemKind
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_flows_api import report
from tests.integration.control.test_trials import FILES, NEWER, changes, enforced, versions
from tests.integration.world import SECOND, Agent
from tests.unit.control.shop import DB, FRONT, NODE, item

A, B = "10.0.0.1", "10.0.0.2"
"""FRONT and DB, both at n1; p1 allows 3306, p2 3307 instead."""
STAGE: dict[str, Any] = {"nodes": ["n1"], "seconds": 60, "threshold": 0.4}
TRY: dict[str, Any] = {"workspaces": [{"name": "shop"}], "stage": STAGE}
N2 = item(ItemKind.NODE, "n2", "192.0.2.2")
AWAY = replace(item(ItemKind.POD, "away", "10.0.0.9"), node="n2")
FAR = replace(
    item(ItemKind.POD, "db", "10.0.0.8"), key=item(ItemKind.POD, "far", "10.0.0.8").key, node="n2"
)
"""Governed as DB is, at the other node."""


class Staged:
    """Two nodes of which the agents are connected, and what the first one's reports."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock, self.told = world, clock, 0

    async def begin(self) -> None:
        """Enforce p1; p2 is there too."""
        await publish(await self.world.enrol("connector", "c"), [NODE, N2, FRONT, DB, AWAY, FAR])
        await self.world.ok("POST", "/apply", json=FILES)
        await self.world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
        await self.world.ok("POST", "/apply", json=NEWER)
        self.stub = await self.world.enrol("agent", "n1")
        self.nodes = FakeNode(self.stub), FakeNode(await self.world.enrol("agent", "n2"))
        for name, node in zip(("n1", "n2"), self.nodes, strict=True):
            await node.tell(node=name)
            await node.directive()

    async def report(
        self,
        passed: tuple[int, ...] = (),
        dropped: tuple[int, ...] = (),
        ends: tuple[str, str] = (A, B),
        rule: str = "catch-all/shop/p2",
    ) -> None:
        """What became of connections from one end to ports of the other in a second by now."""
        end_ns = self.clock.end_window()
        at: dict[str, Any] = {"first_ns": end_ns - SECOND // 2, "last_ns": end_ns - SECOND // 4}
        agent, self.told, (consumer, provider) = Agent("n1"), self.told + 1, ends
        for port in passed:
            agent.saw(Observer.POD, 7, consumer, (provider, port), **at)
        for port in dropped:
            agent.dropped(consumer, (provider, port), pod="db", rule=rule, **at)
        assert not await report(self.stub, agent, f"n1-{self.told}", end_ns)

    async def try_it(self) -> wire.Directive:
        """Put p2 on trial at n1, in force at once; its directive."""
        await self.world.ok("POST", "/enforcement", json=TRY)
        directive = await self.nodes[0].directive()
        await self.nodes[0].tell(enforced_revision=directive.revision)
        self.clock.ahead_ns += 10 * SECOND
        return directive

    async def end(self) -> wire.Directive:
        """Let the time pass; what n1 hears next."""
        self.clock.ahead_ns += 60 * SECOND
        return await self.nodes[0].directive()


@pytest.fixture
async def staged(start: Callable[..., Awaitable[World]], clock: Clock) -> Staged:
    made = Staged(await start(report_interval_seconds=1), clock)
    await made.begin()
    return made


async def test_what_goes_well_at_one_node_is_enforced_everywhere(staged: Staged) -> None:
    await staged.report(passed=(3306, 3307))
    tried = await staged.try_it()
    assert (versions(tried.node_policy), versions(tried.fallback.node_policy)) == ({"p2"}, {"p1"})
    await staged.report(passed=(3307,), dropped=(3306,))  # which analysis foresaw
    _, _, said = await staged.world.run("enforce")
    assert "revision 2 is on trial at lab/n1: in " in said
    stays = await staged.end()
    assert (stays.node_policy, stays.HasField("fallback")) == (tried.node_policy, False)
    everywhere = await staged.nodes[1].directive()
    assert not everywhere.HasField("fallback")
    assert await enforced(staged.world) == (2, [("shop", 2)], False)
    (last, *_), *_ = (await staged.world.ok("GET", "/changes"))["items"], None
    assert last["what"] == "enforced everywhere revision 2"
    assert last["difference"] == ["0 of 2 conversations dropped unforeseen"]


async def test_what_analysis_did_not_foresee_is_taken_back(staged: Staged) -> None:
    await staged.report(passed=(3306, 3307))
    await staged.try_it()
    await staged.report(dropped=(3306, 3307))
    back = await staged.end()
    assert versions(back.node_policy) == {"p1"}
    assert await enforced(staged.world) == (3, [("shop", 1)], False)
    assert (await changes(staged.world))[0] == "ringfence: reverted revision 2: enforced shop@p1"
    (last, *_) = (await staged.world.ok("GET", "/changes"))["items"]
    assert last["difference"] == [
        "more than 40.00%, 1 of 2 conversations dropped unforeseen: shop/front to shop/db TCP 3307"
    ]


async def test_what_was_dropped_before_is_not_its_doing(staged: Staged) -> None:
    await staged.report(dropped=(3307,))
    await staged.try_it()
    await staged.report(dropped=(3307,))
    await staged.end()
    assert await enforced(staged.world) == (2, [("shop", 2)], False)


async def test_traffic_that_it_does_not_govern_does_not_dilute(staged: Staged) -> None:
    await staged.try_it()
    await staged.report(dropped=(3306, 3307))
    await staged.report(passed=(1, 2, 3, 4, 5), ends=("192.0.2.1", "198.51.100.7"))
    await staged.end()
    assert await enforced(staged.world) == (3, [("shop", 1)], False)


async def test_pods_that_wait_for_their_rules_are_not_its_doing(staged: Staged) -> None:
    await staged.try_it()
    await staged.report(passed=(3306,))
    await staged.report(dropped=(3307,), rule="new-pod")
    await staged.end()
    assert await enforced(staged.world) == (2, [("shop", 2)], False)


async def test_a_quarantine_is_not_its_doing(staged: Staged) -> None:
    await staged.report(passed=(3307,))
    await staged.try_it()
    await staged.report(passed=(3307,))
    await staged.world.ok("POST", "/quarantines", json={"workload": "shop/front"})
    await staged.nodes[0].tell(enforced_revision=(await staged.nodes[0].directive()).revision)
    await staged.report(dropped=(3307,), rule="quarantine/quarantine/p0")
    await staged.report(passed=(3306,), ends=("10.0.0.9", B))
    await staged.end()
    assert await enforced(staged.world) == (2, [("shop", 2)], False)


async def test_what_other_nodes_deny_as_before_is_not_its_doing(staged: Staged) -> None:
    await staged.try_it()
    await staged.report(passed=(3307,))
    await staged.report(dropped=(3307,), ends=(A, "10.0.0.8"), rule="catch-all/shop/p1")
    await staged.end()
    assert await enforced(staged.world) == (2, [("shop", 2)], False)


async def test_rules_are_told_as_they_are_at_each_node(staged: Staged) -> None:
    await staged.try_it()
    for workload, version, notes in (
        ("shop/front", "p2", []),
        ("shop/away", "p1", ["revision 2 is on trial at other nodes only"]),
    ):
        told = await staged.world.ok("GET", "/rules", params={"workload": workload})
        assert {one["policy"] for one in told["rules"] if "shop/catch-all" in one["policy"]} == {
            f"shop/catch-all@{version}"
        }
        assert told["notes"] == notes


async def test_what_says_nothing_is_taken_back(staged: Staged) -> None:
    await staged.try_it()
    await staged.end()
    assert await enforced(staged.world) == (3, [("shop", 1)], False)
    (last, *_) = (await staged.world.ok("GET", "/changes"))["items"]
    assert last["difference"] == [
        "no conversation was seen at its nodes, so nothing is known of it"
    ]


async def test_what_is_not_in_force_is_taken_back(staged: Staged) -> None:
    await staged.try_it()
    await staged.report(passed=(3307,))
    await staged.nodes[0].tell(enforced_revision=1)
    staged.clock.ahead_ns += 60 * SECOND
    await asyncio.sleep(2)  # longer than between two looks
    assert await enforced(staged.world) == (2, [("shop", 2)], True)
    await staged.end()
    (last, *_) = (await staged.world.ok("GET", "/changes"))["items"]
    assert last["difference"] == ["it is not in force at n1: no answer"]


async def test_what_is_in_force_shortly_after_its_end_stays(staged: Staged) -> None:
    directive = await staged.try_it()
    await staged.report(passed=(3307,))
    await staged.nodes[0].tell(enforced_revision=1)
    staged.clock.ahead_ns += 60 * SECOND
    await asyncio.sleep(2)  # longer than between two looks
    await staged.nodes[0].tell(enforced_revision=directive.revision)
    await staged.nodes[1].directive()
    assert await enforced(staged.world) == (2, [("shop", 2)], False)


async def test_what_cannot_be_looked_up_is_taken_back(
    staged: Staged, start: Callable[..., Awaitable[World]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await staged.try_it()
    monkeypatch.setattr("ringfence.control.staged.HOPS_AT", "SELECT nothing")
    staged.clock.ahead_ns += 60 * SECOND
    world = await start()
    await asyncio.sleep(2)  # longer than between two looks
    assert await enforced(world) == (2, [("shop", 2)], True)
    staged.clock.ahead_ns += 30 * SECOND
    for _ in range(150):
        if not (await enforced(world))[2]:
            break
        await asyncio.sleep(0.2)
    assert await enforced(world) == (3, [("shop", 1)], False)
    (last, *_) = (await world.ok("GET", "/changes"))["items"]
    assert last["difference"][0].startswith("what was seen is not known: the flow store failed")


async def test_others_keep_what_they_have_and_the_command_follows(staged: Staged) -> None:
    words = ("enforce", "shop", "--stage", "any", "--for", "5s", "--threshold", "40%", "--yes")

    async def obey() -> wire.Directive:
        directive = await staged.nodes[0].directive()
        await staged.nodes[0].tell(enforced_revision=directive.revision)
        return directive

    tried = asyncio.create_task(obey())
    code, _, said = await staged.world.run(*words)
    assert code == 2
    assert "reverted revision 2: enforced shop@p1; " in said
    heard = [await tried, await staged.nodes[0].directive()]
    assert [versions(one.node_policy) for one in heard] == [{"p2"}, {"p1"}]
    with pytest.raises(TimeoutError):  # n2 heard of neither
        await asyncio.wait_for(staged.nodes[1].call.read(), 0.5)


async def test_a_stage_needs_nodes_that_are_there(staged: Staged) -> None:
    for nodes, said in ((["n3"], "no agent of a node 'n3'"), (["lab/n3"], "no agent of a node")):
        body = {**TRY, "stage": {**STAGE, "nodes": nodes}}
        answer = await staged.world.http.post("/api/v1/enforcement", json=body)
        assert answer.status_code == 404
        assert said in answer.json()["detail"]
    both = {**TRY, "confirm_seconds": 60}
    answer = await staged.world.http.post("/api/v1/enforcement", json=both)
    assert answer.status_code == 422
    code, _, said = await staged.world.run("enforce", "--off", "--stage", "n1", "--yes")
    assert (code, "use --confirm instead" in said) == (3, True)
    code, _, said = await staged.world.run("enforce", "shop", "--stage", "n1", "--threshold", "1")
    assert (code, "write a percentage" in said) == (3, True)


async def test_why_goes_by_what_each_end_enforces(staged: Staged) -> None:
    await staged.try_it()
    note = "n2 is outside the stage of revision 2: it still enforces shop@p1"

    async def why(provider: str, port: int, **more: str) -> tuple[bool, int, list[str]]:
        """Whether it is allowed, the version that decides at the provider, and what is noted."""
        asked = {"source": A, "destination": provider, "port": port, **more}
        answer = await staged.world.ok("GET", "/why", params=asked)
        ends = answer["connections"][0]["ends"]
        return answer["allowed"], ends[1]["deciding"]["version"], answer["notes"]

    assert [await why(B, 3306), await why(B, 3307)] == [(False, 2, []), (True, 2, [])]
    far = "10.0.0.8"
    assert [await why(far, 3306), await why(far, 3307)] == [(True, 1, [note]), (False, 1, [note])]
    assert await why(far, 3307, **{"with": "shop@p2"}) == (True, 2, [])
    for place, notes in ((far, [note]), (B, [])):
        reached = await staged.world.ok("GET", "/reach", params={"workload": place})
        assert reached["notes"] == notes
    await staged.world.ok("POST", "/enforcement/confirm", json={})
    assert await why(far, 3307) == (True, 2, [])
