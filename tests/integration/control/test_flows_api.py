"""From agents' reports to flows, proposals and analysis, over real TLS, gRPC and HTTP."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pyarrow as pa
import pytest

from ringfence.cli.main import OK
from ringfence.control.ingest import PATIENCE_NS
from ringfence.model.flow import Observer
from ringfence.model.ids import ItemKey
from ringfence.model.protocol import UDP
from ringfence.model.workload import ItemKind
from ringfence.policy.design import split
from ringfence.policy.document import Documents, format_documents
from ringfence.wire import batch
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.world import (
    CARTS2,
    CARTS_IP,
    CLUSTER,
    DB,
    FRONT,
    ITEMS,
    NODE1,
    NODE2,
    SECOND,
    Agent,
    stream,
)

POD, NODE = Observer.POD, Observer.NODE


async def report(
    stub: ControlPlaneStub, agent: Agent, batch_id: str, end_ns: int | None = None
) -> bool:
    now_ns = end_ns or time.time_ns()
    flows = pa.Table.from_pylist(agent.flows, schema=batch.FLOWS)
    drops = pa.Table.from_pylist(agent.drops, schema=batch.DROPS)
    reply = await stub.Report(
        wire.Batch(
            id=batch_id,
            window_start_ns=now_ns - SECOND,
            window_end_ns=now_ns,
            flows=stream(flows),
            drops=stream(drops),
        )
    )
    return bool(reply.duplicate)


async def apply(world: World, documents: str) -> None:
    files = [{"name": "shop.yaml", "documents": documents}]
    await world.ok("POST", "/apply", json={"files": files})


def categories(answer: Any) -> dict[str, int]:
    return {name: count for name, count in answer["counts"].items() if count}


def through_service(now: dict[str, Any]) -> tuple[Agent, Agent]:
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), **now)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)), **now)
    two.saw(NODE, 2, FRONT, (CARTS2, 8080), **now)
    two.saw(POD, 9, FRONT, (CARTS2, 8080), **now)
    return one, two


async def test_reports_wait_for_the_first_inventory_and_get_its_names(world: World) -> None:
    node1 = await world.enrol("agent", "node1")
    # Seen while the pods were up and before the connector spoke for the first time.
    began = time.time_ns() - 30 * SECOND
    early = Agent("node1")
    early.saw(POD, 7, FRONT, (CARTS2, 8080), first_ns=began, last_ns=began + SECOND)
    with pytest.raises(grpc.aio.AioRpcError, match=r"inventory of .* is awaited") as caught:
        await report(node1, early, "early")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    long_up = [replace(item, since_ns=began - SECOND) for item in ITEMS]
    await publish(await world.enrol("connector", "c"), long_up)
    assert not await report(node1, early, "early")
    (flow,) = (await world.ok("GET", "/flows"))["items"]
    assert (flow["consumer"]["name"], flow["provider"]["name"]) == ("front-end-1", "carts-2")


async def test_a_cluster_without_a_connector_is_seen_in_the_end(world: World) -> None:
    node1, late = await world.enrol("agent", "node1"), Agent("node1")
    at = time.time_ns() - PATIENCE_NS
    late.saw(POD, 7, FRONT, (CARTS2, 8080), first_ns=at, last_ns=at)
    assert not await report(node1, late, "late", at)


async def test_a_window_waits_for_the_news_of_its_pods(
    start: Callable[..., Awaitable[World]],
) -> None:
    world = await start(clock=time.time_ns)
    connector, node1 = await world.enrol("connector", "c"), await world.enrol("agent", "node1")
    await publish(connector, ITEMS[:1])
    began, new = time.time_ns() - SECOND, Agent("node1")
    new.saw(POD, 7, FRONT, (CARTS2, 8080), first_ns=began, last_ns=began)
    reporting = asyncio.create_task(report(node1, new, "new"))
    await asyncio.sleep(0.5)
    await publish(connector, [replace(item, since_ns=began - SECOND) for item in ITEMS])
    assert not await reporting
    (flow,) = (await world.ok("GET", "/flows"))["items"]
    assert (flow["consumer"]["name"], flow["provider"]["name"]) == ("front-end-1", "carts-2")


async def test_from_reports_to_a_proposal_and_its_analysis(
    start: Callable[[], Awaitable[World]],
) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), ITEMS)
    agents = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    rtt = {"rtt_samples": 2, "rtt_sum_ns": 90, "rtt_min_ns": 40, "forward_retransmitted": 3}
    one, two = through_service(now | rtt)
    # What node2 saw alone looks like a direct connection; node1 puts that right later.
    assert not await report(agents["node2"], two, "node2-1", now["last_ns"])
    (flow,) = (await world.ok("GET", "/flows"))["items"]
    assert flow["service"] is None
    assert not await report(agents["node1"], one, "node1-1")
    assert await report(agents["node2"], two, "node2-1", now["last_ns"]), "a batch counts once"

    (flow,) = (await world.ok("GET", "/flows"))["items"]
    assert (flow["consumer"]["name"], flow["consumer"]["owner"]) == ("front-end-1", "front-end")
    assert (flow["provider"]["name"], flow["service"]["name"], flow["port"]) == (
        "carts",
        "carts",
        80,
    )
    assert (flow["opened"], flow["disposition"]) == (1, "passed")
    assert (flow["forward"]["flags"], flow["reverse"]["flags"]) == (["SYN"], ["SYN", "ACK"])
    assert (flow["forward"]["retransmitted"], flow["reverse"]["retransmitted"]) == (3, 0)
    assert flow["rtt"] == {"samples": 2, "min_ns": 40, "mean_ns": 45}
    (related,) = flow["related"]
    assert (related["provider"]["name"], related["port"]) == ("carts-2", 8080)
    query = {"filter": 'consumer.kubernetes.label.name = "carts"'}
    assert (await world.ok("GET", "/flows", params=query))["items"] == []
    bad = await world.http.get("/api/v1/flows", params={"filter": "port ~ 1"})
    assert bad.status_code == 422, bad.text

    await apply(world, format_documents(Documents(scopes=split(CLUSTER, ["sock-shop"]))))
    found = await world.ok("POST", "/discover", json={"scope": "sock-shop", "until": None})
    assert (found["summary"]["policies"], found["summary"]["noise"]) == (2, [])
    await apply(world, found["documents"])
    wanted = {"workspace": "sock-shop", "since": "1m"}
    answer = await world.ok("GET", "/analysis", params=wanted)
    assert categories(answer) == {"permitted": 1}
    (record,) = answer["records"]
    assert record["deciding"]["consumer"]["policy"] == "front-end-to-carts"
    assert record["flow"]["provider"]["name"] == "carts-2"

    intruder = Agent("node2")
    intruder.saw(POD, 9, CARTS2, (DB, 27017), **now)
    intruder.dropped(CARTS2, (DB, 3306))
    await report(agents["node2"], intruder, "node2-2")
    answer = await world.ok("GET", "/analysis", params=wanted)
    assert categories(answer) == {"permitted": 1, "escaped": 1, "rejected": 1}
    only = await world.ok("GET", "/analysis", params=wanted | {"category": "rejected"})
    (record,) = only["records"]
    assert (record["flow"]["port"], record["flow"]["disposition"]) == (3306, "dropped")
    assert record["deciding"]["consumer"]["stage"] == "catch-all"
    (denied,) = (await world.ok("GET", "/flows/denied"))["items"]
    assert (denied["provider"]["name"], denied["packets"]) == ("user-db-1", 3)
    assert denied["at"] == {"pod": "sock-shop/user-db-1"}

    again = await start()
    assert len((await again.ok("GET", "/flows"))["items"]) == 3, "flows outlive a restart"


async def test_a_flow_shows_its_tunnel_and_the_tunnel_what_it_carries(world: World) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    outside = (NODE1, (NODE2, 4789))
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), **now)
    one.saw(NODE, 5, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)), **now)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)), outside, **now)
    one.saw(NODE, 2, *outside, protocol=UDP, carries=1, **now)
    await report(await world.enrol("agent", "node1"), one, "node1-1")
    flows = {flow["port"]: flow for flow in (await world.ok("GET", "/flows"))["items"]}
    assert set(flows) == {80, 4789}
    hop, tunnel = flows[80]["related"]
    assert (hop["provider"]["name"], hop["carries"]) == ("carts-2", 0)
    assert (tunnel["consumer"]["name"], tunnel["provider"]["name"]) == ("node1", "node2")
    assert (tunnel["protocol"], tunnel["port"], tunnel["carries"]) == ("UDP", 4789, 1)
    assert (flows[4789]["carries"], flows[4789]["related"]) == (1, [])


async def test_what_was_dropped_is_told_with_its_policy_and_found_by_filter(world: World) -> None:
    (front, *_) = (one for one in ITEMS if one.kind is ItemKind.POD)
    late = replace(front, key=ItemKey(f"{front.key}-z"), name="a", addresses=())
    await publish(await world.enrol("connector", "c"), [*ITEMS, late])
    items = (await world.ok("GET", "/inventory"))["items"]
    places = [(one["kind"], one["namespace"], one["name"]) for one in items]
    assert places == sorted(places)
    node2 = Agent("node2")
    node2.dropped(CARTS2, (DB, 3306), rule="catch-all/sock-shop/p1")
    await report(await world.enrol("agent", "node2"), node2, "node2-1")
    (denied,) = (await world.ok("GET", "/flows/denied"))["items"]
    told = [denied[key] for key in ("source", "rule", "policy")]
    assert told == ["ringfence", "catch-all/sock-shop/p1", "sock-shop/catch-all@p1"]
    code, out, _ = await world.run("flows", "denied")
    heads, row = (re.split(" {2,}", line) for line in out.splitlines() if line)
    assert code == OK
    assert dict(zip(heads, row, strict=True)) == {
        "CONSUMER": "carts-2 (10.1.2.3)", "PROVIDER": "user-db-1 (10.1.2.4)", "PROTOCOL": "TCP",
        "PORT": "3306", "DROPPED": "inbound at pod sock-shop/user-db-1",
        "POLICY": "sock-shop/catch-all@p1", "PACKETS": "3",
    }  # fmt: skip
    for port, found in ((3306, 1), (80, 0)):
        query = {"filter": f"port = {port}"}
        assert len((await world.ok("GET", "/flows/denied", params=query))["items"]) == found
        query = {"filter": f'disposition = "dropped" and port = {port}'}
        flows = (await world.ok("GET", "/flows", params=query))["items"]
        assert [flow["disposition"] for flow in flows] == ["dropped"] * found
    bad = await world.http.get("/api/v1/flows/denied", params={"filter": "bytes > 1"})
    assert bad.status_code == 422
    assert "drops have no bytes" in bad.json()["detail"]
