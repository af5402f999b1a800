"""Following flows live: news as reports arrive, once, also over a restart of the control plane."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ringfence.control.api import flow_watch
from ringfence.control.config import Listen
from tests.integration.control.conftest import COMMAND, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, report, through_service
from tests.integration.world import CARTS2, DB, FRONT, ITEMS, SECOND, Agent

WIDTH = 15 * SECOND
LONG_UP = [replace(item, since_ns=time.time_ns() - 600 * SECOND) for item in ITEMS]


def slot_start() -> int:
    """The beginning of the reporting interval before this one."""
    return (time.time_ns() // WIDTH - 1) * WIDTH


def within(start: int) -> dict[str, Any]:
    return {"first_ns": start + SECOND, "last_ns": start + 2 * SECOND}


def listeners(world: World) -> int:
    """Besides the control plane itself, which analyses all that arrives."""
    arrivals = world.plane.app.state.services.ingest.arrivals  # type: ignore[union-attr]
    return len(arrivals._listeners) - 1


async def until(holds: Callable[[], object]) -> None:
    for _ in range(600):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came")


@asynccontextmanager
async def watched(world: World, **query: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """The stream's next line, empty ones left out."""
    async with world.http.stream("GET", "/api/v1/flows/watch", params=query) as answer:
        lines = answer.aiter_lines()

        async def read() -> Any:
            async for line in lines:
                if line:
                    return json.loads(line)
            return None

        await anext(lines)
        yield read


async def test_what_is_reported_is_told_as_far_as_it_is_news(world: World) -> None:
    await publish(await world.enrol("connector", "c"), LONG_UP)
    stubs = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    start = slot_start()
    one, two = through_service(within(start))
    end = start + WIDTH
    async with watched(world, filter="port = 80") as read:
        await report(stubs["node1"], one, "one", end)
        line = await read()
        assert (line["flow"]["provider"]["name"], line["flow"]["opened"]) == ("carts", 1)
        assert line["start"] < line["flow"]["first"] < line["end"]
        # What says nothing new is not told: a batch that comes again, others' evidence of the same.
        assert await report(stubs["node1"], one, "one", end)
        await report(stubs["node2"], two, "two", end)
        again = Agent("node1")
        again.saw(POD, 7, FRONT, (CARTS2, 443), **within(start))
        again.saw(POD, 7, FRONT, (CARTS2, 80), **within(start))
        await report(stubs["node1"], again, "other port", end)
        line = await read()
        assert (line["flow"]["provider"]["name"], line["flow"]["port"]) == ("carts-2", 80)
        await report(stubs["node1"], one, "more", end)
        line = await read()
        assert (line["flow"]["provider"]["name"], line["flow"]["opened"]) == ("carts", 2)
    async with watched(world, since="2m", filter="port = 443") as read:
        assert (await read())["flow"]["port"] == 443
    await until(lambda: not listeners(world))
    bad = await world.http.get("/api/v1/flows/watch", params={"filter": "port ~ 1"})
    assert bad.status_code == 422


async def test_a_stream_ends_so_that_tokens_are_shown_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_watch, "_LIFE_SECONDS", 0)
    async with watched(world) as read:
        assert await read() is None


async def test_the_command_goes_on_after_a_restart(start: Callable[..., Awaitable[World]]) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), LONG_UP)
    began = slot_start()
    process = await asyncio.create_subprocess_exec(
        COMMAND, "flows", "watch", "-o", "jsonl", env={**os.environ, **world.context()},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        # Whoever runs the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(90):
            await until(lambda: listeners(world))
            lines: list[bytes] = []
            for port in (1, 2):
                agent = Agent("node1")
                agent.saw(POD, 7, FRONT, (DB, port), **within(began))
                stub = await world.enrol("agent", "node1")
                await report(stub, agent, f"batch {port}", began + WIDTH)
                # What became of the first one may be news again, with time.
                while not lines or json.loads(lines[-1])["flow"]["port"] != port:
                    lines.append(await process.stdout.readline())
                if port == 1:
                    world = await start(http_listen=Listen("127.0.0.1", world.plane.http_port))
            process.send_signal(signal.SIGINT)
            rest, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (len(lines), rest, process.returncode) == (len(set(lines)), b"", 0)
    assert said.decode().endswith("trying again\n")
