"""A report that comes minutes after its window is merged into what others told of it."""

import time
from dataclasses import replace
from typing import Any

from ringfence.model.flow import Observer
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import report
from tests.integration.world import CARTS2, CARTS_IP, FRONT, ITEMS, SECOND, Agent

POD, NODE = Observer.POD, Observer.NODE
FIVE_MINUTES = 300 * SECOND


async def test_the_consumers_report_comes_five_minutes_after_the_providers(
    world: World, clock: Clock
) -> None:
    window_end = time.time_ns()
    at: dict[str, Any] = {"first_ns": window_end - 2 * SECOND, "last_ns": window_end - SECOND}
    items = [replace(item, since_ns=window_end - 60 * SECOND) for item in ITEMS]
    await publish(await world.enrol("connector", "c"), items)
    agents = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    one, two = Agent("node1"), Agent("node2")
    through = (FRONT, (CARTS_IP, 80))
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), **at, opened=9, answered=8, forward_packets=70)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), through, **at, opened=8, forward_packets=60)
    two.saw(NODE, 2, FRONT, (CARTS2, 8080), **at, opened=7, forward_packets=50)
    two.saw(POD, 9, FRONT, (CARTS2, 8080), **at, opened=7, forward_packets=50)

    assert not await report(agents["node2"], two, "node2-1", window_end)
    (before,) = await flows(world)
    assert told(before) == ("front-end-1", "carts-2", 8080, 7, 50)
    assert (before["service"], before["related"]) == (None, [])

    clock.ahead_ns += FIVE_MINUTES
    assert not await report(agents["node1"], one, "node1-1", window_end)
    (after,) = await flows(world)
    assert told(after) == ("front-end-1", "carts", 80, 9, 70)
    assert after["service"]["name"] == "carts"
    (translated,) = after["related"]
    assert told(translated) == ("front-end-1", "carts-2", 8080, 8, 60)
    for since in ("10m", "7h"):  # the latter from the hourly roll-ups
        query = {"by": "consumer.name,dialled.name", "since": since}
        (top,) = (await world.ok("GET", "/flows/top", params=query))["items"]
        assert top["group"] == {"consumer.name": "front-end-1", "dialled.name": "carts"}
        assert (top["connections"], top["opened"]) == (1, 8), "of the last hop"


async def flows(world: World) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.ok("GET", "/flows", params={"since": "10m"}))[
        "items"
    ]
    return items


def told(hop: dict[str, Any]) -> tuple[str, str, int, int, int]:
    ends = hop["consumer"]["name"], hop["provider"]["name"]
    return *ends, hop["port"], hop["opened"], hop["forward"]["packets"]
