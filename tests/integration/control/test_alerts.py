"""Alerts of what is enforced: one for a cause, and nobody misses one."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.main import FAILED, FOUND, OK, USAGE
from ringfence.control import alert_delivery
from ringfence.control.alert_delivery import MOST_MESSAGES
from ringfence.control.alerts import RETURN_NS, SILENCE_NS
from ringfence.control.continuous import KEPT_NS
from ringfence.model.flow import Observer
from ringfence.model.workload import ItemKind
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_analyses import Watched, watched  # noqa: F401
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import report
from tests.integration.export.test_alert_sinks import SECRET, Receiver, receiver  # noqa: F401
from tests.integration.world import SECOND, Agent
from tests.unit.control.shop import DB, FRONT, NODE, item

Row = dict[str, Any]


async def alerts(world: World, wanted: int, **query: Any) -> list[Row]:
    """The open alerts, once there are so many."""
    found: list[Row] = []
    for _ in range(100):
        found = (await world.ok("GET", "/alerts", params=query))["items"]
        if len(found) == wanted:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(found)


async def sent(receiver: Receiver, wanted: int) -> list[Any]:  # noqa: F811
    for _ in range(300):
        if len(receiver.got) >= wanted:
            break
        await asyncio.sleep(0.1)
    return [*receiver.got]


async def told(receiver: Receiver, wanted: int) -> list[str]:  # noqa: F811
    got = await sent(receiver, wanted)
    return [f"{body['state']} {body['category']} {body['port']}" for _, _, body in got]


async def test_one_cause_is_one_alert_until_it_is_silent(
    watched: Watched,  # noqa: F811
    receiver: Receiver,  # noqa: F811
) -> None:
    world = watched.world
    url = f"webhook+http://{receiver.url}/"
    await world.ok("POST", "/alert-sinks", json={"name": "ops", "url": url, "secret": SECRET})
    await watched.report(passed=(22,))
    await watched.enforce(1)
    await watched.report(passed=(3306, 4444), dropped=())
    (one,) = await alerts(world, 1)
    assert {k: one[k] for k in ("state", "category", "consumer", "provider", "port")} == {
        "state": "opened", "category": "escaped", "consumer": "shop/front",
        "provider": "shop/db", "port": "4444",
    }  # fmt: skip
    assert one["decided_by"] == ["ALLOW shop/catch-all@p1", "DENY shop/catch-all@p1"]
    assert await told(receiver, 1) == ["opened escaped 4444"]
    await watched.report(passed=(4444,), dropped=(3306,))
    both = {row["category"]: row for row in await alerts(world, 2)}
    assert both["misdropped"]["port"] == "3306"
    for _ in range(100):
        if both["escaped"]["conversations"] == 2:
            break
        await asyncio.sleep(0.1)
        both = {row["category"]: row for row in await alerts(world, 2)}
    assert (both["escaped"]["id"], both["escaped"]["conversations"]) == (one["id"], 2)
    watched.clock.ahead_ns += SILENCE_NS
    await watched.report(passed=(3306,))
    assert await alerts(world, 0) == []
    notices = await told(receiver, 4)
    assert sorted(notices) == [
        "opened escaped 4444", "opened misdropped 3306",
        "resolved escaped 4444", "resolved misdropped 3306",
    ]  # fmt: skip
    assert {row["state"] for row in await alerts(world, 2, since="1h")} == {"resolved"}


async def test_replicas_and_unknown_hosts_outside_are_one_cause(
    watched: Watched,  # noqa: F811
) -> None:
    world = watched.world
    second = replace(item(ItemKind.POD, "front-2", "10.0.0.3"), workload_name="front")
    await publish(await world.enrol("connector", "c2"), [NODE, FRONT, DB, second])
    await watched.enforce(1)
    end_ns, agent = watched.clock.end_window(), Agent("n1")
    at: dict[str, Any] = {"first_ns": end_ns - SECOND // 2, "last_ns": end_ns - SECOND // 4}
    for consumer in ("10.0.0.1", "10.0.0.3", "198.51.100.7", "203.0.113.8"):
        agent.saw(Observer.POD, 7, consumer, ("10.0.0.2", 4444), **at)
    assert not await report(watched.stub, agent, "several", end_ns)
    told = {row["consumer"]: row["conversations"] for row in await alerts(world, 2)}
    assert told == {"shop/front": 2, "outside": 2}


async def test_what_an_agent_tells_late_opens_an_alert_and_old_ones_are_forgotten(
    watched: Watched,  # noqa: F811
) -> None:
    world = watched.world
    await watched.enforce(1)
    late_ns = watched.clock.end_window()
    watched.clock.ahead_ns += 4 * SILENCE_NS
    await watched.report(passed=(4444,), end_ns=late_ns)
    (one,) = await alerts(world, 1)
    watched.clock.ahead_ns += SILENCE_NS + 60 * SECOND
    await watched.report(passed=(3306,))
    assert await alerts(world, 0) == []
    assert [row["id"] for row in await alerts(world, 1, since="1d")] == [one["id"]]
    watched.clock.ahead_ns += KEPT_NS + 60 * SECOND
    await watched.report(passed=(5555,))
    await alerts(world, 1)
    assert [row["port"] for row in await alerts(world, 1, since="365d")] == ["5555"]


async def test_silence_goes_on_over_a_restart(
    start: Callable[..., Awaitable[World]], clock: Clock
) -> None:
    clock.ahead_ns -= 4 * SILENCE_NS  # certificates are looked at by the machine's clock
    made = Watched(await start(report_interval_seconds=1), clock)
    await made.begin()
    await made.enforce(1)
    late_ns = clock.end_window()
    clock.ahead_ns += 2 * SILENCE_NS
    await made.report(passed=(4444,), end_ns=late_ns)  # happened long ago, told of now
    (one,) = await alerts(made.world, 1)
    clock.ahead_ns += SILENCE_NS - 60 * SECOND
    world = await start(report_interval_seconds=1)
    kept = world.plane.app.state.services.promotions._alerts  # type: ignore[union-attr]
    clock.ahead_ns += 120 * SECOND  # silent for long enough, but agents may yet come back
    await kept._renew()
    assert [row["id"] for row in await alerts(world, 1)] == [one["id"]]
    clock.ahead_ns += RETURN_NS
    await kept._renew()
    assert await alerts(world, 0) == []


async def test_a_notice_waits_for_its_sink_over_a_restart(
    start: Callable[..., Awaitable[World]],
    clock: Clock,
    receiver: Receiver,  # noqa: F811
) -> None:
    made = Watched(await start(report_interval_seconds=1), clock)
    await made.begin()
    body = {"name": "ops", "url": f"webhook+http://{receiver.url}/", "secret": SECRET}
    await made.world.ok("POST", "/alert-sinks", json=body)
    receiver.status = 503
    await made.enforce(1)
    await made.report(passed=(4444,))
    await alerts(made.world, 1)
    assert await told(receiver, 1)
    (sink,) = (await made.world.ok("GET", "/alert-sinks"))["items"]
    assert "503" in sink["problem"]
    world = await start(report_interval_seconds=1)
    receiver.got.clear()
    receiver.status = 200
    assert await told(receiver, 1) == ["opened escaped 4444"]
    for _ in range(50):
        (sink,) = (await world.ok("GET", "/alert-sinks"))["items"]
        if not sink["problem"]:
            break
        await asyncio.sleep(0.1)
    assert not sink["problem"]
    assert len(receiver.got) == 1


async def test_a_flood_of_alerts_is_few_messages_with_all_of_them(
    watched: Watched,  # noqa: F811
    receiver: Receiver,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alert_delivery, "WINDOW_SECONDS", 15.0)
    body = {"name": "ops", "url": f"webhook+http://{receiver.url}/"}
    await watched.world.ok("POST", "/alert-sinks", json=body)
    await watched.enforce(1)
    flood = range(5001, 5001 + MOST_MESSAGES + 37)
    await watched.report(passed=tuple(flood))
    bodies = [body for _, _, body in await sent(receiver, MOST_MESSAGES)]
    assert bodies[-1]["title"].endswith("and 37 more")
    every = [*bodies, *bodies[-1]["more"]]
    assert sorted(int(one["port"]) for one in every) == [*flood]
    await watched.report(passed=(6001,))
    assert [one["port"] for _, _, one in await sent(receiver, MOST_MESSAGES + 1)][-1] == "6001"


async def test_the_database_has_secrets_sealed_for_their_own_sinks(
    start: Callable[..., Awaitable[World]],
    receiver: Receiver,  # noqa: F811
) -> None:
    world = await start()
    body = {"name": "ops", "url": f"webhook+http://{receiver.url}/", "secret": SECRET}
    await world.ok("POST", "/alert-sinks", json=body)
    await world.ok("POST", "/alert-sinks", json=body | {"name": "plain"})
    held = {row["name"]: row["secret"] for row in rows(world, "SELECT * FROM alert_sinks")}
    assert all(secret and SECRET not in secret for secret in held.values())
    assert held["ops"] != held["plain"]
    assert (world.data_dir / "secrets.key").stat().st_mode & 0o777 == 0o600
    moved = "UPDATE alert_sinks SET url = url || 'elsewhere' WHERE name = 'ops'"
    rows(world, moved)
    world = await start()
    assert (await world.ok("POST", "/alert-sinks/plain/test"))["problem"] == ""
    ((_, headers, _),) = receiver.got
    assert headers["authorization"] == f"Bearer {SECRET}"
    problem = (await world.ok("POST", "/alert-sinks/ops/test"))["problem"]
    assert ("add the sink anew" in problem, len(receiver.got)) == (True, 1)


def rows(world: World, statement: str) -> list[Row]:
    with closing(sqlite3.connect(world.data_dir / "control.db")) as database, database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(statement)]


async def test_the_command_keeps_secrets(
    watched: Watched,  # noqa: F811
    receiver: Receiver,  # noqa: F811
    tmp_path: Path,
) -> None:
    world, file = watched.world, tmp_path / "secret"
    file.write_text(f"http://{receiver.url}/{SECRET}\n")
    words = ("alerts", "sink")
    assert (await world.run(*words, "add", "ops", "slack:", "--secret-file", str(file)))[0] == OK
    code, _, said = await world.run(*words, "test", "ops")
    assert (code, len(receiver.got)) == (OK, 1), said
    ((_, _, message),) = receiver.got
    assert ("this is a test" in str(message), "nobody" in str(message)) == (True, False)
    code, _, said = await world.run(*words, "add", "ops", "slack:", "--secret-file", str(file))
    assert (code, "ops was there already, and is changed" in said) == (OK, True)
    receiver.status = 400
    code, _, said = await world.run(*words, "test", "ops")
    assert (code, "it answered 400" in said, SECRET in said) == (FAILED, True, False)
    code, out, _ = await world.run(*words, "list", "-o", "json")
    assert (code, '"has_secret": true' in out, SECRET in out) == (OK, True, False)
    trail = await world.ok("GET", "/changes")
    assert SECRET not in str(trail)
    code, _, said = await world.run(*words, "add", "bad", "gopher://x")
    assert (code, "begin with one of" in said) == (USAGE, True)
    code, _, said = await world.run(*words, "add", "bad", "kafka://h:9092")
    assert (code, said) == (
        USAGE,
        "error: alert sink kafka://h:9092: write kafka://HOST:PORT/TOPIC\n",
    )
    assert (await world.run(*words, "remove", "ops"))[0] == OK
    assert (await world.run(*words, "remove", "ops"))[0] == FAILED
    assert (await world.run("alerts", "list"))[0] == OK
    await watched.enforce(1)
    await watched.report(passed=(4444,))
    await alerts(world, 1)
    code, out, _ = await world.run("alerts", "list")
    assert (code, "shop/front" in out) == (FOUND, True)
