"""Versions under analysis: what arrives is counted, by what was true in its own time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from ringfence.cli.main import OK, USAGE
from ringfence.model.flow import Observer
from ringfence.model.workload import ItemKind
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import report
from tests.integration.control.test_trials import FILES, NEWER
from tests.integration.world import SECOND, Agent
from tests.unit.control.shop import DB, FRONT, NODE, item

A, B = "10.0.0.1", "10.0.0.2"
"""FRONT and DB, both at n1; p1 allows 3306, p2 3307 instead."""
HOUR = 3600 * SECOND
DNS = 5353
SCANNER = "203.0.113.66"
Counts = dict[str, int]


class Watched:
    """A control plane with two versions of a workspace, and an agent that reports."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock, self.told = world, clock, 0

    async def begin(self) -> None:
        await publish(await self.world.enrol("connector", "c"), [NODE, FRONT, DB])
        await self.world.ok("POST", "/apply", json=FILES)
        await self.world.ok("POST", "/apply", json=NEWER)
        self.stub = await self.world.enrol("agent", "n1")

    async def report(
        self,
        passed: Iterable[int] = (),
        dropped: Iterable[int] = (),
        refused: Iterable[int] = (),
        end_ns: int = 0,
    ) -> None:
        """What became of connections to ports of B in a second by now: of a scanner's, and A's."""
        end_ns = end_ns or self.clock.end_window()
        at: dict[str, Any] = {"first_ns": end_ns - SECOND // 2, "last_ns": end_ns - SECOND // 4}
        agent, self.told = Agent("n1"), self.told + 1
        for port in passed:
            agent.saw(Observer.POD, 7, A, (B, port), **at)
        for port in refused:
            agent.saw(Observer.POD, 9, SCANNER, (B, port), answered=0, refused=1, **at)
        for port in dropped:
            agent.dropped(A, (B, port), pod="db", rule="catch-all/shop/p2", **at)
        assert not await report(self.stub, agent, f"n1-{self.told}", end_ns)

    async def counts(self) -> dict[int, Counts]:
        """By version under analysis."""
        items = (await self.world.ok("GET", "/analyses"))["items"]
        return {one["version"]: one["counts"] for one in items}

    async def until(self, wanted: dict[int, Counts]) -> None:
        """Wait for counts: news is gathered for a second."""
        found = await self.counts()
        for _ in range(300):
            if found == wanted:
                return
            await asyncio.sleep(0.1)
            found = await self.counts()
        assert found == wanted

    async def enforce(self, version: int) -> None:
        """Enforce a version, and let the windows go by that tell of neither."""
        body = {"workspaces": [{"name": "shop", "version": version}]}
        await self.world.ok("POST", "/enforcement", json=body)
        self.clock.ahead_ns += 10 * SECOND


@pytest.fixture
async def watched(start: Callable[..., Awaitable[World]], clock: Clock) -> Watched:
    made = Watched(await start(report_interval_seconds=1), clock)
    await made.begin()
    return made


async def test_versions_are_analysed_beside_the_one_that_is_enforced(watched: Watched) -> None:
    await watched.enforce(1)
    await watched.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 2})
    await watched.report(passed=(3306, 3306 + 1000))
    await watched.until({1: {"permitted": 1, "escaped": 1}, 2: {"escaped": 2}})
    await watched.report(passed=(3307,), dropped=(3306,))
    await watched.until(
        {
            1: {"permitted": 1, "escaped": 2, "misdropped": 1},
            2: {"escaped": 2, "permitted": 1, "rejected": 1},
        }
    )


async def test_hits_of_a_fresh_analysis_tell_of_no_negative_days(watched: Watched) -> None:
    await watched.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
    query = {"version": 1}
    hits = (await watched.world.ok("GET", "/analyses/shop/hits", params=query))["items"]
    assert {one["note"] for one in hits} == {"no traffic in under a day of analysis"}


async def test_hits_tell_only_of_time_under_analysis(watched: Watched) -> None:
    world, clock = watched.world, watched.clock
    clock.ahead_ns += 30 * 24 * HOUR

    async def notes(since: str) -> set[str]:
        query = {"version": 1, "since": since}
        items = (await world.ok("GET", "/analyses/shop/hits", params=query))["items"]
        return {one["note"] for one in items}

    assert await notes("30d") == {"no traffic in under a day of analysis"}, "it never was"
    for days in (20, 15):
        await world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
        clock.ahead_ns += days * 24 * HOUR
        await world.ok("DELETE", "/analyses", params={"workspace": "shop", "version": 1})
        clock.ahead_ns += 10 * 24 * HOUR
    assert await notes("60d") == {"no traffic for 35 days of analysis"}
    assert await notes("27d") == {"no traffic in 15 days of analysis"}
    await watched.enforce(1)
    clock.ahead_ns += 3 * 24 * HOUR
    assert await notes("636h") == {"no traffic in 16 days of analysis"}
    assert await notes("13d") == {"no traffic in 3 days of analysis"}


async def test_the_one_version_under_analysis_need_not_be_numbered(watched: Watched) -> None:
    run = watched.world.run
    code, _, said = await run("analysis", "stop", "shop")
    assert (code, "no version of it is under analysis" in said) == (USAGE, True)
    assert (await run("analysis", "start", "shop"))[0] == OK
    assert (await run("analysis", "show", "shop"))[0] == OK
    _, out, _ = await run("analysis", "hits", "shop")
    assert out == (await run("analysis", "hits", "shop@p2"))[1]
    assert (await run("analysis", "start", "shop@p1"))[0] == OK
    code, _, said = await run("analysis", "stop", "shop")
    assert (code, "under analysis are shop@p1, shop@p2" in said) == (USAGE, True)
    assert (await run("analysis", "stop", "shop@p1"))[0] == OK
    code, _, said = await run("analysis", "stop", "shop")
    assert (code, "shop@p2 is not under analysis any more" in said) == (OK, True)


async def test_history_keeps_the_verdict_that_was_true_then(watched: Watched) -> None:
    await watched.enforce(1)
    await watched.report(passed=(3306,))
    await watched.until({1: {"permitted": 1}})
    late_ns = watched.clock()
    await watched.enforce(2)
    await watched.report(passed=(3306,))
    await watched.until({2: {"escaped": 1}})
    await watched.report(passed=(3306, 4444), end_ns=late_ns)  # of the time of p1
    steps: list[dict[str, Any]] = []
    for _ in range(100):
        query = {"version": 1}
        steps = (await watched.world.ok("GET", "/analyses/shop/counts", params=query))["items"]
        if steps[0]["counts"] != {"permitted": 1}:
            break
        await asyncio.sleep(0.1)
    assert [one["counts"] for one in steps] == [{"permitted": 2, "escaped": 1}]
    assert await watched.counts() == {2: {"escaped": 1}}
    # Whoever leaves the inventory, what was found of it stays.
    connector = await watched.world.enrol("connector", "c2")
    await publish(connector, [NODE, DB], watched.clock())
    watched.clock.ahead_ns += SECOND
    await watched.report(passed=(3307,))
    await watched.until({2: {"escaped": 2}})


async def test_who_takes_an_address_over_changes_nothing_of_before(watched: Watched) -> None:
    world, clock = watched.world, watched.clock
    await world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
    await watched.report(passed=(3306,))
    await watched.until({1: {"permitted": 1}})
    before_ns = clock()
    clock.ahead_ns += 10 * SECOND
    connector = await world.enrol("connector", "c2")
    other = replace(item(ItemKind.POD, "other", "10.0.0.1"), since_ns=clock())
    await publish(connector, [NODE, DB, other], clock())
    clock.ahead_ns += 10 * SECOND
    await watched.report(passed=(3306,))
    await watched.until({1: {"permitted": 1, "escaped": 1}})
    await watched.report(passed=(3306,), end_ns=before_ns)  # by front; all is judged anew
    await watched.until({1: {"permitted": 2, "escaped": 1}})


async def test_what_arrives_is_judged_before_an_interval_has_passed(
    start: Callable[..., Awaitable[World]], clock: Clock
) -> None:
    """The test waits for half an interval at most, and nothing else happens in it."""
    made = Watched(await start(report_interval_seconds=60), clock)
    await made.begin()
    await made.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
    await made.until({1: {}})
    await made.report(passed=(3306, 4444))
    await made.until({1: {"permitted": 1, "escaped": 1}})


async def test_what_ends_in_neither_time_tells_of_neither(watched: Watched) -> None:
    await watched.enforce(1)
    body = {"workspaces": [{"name": "shop", "version": 2}]}
    await watched.world.ok("POST", "/enforcement", json=body)
    await watched.report(passed=(3306,))
    watched.clock.ahead_ns += 10 * SECOND
    await watched.report(passed=(3307,))
    await watched.until({2: {"permitted": 1}})


async def test_slots_become_hours_and_late_reports_still_count(watched: Watched) -> None:
    await watched.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
    await watched.report(passed=(3306,))
    late_ns = watched.clock()
    await watched.until({1: {"permitted": 1}})
    watched.clock.ahead_ns += 4 * HOUR
    await watched.report(passed=(3306, 3307))
    await watched.until({1: {"permitted": 2, "escaped": 1}})
    await watched.report(passed=(3308,), end_ns=late_ns)
    await watched.until({1: {"permitted": 2, "escaped": 2}})
    query = {"version": 1, "step": "1h"}
    steps = (await watched.world.ok("GET", "/analyses/shop/counts", params=query))["items"]
    assert [one["counts"] for one in steps] == [
        {"permitted": 1, "escaped": 1},
        {"permitted": 1, "escaped": 1},
    ]


async def test_counts_outlive_the_process(
    watched: Watched, start: Callable[..., Awaitable[World]]
) -> None:
    await watched.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 1})
    await watched.report(passed=(3306,))
    await watched.until({1: {"permitted": 1}})
    watched.world = await start(report_interval_seconds=1)
    watched.stub = await watched.world.enrol("agent", "n1")
    assert await watched.counts() == {1: {"permitted": 1}}
    await watched.report(passed=(3306, 3307))
    await watched.until({1: {"permitted": 2, "escaped": 1}})


async def test_the_command_tells_hits_and_policies_without_traffic(watched: Watched) -> None:
    world = watched.world
    code, _, said = await world.run("analysis", "start", "shop@p1")
    assert (code, "shop@p1 is under analysis since" in said) == (OK, True)
    assert (await world.run("analysis", "start", "shop@p1"))[0] == OK, "which it is already"
    assert (await world.run("analysis", "start", "shop"))[0] == OK, "the latest"
    await watched.report(passed=(3306, 22))
    await watched.until({1: {"permitted": 1, "escaped": 1}, 2: {"escaped": 2}})
    _, out, _ = await world.run("analysis", "list")
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["shop@p1", "no", "1", "1"],
        ["shop@p2", "no", "0", "2"],
    ]
    _, out, _ = await world.run("analysis", "hits", "shop@p1")
    heading, policy, catch_all = (line.split() for line in out.splitlines())
    assert heading[:3] == ["POLICY", "PERMITTED", "ESCAPED"]
    assert (policy[:3], catch_all[:3]) == (["front-to-db", "1", "0"], ["catch-all", "0", "1"])
    watched.clock.ahead_ns += 31 * 24 * HOUR
    _, out, _ = await world.run("analysis", "hits", "shop@p1", "--since", "40d")
    assert "no traffic for 31 days" in out
    assert (await world.run("analysis", "stop", "shop"))[0] == USAGE
    assert (await world.run("analysis", "stop", "shop@p1"))[0] == OK
    assert set(await watched.counts()) == {2}
    _, out, _ = await world.run("analysis", "show", "shop@p1", "--since", "40d", "--step", "1d")
    assert out.splitlines()[1].split()[1:3] == ["1", "1"]


async def test_what_is_enforced_may_drop_what_a_newer_version_allows(watched: Watched) -> None:
    await watched.enforce(1)
    await watched.world.ok("POST", "/analyses", json={"workspace": "shop", "version": 2})
    await watched.report(passed=(3306, 3307), dropped=(3307 + 1000,))
    await watched.report(dropped=(3307,))
    counts = {1: {"permitted": 1, "escaped": 1, "rejected": 2}}
    await watched.until(counts | {2: {"escaped": 1, "permitted": 1, "rejected": 1}})


ABOVE = f"""
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {{name: core}}
spec:
  scope: all
  catchAll: {{inbound: ALLOW, outbound: ALLOW}}
  policies:
  - id: names
    action: ALLOW
    consumer: {{scope: all}}
    provider: {{filter: 'name = "db"'}}
    protocol: TCP
    ports: [{DNS}]
"""


async def test_a_version_is_judged_beside_those_above_it_under_analysis(watched: Watched) -> None:
    """What all scopes need stands in a workspace above theirs."""
    world, named = watched.world, {"workspace": "shop", "version": 1}
    asked = {**named, "since": "1m", "with": []}
    await world.ok("POST", "/apply", json={"files": [{"name": "core.yaml", "documents": ABOVE}]})
    code, _, said = await world.run("analysis", "start", "shop@p1")
    idle = "note: workspace core above it is neither enforced nor under analysis"
    assert (code, idle in said, "`ringfence analysis start core`" in said) == (OK, True, True)
    await watched.report(passed=(DNS,))
    await watched.until({1: {"escaped": 1}})
    told = await world.ok("GET", "/what-if", params=asked)
    assert (len(told["blocked"]), len(told["notes"])) == (1, 1)
    told = await world.ok("GET", "/what-if", params={**asked, "with": ["core"]})
    assert (told["blocked"], told["notes"]) == ([], [])

    begun = await world.ok("POST", "/analyses", json={"workspace": "core"})
    assert begun["notes"] == []
    (note,) = (await world.ok("POST", "/analyses", json=named))["notes"]
    assert note == "judged as if core@p1, which is under analysis above it, were enforced too"
    await watched.report(passed=(DNS, 3306))
    for _ in range(300):
        items = (await world.ok("GET", "/analyses"))["items"]
        counts = {one["workspace"]: one["counts"] for one in items}
        if counts["shop"] == {"permitted": 3}:
            break
        await asyncio.sleep(0.1)
    assert counts == {"core": {"permitted": 3}, "shop": {"permitted": 3}}
    told = await world.ok("GET", "/analysis", params=asked)
    assert (told["counts"]["escaped"], told["notes"]) == (0, [note])
    told = await world.ok("GET", "/what-if", params=asked)
    assert (told["blocked"], told["notes"]) == ([], [note])

    await world.ok("POST", "/analyses", json={"workspace": "shop", "version": 2})
    shown = await world.ok("GET", "/promotions/shop")
    assert shown["notes"] == [note]
    first = shown["entry"][0]
    assert (first["wanted"], first["met"]) == (
        "core@p1, above it, enforced, for it was judged beside it in the last 1d",
        False,
    )
    told = await world.ok("GET", "/promotions/shop")
    assert told["entry"][1]["wanted"] == "under analysis for 1d beside core@p1"
    await world.ok("DELETE", "/analyses", params={"workspace": "core", "version": 1})
    shown = await world.ok("GET", "/promotions/shop")
    assert shown["notes"][0].startswith(idle.removeprefix("note: "))
    assert shown["entry"][0] == first, "its counts are of the time beside it"
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "core"}]})
    shown = await world.ok("GET", "/promotions/shop")
    assert (shown["notes"], len(shown["entry"])) == ([], 3)


async def test_what_changes_above_it_holds_a_promotion(watched: Watched) -> None:
    """One that takes another's place above begins its time anew; one that is gone is told of."""
    world, clock = watched.world, watched.clock
    files = {"files": [{"name": "core.yaml", "documents": ABOVE}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/analyses", json={"workspace": "core"})
    await world.ok("POST", "/analyses", json={"workspace": "shop", "version": 2})

    async def entry() -> list[tuple[str, str, bool]]:
        shown = await world.ok("GET", "/promotions/shop")
        return [(one["wanted"], one["now"], one["met"]) for one in shown["entry"]]

    clock.ahead_ns += 3600 * SECOND
    assert ("under analysis for 1d beside core@p1", "1h", False) in await entry()
    files["files"][0]["documents"] = ABOVE.replace("ports: [", "ports: [8053, ")
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/analyses", json={"workspace": "core", "version": 2})
    clock.ahead_ns += 600 * SECOND
    assert ("under analysis for 1d beside core@p2", "10m", False) in await entry()
    clock.ahead_ns += 3000 * SECOND
    assert ("under analysis for 1d beside core@p2", "1h", False) in await entry()

    for version in (1, 2):
        await world.ok("DELETE", "/analyses", params={"workspace": "core", "version": version})
    answer = await world.http.delete("/api/v1/documents/Workspace/core")
    assert answer.status_code == 204, answer.text
    gone = [one for one in await entry() if "which was deleted" in one[0]]
    assert [(one[0].partition(" without ")[2], one[2]) for one in gone] == [
        (f"core@p{version}, above it, which was deleted", False) for version in (1, 2)
    ]
    clock.ahead_ns += 25 * 3600 * SECOND
    assert not [one for one in await entry() if "which was deleted" in one[0]]
