"""Scopes that are watched: what is recommended unasked, and how some of it is accepted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ringfence.cli.main import FAILED, OK, USAGE
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_alerts import sent
from tests.integration.control.test_analyses import HOUR, Watched
from tests.integration.control.test_approved import MORE, file
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_promotions import SCOPES
from tests.integration.export.test_alert_sinks import Receiver, receiver  # noqa: F401
from tests.integration.world import SECOND
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

PATH = "/recommendations/shop"
DAY = 24 * HOUR


class Advised(Watched):
    """A scope that is watched."""

    async def looked(self) -> dict[str, Any]:
        """What is recommended once it was looked at again: the clock makes it time to."""
        self.clock.ahead_ns += HOUR
        await self._look_after(await self._looked_at())
        return dict(await self.world.ok("GET", PATH))

    async def first_look(self) -> None:
        """Wait for it."""
        await self._look_after(None)

    async def _look_after(self, before: str | None) -> None:
        for _ in range(300):
            if await self._looked_at() != before:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(before)

    async def _looked_at(self) -> str | None:
        (one,) = (await self.world.ok("GET", "/recommendations"))["items"]
        assert one["problem"] == ""
        looked: str | None = one["looked"]
        return looked

    async def watch(self) -> None:
        await self.world.ok("POST", "/recommendations", json={"scope": "shop"})
        await self.first_look()

    async def accept(self, told: dict[str, Any], *kinds: str) -> Any:
        chosen = [
            {"change": one["change"], "policy": one["policy"]}
            for one in told["changes"]
            if one["change"] in kinds
        ]
        body = {"version": told["version"], "accept": chosen}
        return await self.world.http.post(f"/api/v1{PATH}/accept", json=body)


def told_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["change"], one["policy"]) for one in found["changes"]]


@pytest.fixture
async def advised(start: Callable[..., Awaitable[World]], clock: Clock) -> Advised:
    made = Advised(await start(report_interval_seconds=1), clock)
    await made.begin()
    clock.ahead_ns += 10 * SECOND
    return made


async def test_what_is_new_and_what_is_of_no_use_is_recommended(advised: Advised) -> None:
    world = advised.world
    await world.ok("POST", "/apply", json=file(DOCUMENTS.rstrip() + MORE))
    advised.clock.ahead_ns += 10 * SECOND
    await advised.report(passed=(3306, 8080))
    await advised.watch()
    found = await world.ok("GET", PATH)
    new = [one for one in found["changes"] if one["change"] == "added"]
    assert (found["workspace"], found["version"], len(new)) == ("shop", 3, 1)
    assert (new[0]["document"]["action"], new[0]["conversations"]) == ("ALLOW", 2)
    unused = {one["policy"]: one["note"] for one in found["changes"] if one not in new}
    assert set(unused) == {"front-to-db-again", "nobody-to-db"}
    assert "decided by front-to-db before it" in unused["front-to-db-again"]
    assert [one["conversations"] for one in found["approved"]] == [1, 0, 0]
    assert "nobody-to-db" in found["documents"]
    changed = found["changed"]
    await advised.report(passed=(3306, 8080))
    again = await advised.looked()
    assert (again["changed"], told_of(again)) == (changed, told_of(found)), "it says the same"
    assert again["looked"] > found["looked"]
    answer = await advised.accept(found, "added", "now unused")
    assert answer.is_success, answer.text
    (change,) = answer.json()["changes"]
    assert (change["version"], "- policy nobody-to-db" in "".join(change["diff"])) == (4, True)
    late = await advised.accept(found, "added")
    assert (late.status_code, "`ringfence recommendations start shop`" in late.text) == (409, True)
    after = await advised.looked()
    assert (after["version"], after["changes"]) == (4, []), "what was accepted is not said again"
    assert after["changed"] > changed


async def test_a_scope_without_policies_is_recommended_its_first(
    start: Callable[..., Awaitable[World]], clock: Clock
) -> None:
    world = await start(report_interval_seconds=1)
    advised = Advised(world, clock)
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=SCOPES)
    advised.stub = await world.enrol("agent", "n1")
    await advised.report(passed=(3306,))
    await advised.watch()
    found = await world.ok("GET", PATH)
    assert ([kind for kind, _ in told_of(found)], found["version"]) == (["added"], None)
    answer = await advised.accept(found, "added")
    assert answer.is_success, answer.text
    assert (await advised.looked())["changes"] == []


async def test_a_restart_keeps_what_is_recommended(
    advised: Advised, start: Callable[..., Awaitable[World]]
) -> None:
    await advised.report(passed=(8080,))
    await advised.watch()
    before = await advised.world.ok("GET", PATH)
    advised.world = await start(report_interval_seconds=1)
    assert await advised.world.ok("GET", PATH) == before
    again = await advised.looked()
    assert (again["changed"], told_of(again)) == (before["changed"], told_of(before))
    assert again["looked"] > before["looked"]


async def test_nothing_is_looked_at_while_reports_wait(advised: Advised) -> None:
    await advised.watch()
    ingest = advised.world.plane.app.state.services.ingest  # type: ignore[union-attr]
    (before,) = (await advised.world.ok("GET", "/recommendations"))["items"]
    held, ingest._rows = ingest._rows, 10**9
    advised.clock.ahead_ns += HOUR
    await asyncio.sleep(2.5)
    assert (await advised.world.ok("GET", "/recommendations"))["items"] == [before]
    ingest._rows = held
    await advised.looked()


async def test_sinks_hear_of_what_is_new_once(
    advised: Advised,
    receiver: Receiver,  # noqa: F811
) -> None:
    world = advised.world
    for body in (
        {"name": "hook", "url": f"webhook+http://{receiver.url}/hook"},
        {"name": "chat", "url": "slack:", "secret": f"http://{receiver.url}/slack"},
    ):
        await world.ok("POST", "/alert-sinks", json=body)
    await advised.report(passed=(3306, 8080))
    await advised.watch()
    (path, _, body), (_, _, blocks) = sorted(await sent(receiver, 2), key=lambda one: one[0])
    recommended = (await world.ok("GET", PATH))["changes"]
    assert (path, body["scope"], body["state"]) == ("/hook", "shop", "recommended")
    assert body["changes"] == [f"{one['change']} {one['policy']}" for one in recommended]
    assert blocks["text"] == body["title"] == "Ringfence recommends 2 changes for scope shop"
    assert "added " in str(blocks["blocks"][1])
    await advised.report(passed=(3306, 8080))
    await advised.looked()
    await advised.report(passed=(9090,))
    await advised.looked()
    told = [body for path, _, body in await sent(receiver, 4) if path == "/hook"]
    assert [len(one["changes"]) for one in told] == [2, 1], "what was told is not told again"
    assert told[1]["changes"][0].startswith("added ")
    assert told[0]["id"] != told[1]["id"], "who drops what came twice gets both"
    assert len(receiver.got) == 4


async def test_the_command(advised: Advised) -> None:
    run = advised.world.run
    assert (await run("recommendations", "start", "nowhere"))[0] == FAILED
    assert (await run("recommendations", "show", "shop"))[0] == FAILED
    await advised.report(passed=(3306, 8080))
    words = ("recommendations", "start", "shop", "--window", "2h")
    code, _, said = await run(*words)
    assert (code, "scope shop is watched since" in said) == (OK, True)
    code, out, said = await run("recommendations", "show", "shop", "-o", "json")
    assert (code, '"changes"' in out) == (OK, True), said
    await advised.first_look()
    _, out, _ = await run("recommendations", "list")
    assert out.splitlines()[1].split()[:4] == ["shop", "1", "1", "0"]
    code, out, _ = await run("recommendations", "show", "shop")
    assert (code, out.splitlines()[0][:17]) == (OK, "for shop@p2, by 2"), out
    code, out, _ = await run("recommendations", "show", "shop", "-o", "yaml")
    assert (code, "kind: Workspace" in out, "front-to-db" in out) == (OK, True, True)
    assert (await run("recommendations", "accept", "shop", "7", "--yes"))[0] == USAGE
    code, out, _ = await run("recommendations", "accept", "shop", "all", "--dry-run")
    assert (code, "Workspace shop (p3): changed" in out, "- policy" in out) == (OK, True, False)
    code, out, _ = await run("recommendations", "accept", "shop", "all", "--yes")
    assert (code, "shop@p3 is made; it is not enforced yet" in out) == (OK, True)
    assert (await run("recommendations", "stop", "shop"))[0] == OK
    assert (await run("recommendations", "stop", "shop"))[0] == FAILED
