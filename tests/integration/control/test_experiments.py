"""What a version would have said to flows of the past, hour by hour."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ringfence.cli.main import FAILED, OK
from ringfence.control.times import format_time
from tests.integration.control.conftest import World
from tests.integration.control.test_analyses import HOUR, Watched, watched  # noqa: F401


async def ended(world: World, number: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(800):
        found = await world.ok("GET", f"/experiments/{number}")
        if found["state"] in ("done", "failed"):
            break
        await asyncio.sleep(0.1)
    return found


async def test_a_version_is_held_against_a_day_of_flows(
    watched: Watched,  # noqa: F811
    start: Callable[..., Awaitable[World]],
) -> None:
    world, now_ns = watched.world, watched.clock()
    for hours in range(20, 0, -8):
        await watched.report(passed=(3306, 22), end_ns=now_ns - hours * HOUR)
    await watched.report(dropped=(3307,), end_ns=now_ns - HOUR)
    await watched.report(passed=(99,), end_ns=now_ns - 40 * HOUR)
    body = {"workspace": "shop", "version": 1, "since": "1d"}
    begun = await world.ok("POST", "/experiments", json=body)
    found = await ended(world, begun["id"])
    # What is seen before the inventory knew anybody is of nobody.
    assert (found["state"], found["problem"]) == ("done", "")
    assert found["counts"] == {}
    await watched.report(passed=(3306, 22), dropped=(3307,))
    again = await ended(world, (await world.ok("POST", "/experiments", json=body))["id"])
    assert again["counts"] == {"permitted": 1, "escaped": 1, "rejected": 1}
    (edge,) = again["untoward"]
    assert (edge["category"], edge["consumer"], edge["port"]) == ("escaped", "shop/front", "22")
    assert edge["deciding"]["provider"]["policy"] is None
    hits = {one["policy"]: one["conversations"] for one in again["hits"]}
    assert hits == {"front-to-db": {"permitted": 1}, None: {"escaped": 1, "rejected": 1}}
    world = await start(report_interval_seconds=1)
    listed = (await world.ok("GET", "/experiments"))["items"]
    assert [one["id"] for one in listed] == [again["id"], found["id"]]
    assert listed[0]["counts"] == again["counts"]


async def test_it_tells_the_hours_that_it_judged(watched: Watched) -> None:  # noqa: F811
    first_ns = (watched.clock() // HOUR - 2) * HOUR
    span = {"since": format_time(first_ns + HOUR // 2), "until": format_time(first_ns + HOUR)}
    body = {"workspace": "shop", "version": 1, **span}
    begun = await watched.world.ok("POST", "/experiments", json=body)
    found = await ended(watched.world, begun["id"])
    assert (found["hours_done"], found["hours"]) == (1, 1)
    assert (found["since"], found["until"]) == (format_time(first_ns), format_time(first_ns + HOUR))
    body = {"workspace": "shop", "version": 1, "since": "1m"}
    begun = await watched.world.ok("POST", "/experiments", json=body)
    found = await ended(watched.world, begun["id"])
    assert found["hours"] == found["hours_done"] > 0
    assert ":00:00" in found["since"]


async def test_one_that_was_cut_short_begins_anew(
    watched: Watched,  # noqa: F811
    start: Callable[..., Awaitable[World]],
) -> None:
    await watched.report(passed=(3306,))
    body = {"workspace": "shop", "version": 2, "since": "90d"}
    begun = await watched.world.ok("POST", "/experiments", json=body)
    other = await watched.world.ok("POST", "/experiments", json={**body, "since": "1h"})
    for _ in range(50):
        state = await watched.world.ok("GET", f"/experiments/{begun['id']}")
        if state["hours_done"]:
            break
        await asyncio.sleep(0.05)
    assert (state["state"], state["hours"]) == ("running", 2161)
    world = await start(report_interval_seconds=1)
    assert (await world.ok("GET", f"/experiments/{begun['id']}"))["state"] in ("running", "waiting")
    assert (await world.http.delete(f"/api/v1/experiments/{begun['id']}")).is_success
    found = await ended(world, other["id"])
    assert found["counts"] == {"escaped": 1}


async def test_the_command_waits_and_lists(watched: Watched) -> None:  # noqa: F811
    await watched.report(passed=(3306, 22))
    run = watched.world.run
    code, out, said = await run("experiment", "shop@p1", "--since", "2h")
    assert (code, "escaped   shop/front  shop/db   TCP 22" in out) == (OK, True), out + said
    assert "front-to-db" in out
    code, out, _ = await run("experiments", "list")
    assert (code, out.splitlines()[1].split()[1]) == (OK, "shop@p1")
    assert (await run("experiments", "show", "1", "-o", "json"))[0] == OK
    assert (await run("experiments", "remove", "1"))[0] == OK
    assert (await run("experiments", "show", "1"))[0] == FAILED
