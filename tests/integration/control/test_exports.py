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
from tests.integration.control.test_flows_api import report, through_service
from tests.integration.world import ITEMS


async def test_each_hop_goes_out_once_whoever_else_is_away(
    start: Callable[..., Awaitable[World]], tmp_path: Path
) -> None:
    path, missing = tmp_path / "flows.jsonl", tmp_path / "missing" / "flows.jsonl"
    world = await start(exports=tuple(parse_url(f"jsonl://{file}") for file in (path, missing)))
    await publish(await world.enrol("connector", "c"), ITEMS)
    agents = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    one, two = through_service(now)
    assert not await report(agents["node1"], one, "node1-1")
    assert not await report(agents["node2"], two, "node2-1")
    assert await report(agents["node1"], one, "node1-1"), "a batch that comes again"
    for _ in range(1000):
        counts = await metrics(world)
        if counts[f'ringfence_exported_records_total{{exporter="jsonl:{path}"}}'] == 2:
            break
        await asyncio.sleep(0.01)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["provider"]["name"], first["port"], first["original"]) == ("carts", 80, None)
    assert (second["provider"]["name"], second["original"]["provider"]["name"]) == (
        "carts-2",
        "carts",
    )
    assert counts[f'ringfence_export_up{{exporter="jsonl:{missing}"}}'] == 0
    assert counts[f'ringfence_export_queued_bytes{{exporter="jsonl:{path}"}}'] == 0
    assert (await world.http.get("/readyz")).is_success


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
