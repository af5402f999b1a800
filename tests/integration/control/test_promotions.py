"""A scope is led from its first flows to being enforced, and back on alarm."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ringfence.cli.main import FAILED, OK, USAGE
from ringfence.control.promotions import Promotions
from ringfence.model.flow import Observer
from ringfence.model.ids import ScopeName
from ringfence.model.promotion import Criteria
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_analyses import HOUR, A, B, Watched, watched  # noqa: F401
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_flows_api import report
from tests.integration.control.test_trials import FILES, enforced
from tests.integration.world import SECOND, Agent
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

SCOPES = {"files": [{"name": "scopes", "documents": DOCUMENTS.rpartition("---")[0]}]}
EASY = {"observe_seconds": 0, "quiet_seconds": 60, "coverage": 0.5, "stage_seconds": 60}


class Led(Watched):
    """A scope without policies, and an agent that obeys."""

    async def begin(self) -> None:
        await publish(await self.world.enrol("connector", "c"), [NODE, FRONT, DB])
        await self.world.ok("POST", "/apply", json=SCOPES)
        self.stub = await self.world.enrol("agent", "n1")
        self.node = FakeNode(self.stub)
        await self.node.tell()
        await self.node.directive()

    async def obey(self) -> None:
        """Do what the agent is told next."""
        directive = await self.node.directive()
        await self.node.tell(enforced_revision=directive.revision)

    async def stage(self) -> tuple[str, list[bool]]:
        """How far it is, and which criteria of the next stage are met."""
        found = await self.world.ok("GET", "/promotions/shop")
        return found["stage"], [one["met"] for one in found["entry"]]

    async def refused(self, **body: Any) -> str:
        """Why it is not led on."""
        answer = await self.world.http.post("/api/v1/promotions/shop/promote", json=body)
        assert answer.status_code == 409, answer.text
        return str(answer.json()["detail"])


@pytest.fixture
async def led(start: Callable[..., Awaitable[World]], clock: Clock) -> Led:
    made = Led(await start(report_interval_seconds=1), clock)
    await made.begin()
    return made


async def test_a_scope_is_led_from_its_first_flows_to_being_enforced(led: Led) -> None:
    world = led.world
    await led.report(passed=(3306,))
    assert await led.stage() == ("observe", [False])
    assert "discover wants flows are seen for 1d (now " in await led.refused()
    assert await led.stage() == ("observe", [False])
    await world.ok("POST", "/promotions/shop/criteria", json=EASY)
    said = await led.refused(to="staged")
    assert said.startswith("scope shop stays at stage analyse: staged wants under analysis for 1m")
    assert "coverage at least 50.00% (now 0.00% of 0 conversations)" in said
    assert await led.stage() == ("analyse", [False, False, False])
    assert "is at stage analyse already" in await led.refused(to="discover")
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3306,))
    await led.until({1: {"permitted": 2}})
    assert await led.stage() == ("analyse", [True, True, True])
    answer = await world.ok("POST", "/promotions/shop/promote", json={})
    assert (answer["stage"], answer["workspace"], answer["version"]) == ("staged", "shop", 1)
    await led.obey()
    wants = "enforced wants the trial drops no more than 1.00% unforeseen (now 0 of 0"
    assert wants in await led.refused()
    led.clock.ahead_ns += 10 * SECOND
    await led.report(passed=(3306,))
    led.clock.ahead_ns += 60 * SECOND
    for _ in range(100):
        if (await led.stage())[0] == "enforced":
            break
        await asyncio.sleep(0.1)
    assert await led.stage() == ("enforced", [])
    assert await enforced(world) == (1, [("shop", 1)], False)
    assert "is at stage enforced already" in await led.refused()


async def test_coverage_and_misdrops_keep_it_from_the_nodes(led: Led) -> None:
    await led.world.ok("POST", "/apply", json=FILES)
    await led.world.ok("POST", "/promotions/shop/criteria", json={**EASY, "coverage": 0.6})
    await led.world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3306, 3307))
    await led.until({1: {"permitted": 1, "escaped": 1}})
    assert await led.stage() == ("analyse", [True, False, True])
    await led.world.ok("POST", "/promotions/shop/criteria", json=EASY)
    assert await led.stage() == ("analyse", [True, True, True])
    await led.report(dropped=(3306,))
    for _ in range(100):
        if not (await led.stage())[1][2]:
            break
        await asyncio.sleep(0.1)
    assert "no misdropped conversation for 1m (now 1 misdropped" in await led.refused()


async def test_a_scan_says_nothing_of_coverage(led: Led) -> None:
    await led.world.ok("POST", "/apply", json=FILES)
    await led.world.ok("POST", "/promotions/shop/criteria", json={**EASY, "coverage": 0.6})
    await led.world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3306, 3307), refused=range(4000, 4012))
    await led.until({1: {"permitted": 1, "escaped": 13}})
    shown = await led.world.ok("GET", "/promotions/shop")
    assert shown["entry"][1]["now"] == "50.00% of 2 conversations; 12 more are noise"
    told = await led.world.ok("GET", "/coverage", params={"scope": "shop", "since": "10m"})
    assert (told["edges"], told["noise"]) == (2, 12)


async def test_who_dials_the_silent_does_not_make_noise_of_what_passes(led: Led) -> None:
    files = json.loads(json.dumps(FILES).replace("outbound: ALLOW", "outbound: DENY"))
    await led.world.ok("POST", "/apply", json=files)
    await led.world.ok("POST", "/promotions/shop/criteria", json={**EASY, "coverage": 0.6})
    await led.world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    silent: dict[str, Any] = {"opened": 50, "answered": 0, "reverse_packets": 0, "reverse_flags": 0}
    for told in range(4):
        end_ns = led.clock.end_window()
        at: dict[str, Any] = {"first_ns": end_ns - SECOND // 2, "last_ns": end_ns - SECOND // 4}
        agent = Agent("n1")
        agent.saw(Observer.POD, 7, A, (B, 3306), **at)
        agent.saw(Observer.POD, 7, A, ("198.51.100.7", 443), opened=3, answered=3, **at)
        for host in ("203.0.113.1", "203.0.113.2"):
            agent.saw(Observer.POD, 7, A, (host, 443), **at, **silent)
        assert not await report(led.stub, agent, f"n1-{told}", end_ns)
    await led.until({1: {"permitted": 4, "escaped": 12, "unanswered": 400}})
    shown = await led.world.ok("GET", "/promotions/shop")
    assert shown["entry"][1]["now"] == "25.00% of 16 conversations"


async def test_what_was_promoted_goes_back_on_alarm(led: Led) -> None:
    world = led.world
    await world.ok("POST", "/apply", json=FILES)
    await led.enforce(1)
    await led.obey()
    newer = DOCUMENTS.replace("3306", "3307")
    files = {"files": [{"name": "shop.yaml", "documents": newer}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/promotions/shop/criteria", json=EASY)
    await world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3307,))
    await led.until({1: {"escaped": 1}, 2: {"permitted": 1}})
    await world.ok("POST", "/promotions/shop/promote", json={})
    await led.obey()
    led.clock.ahead_ns += 10 * SECOND
    await led.report(passed=(3307,))
    for _ in range(100):
        answer = await world.http.post("/api/v1/promotions/shop/promote", json={})
        if answer.is_success:
            break
        await asyncio.sleep(0.1)
    assert (await led.stage())[0] == "enforced"
    led.clock.ahead_ns += 10 * SECOND
    await led.report(dropped=(3307,))
    for _ in range(200):
        if (await enforced(world))[1] == [("shop", 1)]:
            break
        await asyncio.sleep(0.1)
    assert await enforced(world) == (3, [("shop", 1)], False)
    found: dict[str, Any] = {}
    for _ in range(50):
        found = await world.ok("GET", "/promotions/shop")
        if found["demoted"]:
            break
        await asyncio.sleep(0.1)
    assert "misdropped shop/front to shop/db 3307" in found["why"]
    assert (found["stage"], found["version"]) == ("analyse", 2)
    told = (await world.ok("GET", "/changes"))["items"]
    assert any(one["what"].startswith("demoted shop@p2: alert") for one in told)


async def test_the_command_asks_before_an_open_alarm_takes_back(led: Led) -> None:
    world = led.world
    await world.ok("POST", "/apply", json=FILES)
    await led.enforce(1)
    await led.report(dropped=(3306,))
    for _ in range(200):
        if (await world.ok("GET", "/alerts"))["items"]:
            break
        await asyncio.sleep(0.1)
    code, out, _ = await world.run("promote", "shop", "--dry-run")
    assert (code, ": misdropped shop/front to shop/db 3306" in out) == (OK, True)
    code, _, said = await world.run("promote", "shop")
    assert (code, "nobody can answer here" in said) == (USAGE, True)
    assert "enforced meanwhile" in await led.refused(expected_revision=7)
    assert not (await world.ok("GET", "/promotions/shop"))["guarded"]
    assert (await world.run("promote", "shop", "--yes"))[0] == OK
    await led.report(passed=(3306,))
    for _ in range(200):
        if not (await enforced(world))[1]:
            break
        await asyncio.sleep(0.1)
    assert await enforced(world) == (2, [], False)


async def test_a_scope_that_others_lead_past_is_left_there(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    await led.world.ok("POST", "/apply", json=FILES)
    asked, facts = itertools.count(), Promotions.facts

    async def raced(self: Promotions, scope: ScopeName, criteria: Criteria) -> Any:
        if next(asked) == 1:
            await led.enforce(1)
        return await facts(self, scope, criteria)

    monkeypatch.setattr(Promotions, "facts", raced)
    answer = await led.world.ok("POST", "/promotions/shop/promote", json={"to": "analyse"})
    assert answer["stage"] == "enforced"


async def test_what_a_person_enforces_again_stays(led: Led) -> None:
    world = led.world
    await world.ok("POST", "/apply", json=FILES)
    await world.ok("POST", "/promotions/shop/criteria", json=EASY)
    await world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3306,))
    await led.until({1: {"permitted": 1}})
    await world.ok("POST", "/promotions/shop/promote", json={})
    await led.obey()
    await world.ok("POST", "/enforcement/confirm", json={})
    led.clock.ahead_ns += 10 * SECOND
    await led.report(dropped=(3306,))
    for _ in range(200):
        if (await world.ok("GET", "/promotions/shop"))["demoted"]:
            break
        await asyncio.sleep(0.1)
    assert await enforced(world) == (2, [], False)
    await led.enforce(1)
    found = await world.ok("GET", "/promotions/shop")
    assert (found["stage"], found["demoted"], found["guarded"]) == ("enforced", None, False)
    led.clock.ahead_ns += 10 * SECOND
    await led.report(dropped=(3306, 3307))
    for _ in range(100):
        found = (await world.ok("GET", "/alerts"))["items"]
        if any(one["conversations"] > 1 for one in found):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(3)
    assert await enforced(world) == (3, [("shop", 1)], False)


async def test_what_other_nodes_drop_during_a_trial_raises_no_alarm(led: Led) -> None:
    world = led.world
    await world.ok("POST", "/apply", json=FILES)
    await led.enforce(1)
    await led.obey()
    newer = DOCUMENTS.replace("3306", "3307")
    await world.ok("POST", "/apply", json={"files": [{"name": "shop", "documents": newer}]})
    await world.ok("POST", "/promotions/shop/criteria", json=EASY)
    await world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3307,))
    await led.until({1: {"escaped": 1}, 2: {"permitted": 1}})
    await world.ok("POST", "/promotions/shop/promote", json={})
    await led.obey()
    led.clock.ahead_ns += 10 * SECOND
    await led.report(passed=(3307,), dropped=(3307,))
    await world.ok("POST", "/enforcement/confirm", json={})
    led.clock.ahead_ns += 10 * SECOND
    await led.report(passed=(3307,))
    await led.until({2: {"permitted": 2}})
    await asyncio.sleep(1)
    found = (await world.ok("GET", "/alerts"))["items"]
    assert [one for one in found if one["category"] == "misdropped"] == []
    assert await enforced(world) == (2, [("shop", 2)], False)


async def test_the_command_shows_the_path(led: Led) -> None:
    run = led.world.run
    code, out, _ = await run("promotion", "show", "shop")
    assert (code, out.splitlines()[0]) == (OK, "shop is at stage observe")
    words = ("promotion", "criteria", "shop", "--observe-for", "2h", "--coverage", "99.5%")
    code, out, _ = await run(*words, "--no-demote")
    assert (code, "observe for   2h" in out, "99.50%" in out) == (OK, True, True)
    assert (await run("promotion", "criteria", "shop", "--coverage", "2"))[0] == USAGE
    code, out, _ = await run("promotion", "list")
    assert (code, out.splitlines()[1].split()[:2]) == (OK, ["shop", "observe"])
    code, _, said = await run("promote", "shop")
    assert (code, "discover wants flows are seen for 2h" in said) == (FAILED, True)
    code, _, said = await run("promote", "shop", "--dry-run")
    assert (code, "refused now: scope shop stays at stage observe" in said) == (OK, True)
    assert (await run("promotion", "show", "nowhere"))[0] == FAILED
    await led.report(passed=(3306,), end_ns=led.clock() - 3 * HOUR)
    await led.report(passed=(3306,))
    code, out, said = await run("promote", "shop", "--to", "analyse")
    assert (code, "shop is at stage analyse with shop@p1" in out) == (OK, True), said


async def test_the_command_refuses_before_it_shows_a_plan(led: Led) -> None:
    await led.world.ok("POST", "/apply", json=FILES)
    await led.world.ok("POST", "/promotions/shop/criteria", json=EASY)
    await led.world.ok("POST", "/promotions/shop/promote", json={})
    for words in ((), ("--yes",)):
        code, out, said = await led.world.run("promote", "shop", "--to", "staged", *words)
        assert (code, out, said.count("\n")) == (FAILED, "", 1), said
        assert "stays at stage analyse: staged wants" in said
    code, out, said = await led.world.run("promote", "shop", "--to", "staged", "--dry-run")
    assert (code, "shop" in out, "refused now: scope shop stays" in said) == (OK, True, True)


async def test_a_dry_run_tells_what_a_later_stage_lacks(led: Led) -> None:
    await led.world.ok("POST", "/apply", json=FILES)
    await led.world.ok("POST", "/promotions/shop/criteria", json=EASY)
    code, _, said = await led.world.run("promote", "shop", "--to", "enforced", "--dry-run")
    assert (code, "refused now: scope shop stays at stage analyse" in said) == (OK, True), said
    code, _, said = await led.world.run("promote", "shop", "--to", "analyse", "--dry-run")
    assert (code, "refused" in said) == (OK, False), said


async def test_the_command_shows_the_plan_and_asks_before_nodes_change(led: Led) -> None:
    world = led.world
    run = world.run
    await world.ok("POST", "/promotions/shop/criteria", json=EASY | {"quiet_seconds": 0})
    await led.report(passed=(3306,))
    code, _, said = await run("promote", "shop", "--to", "staged", "--yes")
    assert (code, "`ringfence promote shop --to discover`" in said) == (FAILED, True)
    await world.ok("POST", "/apply", json=FILES)
    await world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 10 * SECOND
    await led.report(passed=(3306,))
    await led.until({1: {"permitted": 2}})
    code, _, said = await run("promote", "shop")
    assert (code, "nobody can answer here" in said) == (USAGE, True)
    code, out, _ = await run("promote", "shop", "--dry-run")
    assert (code, "shop" in out, "workload" in out) == (OK, True, True), out
    assert (await led.stage())[0] == "analyse"
    assert "enforced meanwhile" in await led.refused(expected_revision=7)
    code, _, said = await run("promote", "shop", "--yes")
    assert code == OK, said
    assert (await led.stage())[0] == "staged"
    assert (await run("promote", "shop"))[0] == USAGE


async def test_whom_it_governs_and_what_it_would_block_is_shown_before(led: Led) -> None:
    run = led.world.run
    await led.world.ok("POST", "/apply", json=FILES)
    await led.world.ok("POST", "/promotions/shop/criteria", json=EASY)
    early = await led.world.ok(
        "POST", "/promotions/shop/promote", json={"to": "staged", "dry_run": True}
    )
    assert (early["impact"]["analysed"], early["impact"]["blocked"]) == (False, [])
    await led.world.ok("POST", "/promotions/shop/promote", json={})
    led.clock.ahead_ns += 61 * SECOND
    await led.report(passed=(3306, 3307))
    await led.until({1: {"permitted": 1, "escaped": 1}})
    code, out, said = await run("promote", "shop", "--dry-run")
    assert (code, "shop/db" in out, "shop/front  shop/db   TCP 3307" in out) == (OK, True, True)
    assert "it governs 2 workloads" in said
    assert "it would have blocked 1 conversation of those that passed in the last 1m" in said
    code, out, said = await run("promote", "shop", "--to", "enforced", "--yes", "-o", "json")
    answer = json.loads(out)
    assert answer["trial_until"]
    assert (code, answer["stage"], "would have blocked 1" in said) == (OK, "staged", True)
    assert answer["impact"]["governed"] == [
        {"name": "shop/db", "members": 1}, {"name": "shop/front", "members": 1}
    ]  # fmt: skip
    (blocked,) = answer["impact"]["blocked"]
    assert (blocked["consumer"], blocked["port"]) == ("shop/front", "3307")
    assert blocked["denied_by"] == ["DENY shop/catch-all@p1"]
    code, out, said = await run("promote", "shop", "--dry-run")
    assert (code, "shop/db" in out, "would have blocked 1" in said) == (OK, True, True)


async def test_a_trial_of_another_scope_is_not_confirmed(led: Led) -> None:
    world = led.world
    await world.ok("POST", "/apply", json=FILES)
    await led.enforce(1)
    await led.obey()
    other = DOCUMENTS.rpartition("---")[2].replace("name: shop", "name: other")
    other = other.replace("scope: shop", "scope: all")
    documents = SCOPES["files"][0]["documents"] + "---" + other
    await world.ok("POST", "/apply", json={"files": [{"name": "other", "documents": documents}]})
    both = [{"name": "shop", "version": 1}, {"name": "other", "version": 1}]
    staged = {"workspaces": both, "stage": {"seconds": 60}}
    await world.ok("POST", "/enforcement", json=staged)
    assert await led.stage() == ("enforced", [])
    assert not (await world.ok("GET", "/promotions/shop"))["guarded"]
    code, out, _ = await world.run("promote", "shop", "--to", "enforced")
    assert (code, "an alarm takes it back" in out.splitlines()) == (OK, True)
    assert "at stage enforced already" in await led.refused()
    assert (await enforced(world))[2]
