"""What `discover` says beside a workspace that a scope has already."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ringfence.cli.main import OK, USAGE
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_analyses import HOUR, Watched
from tests.integration.world import SECOND
from tests.unit.control.shop import DOCUMENTS

MORE = """
  - id: front-to-db-again
    action: ALLOW
    consumer: {filter: 'name = "front"'}
    provider: {filter: 'name = "db"'}
    protocol: TCP
    ports: [3306, 5432]
  - id: nobody-to-db
    action: ALLOW
    consumer: {filter: 'name = "nobody"'}
    provider: {filter: 'name = "db"'}
    protocol: TCP
    ports: [9042]
"""
DAY = 24 * HOUR


def file(documents: str) -> dict[str, Any]:
    return {"files": [{"name": "shop.yaml", "documents": documents}]}


@pytest.fixture
async def shop(start: Callable[..., Awaitable[World]], clock: Clock) -> Watched:
    """A scope whose workspace has a second policy for the same, and one for nobody."""
    made = Watched(await start(report_interval_seconds=1), clock)
    await made.begin()
    await made.world.ok("POST", "/apply", json=file(DOCUMENTS.rstrip() + MORE))
    clock.ahead_ns += 10 * SECOND
    return made


async def discovered(world: World, **more: Any) -> Any:
    return await world.ok("POST", "/discover", json={"scope": "shop", "every_edge": True, **more})


async def uses(world: World, **more: Any) -> dict[str, tuple[int, str]]:
    told = (await discovered(world, **more))["report"]["approved"]
    return {one["policy"]: (one["conversations"], one["note"]) for one in told}


async def test_each_approved_policy_is_told_with_its_use(shop: Watched) -> None:
    await shop.report(passed=(3306,))
    await shop.report(passed=(3306,))
    told = await uses(shop.world)
    assert told == {
        "front-to-db": (2, ""),
        "front-to-db-again": (
            0,
            "covered: 2 conversations of its own were decided by front-to-db before it",
        ),
        "nobody-to-db": (0, "no traffic for less than a minute, all that is known"),
    }
    answer = await discovered(shop.world)
    changes = {one["policy"]: one["change"] for one in answer["summary"]["changes"]}
    assert changes == {"front-to-db-again": "now unused", "nobody-to-db": "now unused"}, (
        "what is written in another way is neither new nor of no use"
    )
    assert answer["report"]["workspace"]["name"] == "shop"
    assert (await discovered(shop.world, anew=True))["report"]["approved"] == []


async def test_the_enforced_version_is_the_approved_one(shop: Watched) -> None:
    await shop.enforce(1)
    await shop.report(passed=(3306, 3308))
    assert await uses(shop.world) == {"front-to-db": (1, "")}
    changes = (await discovered(shop.world))["summary"]["changes"]
    assert [one["change"] for one in changes] == ["added"]
    assert changes[0]["conversations"] == 2


async def test_nothing_is_unused_for_longer_than_it_stands_or_was_watched(shop: Watched) -> None:
    await shop.enforce(3)
    await shop.report(passed=(3306,))
    await shop.until({3: {"permitted": 1}})
    shop.clock.ahead_ns += 31 * DAY
    await shop.report(passed=(22,))
    told = await uses(shop.world)
    assert told["front-to-db"] == (0, "no traffic for 31 days")
    assert told["nobody-to-db"] == (0, "no traffic for 31 days, all that is known")
    newer = DOCUMENTS.rstrip() + MORE.replace("9042", "9043")
    await shop.world.ok("POST", "/apply", json=file(newer))
    await shop.enforce(4)
    shop.clock.ahead_ns += 12 * DAY
    await shop.report(passed=(22,))
    told = await uses(shop.world, since="13d")
    assert told["nobody-to-db"] == (0, "never since it was made 12 days ago")
    assert told["front-to-db"] == (0, "no traffic for 43 days")
    shop.clock.ahead_ns += DAY
    await shop.enforce(2)
    shop.clock.ahead_ns += DAY
    await shop.enforce(4)
    await shop.report(passed=(22,))
    told = await uses(shop.world)
    assert told["front-to-db"][1] == "no traffic for less than a minute", "nobody looked meanwhile"


async def test_the_command_tells_what_differs(shop: Watched) -> None:
    await shop.enforce(3)
    await shop.report(passed=(3306,))
    await shop.until({3: {"permitted": 1}})
    run = shop.world.run
    code, out, said = await run("discover", "shop", "-o", "table")
    assert code == OK
    assert "now unused: front-to-db-again (covered: 1 conversation of its own" in said
    (row,) = (line.split() for line in out.splitlines() if line.startswith("front-to-db "))
    assert row[1] == "1"
    code, out, said = await run("discover", "shop", "--anew", "-o", "json")
    assert (code, json.loads(out)["approved"], "now unused" in said) == (OK, [], False)
    assert (await run("discover", "shop", "--anew", "--approved", "/dev/null"))[0] == USAGE
