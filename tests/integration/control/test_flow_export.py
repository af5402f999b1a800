"""All flows of a time as files, through the API and the command, and streams that break off."""

import csv
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from ringfence.model.flow import Disposition
from ringfence.model.workload import ItemKind
from ringfence.store.flows.exported import EXPORTED, exported
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, report, through_service
from tests.integration.world import CARTS2, DB, FRONT, ITEMS, OUTSIDE, Agent

MANY = 40_000


def now() -> dict[str, Any]:
    return {"first_ns": time.time_ns(), "last_ns": time.time_ns()}


@pytest.fixture
async def seen(world: World) -> World:
    """A front end with a hostile name that calls a Service and the outside, and is dropped."""
    items = [
        replace(item, name='=cmd|"x"!A0') if item.name == "front-end-1" else item for item in ITEMS
    ]
    assert any(item.kind is ItemKind.POD and item.name.startswith("=") for item in items)
    await publish(await world.enrol("connector", "c"), items)
    one, two = through_service(now())
    shown: dict[str, Any] = {
        "reverse_retransmitted": 2,
        "rtt_samples": 2,
        "rtt_sum_ns": 40,
        "rtt_min_ns": 10,
    }
    one.saw(POD, 7, FRONT, (OUTSIDE, 443), forward_bytes=9000, **shown, **now())
    two.dropped(FRONT, (DB, 3306))
    for agent in (one, two):
        assert not await report(await world.enrol("agent", agent.node), agent, agent.node)
    return world


async def test_every_form_tells_the_same(seen: World, tmp_path: Path) -> None:
    code, out, said = await seen.run("flows", "export")
    assert (code, said) == (0, "")
    told = {row["port"]: row for row in map(json.loads, out.splitlines())}
    assert sorted(told) == [443, 3306, 8080]
    service = told[8080]
    assert (service["provider_name"], service["provider_workload"]) == ("carts-2", "carts")
    assert (service["service_name"], service["dialled_port"]) == ("carts", 80)
    assert service["consumer_labels"]["kubernetes.label.name"] == ["front-end"]
    assert (service["disposition"], service["opened"]) == ("passed", 1)
    assert (service["protocol"], service["method"]) == ("TCP", "syn")
    assert (service["forward_retransmitted"], service["rtt_samples"]) == (0, 0)
    assert service["rtt_mean_ns"] is None
    assert (told[443]["reverse_retransmitted"], told[443]["rtt_samples"]) == (2, 2)
    assert (told[443]["rtt_min_ns"], told[443]["rtt_mean_ns"]) == (10, 20)
    assert (told[3306]["disposition"], told[3306]["dropped"]) == ("dropped", 3)
    outside = told[443]
    assert (outside["provider_address"], outside["provider_name"]) == (OUTSIDE, None)
    assert outside["provider_labels"] == {"address.type": ["public"]}
    listed = {flow["connection"] for flow in (await seen.ok("GET", "/flows"))["items"]}
    assert {row["connection"] for row in told.values()} == listed

    file = tmp_path / "flows.parquet"
    code, out, said = await seen.run("flows", "export", "-o", "parquet", "--file", str(file))
    assert (code, out, said) == (0, "", "")
    table = pyarrow.parquet.read_table(file)
    rows = {row["port"]: row for row in table.to_pylist(maps_as_pydicts="strict")}
    for port, row in told.items():
        assert rows[port] | {"first": 0, "last": 0} == row | {"first": 0, "last": 0}
    assert not file.with_name("flows.parquet.partial").exists()

    answer = await seen.http.get("/api/v1/flows/export", params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    cells = {row["port"]: row for row in csv.DictReader(io.StringIO(answer.text, newline=""))}
    assert {row["consumer_name"] for row in cells.values()} == {'\'=cmd|"x"!A0'}
    assert json.loads(cells["8080"]["consumer_labels"]) == service["consumer_labels"]

    for filter_, ports in (
        ("port = 3306", {3306}),
        ('disposition = "dropped"', {3306}),
        ('disposition != "dropped"', {443, 8080}),
        ('port = 8080 or disposition in ("dropped", "pending")', {3306, 8080}),
        ('not (disposition = "passed" and port = 443 or port = 3306)', {8080}),
        ('disposition = "dropped" and port = 443', set()),
    ):
        _, out, _ = await seen.run("flows", "export", "-f", filter_)
        assert {json.loads(line)["port"] for line in out.splitlines()} == ports, filter_
    for wrong in ('disposition = "lost"', 'disposition matches "d.*"', "port ~ 1"):
        code, out, said = await seen.run("flows", "export", "-f", wrong)
        assert (code, out, said[:7]) == (3, "", "error: ")


@pytest.fixture
async def crowded(world: World) -> World:
    """More conversations than one part of a stream."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    stub = await world.enrol("agent", "node1")
    agent = Agent("node1")
    agent.saw(POD, 7, FRONT, (CARTS2, 1), **now())
    agent.flows = [agent.flows[0] | {"provider_port": port} for port in range(1, MANY + 1)]
    await report(stub, agent, "many")
    return world


async def test_a_stream_has_every_row_once(crowded: World) -> None:
    code, out, _ = await crowded.run("flows", "export")
    ports = [json.loads(line)["port"] for line in out.splitlines()]
    assert (code, sorted(ports)) == (0, list(range(1, MANY + 1)))


async def test_streams_that_nobody_reads_on_let_others_in(crowded: World) -> None:
    store = crowded.plane.app.state.services.flow_store  # type: ignore[union-attr]
    window = {"tenant": "default", "since": 0, "until": 2**62, "clusters": ["lab"], "agents": []}
    for _ in range(5):
        parts = store.streams.rows(exported(dict.fromkeys(Disposition, "true")), window, EXPORTED)
        assert len(await anext(parts)) < MANY
        await parts.aclose()
    (one,) = (await crowded.ok("GET", "/flows/top", params={"by": "protocol"}))["items"]
    assert one["connections"] == MANY


async def test_an_export_that_breaks_off_is_an_error_and_no_file(
    crowded: World, tmp_path: Path
) -> None:
    async with crowded.http.stream("GET", "/api/v1/flows/export") as answer:
        parts = answer.aiter_bytes()
        assert await anext(parts)
        await crowded.plane.stop()
        with pytest.raises(httpx.TransportError):
            async for _ in parts:
                pass
    file = tmp_path / "flows.jsonl"
    code, _, said = await crowded.run("flows", "export", "--file", str(file))
    assert (code, file.exists(), "cannot reach" in said) == (1, False, True)
