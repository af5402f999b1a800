"""Processes of flows' ends, from the agents' reports to every way to ask."""

import json
import time
from typing import Any

import pytest

from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import NODE, POD, report
from tests.integration.world import CARTS2, CARTS_IP, DB, FRONT, ITEMS, OUTSIDE, Agent

HOSTILE = "=a'\x1b[2J)\n"
"""Fifteen bytes at most, of any kind; agents make UTF-8 of them."""


def held(end: str, name: str, pid: int, container: str) -> dict[str, Any]:
    return {f"{end}_process": name, f"{end}_pid": pid, f"{end}_container": container}


@pytest.fixture
async def seen(world: World) -> World:
    """node1's agent knows the consumer's processes alone, node2's the provider's."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    node, init = held("consumer", "node", 71, "front-end"), held("consumer", "sh", 9, "init")
    java = held("provider", HOSTILE, 4_000_000, "carts")
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), **now, **node)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)), **now, **node)
    two.saw(NODE, 2, FRONT, (CARTS2, 8080), **now, **java)
    two.saw(POD, 8, FRONT, (CARTS2, 8080), **now, **java)
    one.saw(POD, 7, FRONT, (OUTSIDE, 443), **now, **node)
    one.saw(POD, 7, FRONT, (OUTSIDE, 443), **now, **init)
    one.saw(POD, 7, FRONT, (DB, 3306), **now)
    for agent in (one, two):
        assert not await report(await world.enrol("agent", agent.node), agent, agent.node)
    return world


async def test_an_end_has_the_process_that_any_observer_knows(seen: World) -> None:
    flows = {flow["port"]: flow for flow in (await seen.ok("GET", "/flows"))["items"]}
    node = {"name": "node", "pid": 71, "container": "front-end"}
    dialled, (reached,) = flows[80], flows[80]["related"]
    assert (dialled["consumer"]["process"], dialled["provider"]["process"]) == (node, None)
    assert (reached["consumer"]["process"], reached["provider"]["process"]) == (
        node, {"name": HOSTILE, "pid": 4_000_000, "container": "carts"},
    )  # fmt: skip
    assert flows[3306]["consumer"]["process"] is None
    # Of two the whole of one: that with the lowest PID.
    lowest = {"name": "sh", "pid": 9, "container": "init"}
    assert flows[443]["consumer"]["process"] == lowest

    (path,) = (await seen.ok("GET", "/flows/related", params={"filter": "port = 80"}))["items"]
    told = [(hop["port"], hop["consumer"]["process"], hop["provider"]["process"] is not None)
            for hop in path["hops"]]  # fmt: skip
    assert told == [(80, node, False), (8080, node, True)]


FILTERS = {
    'process.name = "node"': {80},
    'consumer.process.name in ("node", "sh")': {80, 443},
    'provider.process.name = "node"': set(),
    'provider.process.container = "carts" and consumer.process.pid = 71': {80},
    'process.name contains "[2J)"': {80},
    'process.name matches "n.de|s"': {80},
    'process.name matches "no"': set(),
    "process.pid > 71": {80},
    "process.pid < 100000": {80, 443},
    "not process.name exists": {3306},
    'consumer.process.name != "node"': {443, 3306},
    'process.name = "x\') OR (1=1"': set(),
}


async def test_processes_are_labels_of_their_end(seen: World) -> None:
    for written, ports in FILTERS.items():
        answer = await seen.ok("GET", "/flows", params={"filter": written})
        assert {flow["port"] for flow in answer["items"]} == ports, written
        _, out, _ = await seen.run("flows", "export", "--filter", written)
        exported = {row["dialled_port"] for row in map(json.loads, out.splitlines())}
        assert exported == ports, written


async def test_a_key_that_says_nothing_of_processes_is_refused(seen: World) -> None:
    for path, query, said in (
        ("flows", {"filter": 'process.nam = "x"'}, "did you mean process.name?"),
        ("flows", {"filter": "process.name > 1"}, "= != in contains matches"),
        ("flows", {"filter": 'process.name matches "(?=x)"'}, "RE2"),
        ("flows", {"filter": 'process.pid = "x"'}, "is a number"),
        ("flows/denied", {"filter": 'process.name = "x"'}, "drops have no process.name"),
        ("flows/top", {"by": "dialled.process.name"}, "no key 'dialled.process.name'"),
        ("inventory", {"filter": 'process.name = "x"'}, "no key 'process.name'"),
    ):
        answer = await seen.http.get(f"/api/v1/{path}", params=query)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text


async def test_flows_are_added_up_by_process_by_the_hour_too(seen: World) -> None:
    keys = ["consumer.process.name", "consumer.process.pid", "provider.process.container", "port"]
    for since in ("5m", "6h"):
        query = {"by": ",".join(keys), "since": since}
        answer = await seen.ok("GET", "/flows/top", params=query)
        assert {tuple(item["group"].values()) for item in answer["items"]} == {
            ("node", 71, "carts", 8080),
            ("sh", 9, None, 443),
            (None, None, None, 3306),
        }, since
        assert all(item["outside"] == {} for item in answer["items"])


async def test_no_name_breaks_out_of_what_is_printed(seen: World) -> None:
    _, table, _ = await seen.run("flows", "list", "-o", "wide", "-f", "port = 80")
    assert "node[71] in front-end" in table
    assert "=a'�[2J)�[4000000] in carts" in table
    _, cells, _ = await seen.run("flows", "list", "-o", "csv", "-f", "port = 80")
    assert "'=a'" in cells
    _, path, _ = await seen.run("flows", "related", FRONT, CARTS2)
    assert "provider is =a'�[2J)�[4000000] in carts" in path
    _, cells, _ = await seen.run("flows", "export", "-o", "csv", "-f", "port = 80")
    assert "'=a'" in cells
    _, out, _ = await seen.run("flows", "export", "-f", "port = 80")
    row = json.loads(out)
    assert [row[f"provider_{what}"] for what in ("process", "pid", "container")] == [
        HOSTILE, 4_000_000, "carts",
    ]  # fmt: skip
    _, out, _ = await seen.run("flows", "export", "-f", "port = 3306")
    assert [json.loads(out)[f"consumer_{what}"] for what in ("process", "pid", "container")] == [
        None
    ] * 3
