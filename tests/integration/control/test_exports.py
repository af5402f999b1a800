"""What agents report leaves through exporters: once, and without a thought for those away."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ringfence.cli.main import USAGE
from ringfence.export.url import parse_url
from tests.integration.control.conftest import COMMAND, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import NODE, POD, report, through_service
from tests.integration.world import (
    CARTS2,
    FRONT,
    ITEMS,
    NODE1,
    NODE2,
    OUTSIDE,
    Agent,
)

Tuple = tuple[str, str, int, int]


def seen(now: dict[str, Any]) -> tuple[Agent, Agent]:
    """What two nodes see: through a Service, a NodePort of each kind, out, and past one node."""
    one, two = through_service(now)
    one.saw(POD, 7, FRONT, (OUTSIDE, 666), forward_packets=11, **now)
    one.saw(NODE, 2, NODE1, (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)), forward_packets=12, **now)
    one.saw(NODE, 2, OUTSIDE, (NODE1, 31095), forward_packets=13, **now)
    masqueraded = (OUTSIDE, (NODE1, 31095))
    one.saw(NODE, 2, NODE1, (CARTS2, 8080), masqueraded, forward_packets=14, **now)
    two.saw(NODE, 2, NODE1, (CARTS2, 8080), forward_packets=15, **now)
    two.saw(POD, 9, NODE1, (CARTS2, 8080), forward_packets=16, **now)
    two.saw(NODE, 2, OUTSIDE, (NODE2, 31096), forward_packets=17, **now)
    local = (OUTSIDE, (NODE2, 31096))
    two.saw(POD, 9, OUTSIDE, (CARTS2, 8080), local, forward_packets=18, **now)
    two.saw(NODE, 2, OUTSIDE, (FRONT, 8079), forward_packets=19, **now)
    one.saw(NODE, 2, OUTSIDE, (FRONT, 8079), forward_packets=20, **now)
    one.saw(POD, 7, OUTSIDE, (FRONT, 8079), forward_packets=21, **now)
    return one, two


async def test_what_goes_out_is_what_the_flows_are_whoever_else_is_away(
    start: Callable[..., Awaitable[World]], tmp_path: Path
) -> None:
    path, missing = tmp_path / "flows.jsonl", tmp_path / "missing" / "flows.jsonl"
    world = await start(exports=tuple(parse_url(f"jsonl://{file}") for file in (path, missing)))
    await publish(await world.enrol("connector", "c"), ITEMS)
    agents = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    for name, stub in agents.items():
        assert not await report(stub, Agent(name), f"{name}-0")
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    one, two = seen(now)
    assert not await report(agents["node2"], two, "node2-1")
    assert not await report(agents["node1"], one, "node1-1", now["last_ns"])
    assert await report(agents["node1"], one, "node1-1", now["last_ns"]), "a batch that comes again"
    listed = [
        hop
        for flow in (await world.ok("GET", "/flows"))["items"]
        for hop in (flow, *flow["related"])
    ]
    counts = await metrics(world)
    for _ in range(1000):
        if counts[f'ringfence_exported_records_total{{exporter="jsonl:{path}"}}'] == len(listed):
            break
        await asyncio.sleep(0.01)
        counts = await metrics(world)
    exported = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(exported) == 9
    assert sorted(map(told, exported)) == sorted(map(told, listed))
    (via_service,) = (
        hop for hop in exported if (hop["consumer"]["name"], hop["port"]) == ("front-end-1", 8080)
    )
    assert via_service["provider"]["name"] == "carts-2"
    assert via_service["original"]["provider"]["name"] == "carts"
    assert counts[f'ringfence_export_up{{exporter="jsonl:{missing}"}}'] == 0
    assert counts[f'ringfence_export_queued_bytes{{exporter="jsonl:{path}"}}'] == 0
    assert (await world.http.get("/readyz")).is_success


def told(hop: dict[str, Any]) -> Tuple:
    ends = hop["consumer"]["address"], hop["provider"]["address"]
    return *ends, hop["port"], hop["forward"]["packets"]


async def test_a_url_that_means_nothing_ends_the_start_before_anything_is_made(
    tmp_path: Path,
) -> None:
    made = tmp_path / "data"
    process = await asyncio.create_subprocess_exec(
        COMMAND, "server", "--data-dir", made, "--export", "jsonl:-", "--export", "kafka://host",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == USAGE
    assert said.decode() == "error: export kafka://host: write kafka://HOST:PORT/TOPIC\n"
    assert not made.exists()


async def metrics(world: World) -> dict[str, float]:
    text = (await world.http.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}
