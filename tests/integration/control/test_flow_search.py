"""Searching flows through the API and the command, over a real store."""

import json
import subprocess
import threading
import time
from typing import Any

import pytest
from pydantic import BaseModel

from ringfence.control.api import flow_search
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, report, through_service
from tests.integration.world import CARTS2, DB, FRONT, ITEMS, OUTSIDE, SECOND, Agent


def now() -> dict[str, Any]:
    return {"first_ns": time.time_ns(), "last_ns": time.time_ns()}


@pytest.fixture
async def seen(world: World) -> World:
    """A front end that calls a Service and the outside, and is dropped at a database."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    one, two = through_service(now())
    one.saw(POD, 7, FRONT, (OUTSIDE, 443), forward_bytes=9000, **now())
    two.dropped(FRONT, (DB, 3306))
    for agent in (one, two):
        assert not await report(await world.enrol("agent", agent.node), agent, agent.node)
    return world


async def test_the_greatest_groups(seen: World) -> None:
    answer = await seen.ok("GET", "/flows/top", params={"limit": 2})
    assert answer["total"] == 3
    outside, shop = answer["items"]
    assert outside["group"] == {
        "consumer.workload": "sock-shop/front-end", "provider.workload": None, "port": 443
    }  # fmt: skip
    assert (outside["outside"], outside["forward"]["bytes"]) == ({"provider": OUTSIDE}, 9000)
    assert (shop["group"]["provider.workload"], shop["group"]["port"]) == ("sock-shop/carts", 8080)
    assert (shop["connections"], shop["opened"], shop["outside"]) == (1, 1, {})
    query = {"by": "provider.kubernetes.label.name", "sort": "dropped", "outside": "merged"}
    first, *_ = (await seen.ok("GET", "/flows/top", params=query))["items"]
    assert (first["group"], first["dropped"]) == ({"provider.kubernetes.label.name": "user-db"}, 3)
    query = {"by": "protocol", "filter": 'disposition = "dropped"'}
    (only,) = (await seen.ok("GET", "/flows/top", params=query))["items"]
    assert (only["group"], only["dropped"]) == ({"protocol": "TCP"}, 3)
    query = {"by": "dialled.name,dialled_port,port", "filter": 'provider.kind = "service"'}
    (only,) = (await seen.ok("GET", "/flows/top", params=query))["items"]
    assert only["group"] == {"dialled.name": "carts", "dialled_port": 80, "port": 8080}
    bad = await seen.http.get("/api/v1/flows/top", params={"by": "consumer.colour"})
    assert (bad.status_code, "no key 'consumer.colour'" in bad.json()["detail"]) == (422, True)


async def test_answers_are_made_beside_the_event_loop(
    seen: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    encode = BaseModel.model_dump_json

    def watched(self: BaseModel) -> str:
        threads.append(threading.current_thread())
        return encode(self)

    monkeypatch.setattr(BaseModel, "model_dump_json", watched)
    for path in ("flows", "flows/top", "flows/graph"):
        await seen.ok("GET", f"/{path}", params={"limit": 1_000})
    assert len(threads) == 3
    assert threading.current_thread() not in threads
    bad = await seen.http.get("/api/v1/flows", params={"limit": 1_001})
    assert bad.status_code == 422


async def test_dispositions_of_too_many_flows_are_refused(
    seen: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"filter": 'disposition = "dropped"'}
    await seen.ok("GET", "/flows", params=query)
    monkeypatch.setattr(flow_search, "_MOST_HOPS", 3)
    bad = await seen.http.get("/api/v1/flows", params=query)
    assert (bad.status_code, "take a shorter time" in bad.json()["detail"]) == (422, True)


async def test_long_ranges_are_added_up_from_whole_hours(seen: World) -> None:
    query = {"by": "consumer.workload,provider.workload,port", "sort": "bytes"}
    short = await seen.ok("GET", "/flows/top", params=query | {"since": "5h"})
    long = await seen.ok("GET", "/flows/top", params=query | {"since": "6h"})
    assert long["items"] == short["items"]
    assert all(long[end].endswith(":00:00.000Z") for end in ("since", "until"))
    assert long["since"] < short["since"]
    assert long["until"] > short["until"]
    drawn = await seen.ok("GET", "/flows/graph", params={"since": "1d"})
    assert drawn["edges"] == (await seen.ok("GET", "/flows/graph"))["edges"]


async def test_every_way_to_search_is_described(world: World) -> None:
    paths = (await world.ok("GET", "/openapi.json"))["paths"]
    words = ("", "/denied", "/top", "/graph", "/related", "/export", "/watch")
    assert {f"/api/v1/flows{word}" for word in words} <= set(paths)


async def test_top_as_the_command_prints_it(seen: World) -> None:
    code, out, said = await seen.run("flows", "top", "--merge-outside", "--limit", "2")
    heading, first, second = out.splitlines()
    assert (code, said) == (0, "2 of 3 groups; more with --limit\n")
    assert heading.split()[:4] == ["consumer.workload", "provider.workload", "protocol", "port"]
    assert first.split()[:5] == ["sock-shop/front-end", "outside", "TCP", "443", "1"]
    assert second.split()[:5] == ["sock-shop/front-end", "sock-shop/carts", "TCP", "8080", "1"]


def read_dot(drawn: str) -> Any:
    """The graph as Graphviz understands it."""
    command = ["dot", "-Tjson"]
    done = subprocess.run(command, input=drawn, text=True, capture_output=True, check=True)
    return json.loads(done.stdout)


async def test_the_graph_in_every_form(seen: World) -> None:
    answer = await seen.ok("GET", "/flows/graph", params={"sort": "dropped"})
    names = [node["outside"] or node["group"]["workload"] for node in answer["nodes"]]
    assert names[:2] == ["sock-shop/front-end", "sock-shop/user-db"]
    assert set(names[2:]) == {"sock-shop/carts", OUTSIDE}
    first = answer["edges"][0]
    assert (first["consumer"], first["provider"], first["dropped"]) == (0, 1, 3)
    assert [(port["protocol"], port["port"]) for port in first["ports"]] == [("TCP", 3306)]
    _, drawn, _ = await seen.run("flows", "graph", "-o", "dot")
    assert {node["label"] for node in read_dot(drawn)["objects"]} == set(names)
    _, drawn, _ = await seen.run("flows", "graph", "-o", "mermaid", "--by", "workload")
    assert drawn.startswith("flowchart LR\n")
    assert '["sock-shop/user-db"]' in drawn
    _, table, _ = await seen.run("flows", "graph", "-f", "port = 3306")
    assert table.splitlines()[1].split()[:4] == [
        "sock-shop/front-end", "sock-shop/user-db", "TCP", "3306:"
    ]  # fmt: skip
    code, out, said = await seen.run("flows", "graph", "-f", "port = 1")
    assert (code, out, said) == (0, "", "no flow matches\n")


@pytest.mark.parametrize("sort", ["last", "bytes"])
async def test_pages_hold_each_connection_once_whatever_arrives(world: World, sort: str) -> None:
    began, agent = time.time_ns() - 100 * SECOND, Agent("node1")
    for port in range(1, 8):
        # Two of each size, so that places are told apart by the connection too.
        size, at = port // 2, began + port // 2 * SECOND
        agent.saw(POD, 7, FRONT, (CARTS2, port), forward_bytes=size, first_ns=at, last_ns=at)
    await publish(await world.enrol("connector", "c"), ITEMS)
    stub = await world.enrol("agent", "node1")
    await report(stub, agent, "first")
    ports, query = [], {"sort": sort, "limit": "2"}
    while True:
        page = await world.ok("GET", "/flows", params=query)
        ports.append([flow["port"] for flow in page["items"]])
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
        # Those of the past come in front of the page's place, those of now behind its time.
        newer, at = Agent("node1"), began if sort == "bytes" else time.time_ns()
        for port in (100, 101):
            newer.saw(POD, 7, FRONT, (DB, port), forward_bytes=10**6, first_ns=at, last_ns=at)
        await report(stub, newer, f"newer {len(ports)}")
    assert [len(page) for page in ports] == [2, 2, 2, 1]
    assert [{port // 2 for port in page} for page in ports] == [{3}, {2}, {1}, {0}]
    assert sorted(port for page in ports for port in page) == list(range(1, 8))
    told = "bytes" if sort == "last" else "last"
    bad = await world.http.get("/api/v1/flows", params=query | {"sort": told})
    assert (bad.status_code, "another filter or sort" in bad.json()["detail"]) == (422, True)
    for cursor in ("x", "é", "W10", query["cursor"][:-4]):
        bad = await world.http.get("/api/v1/flows", params=query | {"cursor": cursor})
        assert (bad.status_code, "cursor: not one" in bad.json()["detail"]) == (422, True), cursor


async def test_the_command_pages_up_to_its_limit(world: World) -> None:
    agent = Agent("node1")
    agent.saw(POD, 7, FRONT, (CARTS2, 1), **now())
    agent.flows = [agent.flows[0] | {"provider_port": port} for port in range(1, 6_001)]
    await publish(await world.enrol("connector", "c"), ITEMS)
    await report(await world.enrol("agent", "node1"), agent, "many")
    code, out, said = await world.run("flows", "list", "--limit", "5500", "-o", "jsonl")
    assert (code, said) == (0, "5500 connections shown; more with --limit\n")
    assert len({json.loads(line)["connection"] for line in out.splitlines()}) == 5_500
    code, out, said = await world.run("flows", "list", "--limit", "7000", "-o", "jsonl")
    assert (code, said, len(out.splitlines())) == (0, "", 6_000)


async def test_related_records_say_why_they_belong_together(seen: World) -> None:
    words = ("sock-shop/front-end", "sock-shop/carts", "80")
    code, out, said = await seen.run("flows", "related", *words)
    assert (code, said) == (0, "")
    (flow,) = (await seen.ok("GET", "/flows", params={"filter": "port = 80"}))["items"]
    service_call = "front-end-1 (10.1.1.2) → carts (10.100.135.136) TCP 80"
    counts = "5 / 4 packets, 500 B / 400 B, 1 opened"
    known = "known to be front-end-1 (10.1.1.2) → carts (10.100.135.136) 80 before"
    assert out.splitlines() == [
        f"connection {flow['connection']}: {service_call}, passed",
        "  hop 1: front-end-1 (10.1.1.2) → carts (10.100.135.136) 80",
        f"    * node1 interface 7, at the consumer: {counts}",
        "  hop 2: front-end-1 (10.1.1.2) → carts-2 (10.1.2.3) 8080  after DNAT",
        f"    * node1 interface 2, at the consumer node: {counts}, {known}",
        f"      node2 interface 2, at the provider node: {counts}",
        f"      node2 interface 9, at the provider: {counts}",
    ]
    assert await seen.run("flows", "related", flow["connection"]) == (0, out, "")
    code, out, _ = await seen.run("flows", "related", "front-end-1", DB, "3306", "-o", "json")
    (dropped,) = json.loads(out)["items"]
    assert dropped["flow"]["disposition"] == "dropped"
    (hop,) = dropped["hops"]
    assert [(drop["node"], drop["packets"]) for drop in hop["drops"]] == [("node2", 3)]
    assert await seen.run("flows", "related", '"x" or port=', DB) == (0, "", "no flow matches\n")
    code, out, said = await seen.run("flows", "related", "12")
    assert (code, out, "not a connection's id" in said) == (3, "", True)


async def test_more_observations_than_are_told_are_refused_and_not_cut(
    seen: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, status in ((5, 200), (4, 422)):
        monkeypatch.setattr("ringfence.control.api.flow_related._MOST_OBSERVATIONS", most)
        answer = await seen.http.get("/api/v1/flows/related")
        assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith("over 4 observations of these connections: ask")


async def test_a_direct_call_to_the_same_pod_is_another_connection(world: World) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    one, two = through_service(now())
    one.saw(POD, 7, FRONT, (CARTS2, 8080), **now())
    for agent in (one, two):
        await report(await world.enrol("agent", agent.node), agent, agent.node)
    answer = await world.ok("GET", "/flows/related")
    told = {
        item["flow"]["port"]: [
            [(seen["node"], seen["interface"]) for seen in hop["observations"]]
            for hop in item["hops"]
        ]
        for item in answer["items"]
    }
    # What node2 saw may belong to either: it does not know of translation.
    assert told == {
        80: [[("node1", 7)], [("node1", 2), ("node2", 2), ("node2", 9)]],
        8080: [[("node1", 7), ("node2", 2), ("node2", 9)]],
    }


async def test_why_of_an_observed_connection(seen: World) -> None:
    flows = (await seen.ok("GET", "/flows"))["items"]
    (through,) = (flow for flow in flows if flow["service"])
    code, out, said = await seen.run("why", "--flow", through["connection"])
    assert code == 0, said
    first, consumer, *_, note = out.splitlines()
    assert first.startswith("sock-shop/front-end")
    assert first.endswith("TCP 80: allowed")
    assert "sock-shop/carts" in first
    assert consumer.endswith("outbound: not governed")
    assert note.endswith("policies as enforced now")
    code, _, said = await seen.run("why", "--flow", "0123456789abcdef")
    assert (code, "was not seen in that time" in said) == (1, True)
