"""What the ends of flows are by their address alone, in every answer about flows."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ringfence.model.protocol import TCP
from ringfence.model.workload import ServicePort
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, report
from tests.integration.world import CARTS, FRONT, ITEMS, NODE1, NODE2, OUTSIDE, Agent, service

API_SERVER, METADATA, UPLOADED, DENIED = "192.0.2.50", "169.254.169.254", "10.9.0.9", "fd12::1"
HTTPS = ServicePort("https", TCP, 443)
KUBERNETES = replace(
    service("kubernetes", "10.100.0.1", HTTPS, (NODE1, 6443), (API_SERVER, 6443)),
    namespace="default",
)
TYPES = {
    NODE1: ["kube-apiserver"],
    NODE2: None,
    CARTS: None,
    API_SERVER: ["kube-apiserver", "public"],
    METADATA: ["cloud-metadata", "link-local"],
    UPLOADED: ["private"],
    OUTSIDE: ["public"],
}


@pytest.fixture
async def seen(world: World, clock: Clock) -> World:
    """The front end calls one address of each type, and is denied another."""
    await publish(await world.enrol("connector", "c"), (*ITEMS, KUBERNETES))
    items = [{"address": "10.9.0.0/16", "name": "hq", "labels": {"site": "berlin"}}]
    await world.ok("POST", "/labels", json={"items": items})
    agent, now_ns = Agent("node1"), clock.end_window()
    for provider in TYPES:
        agent.saw(POD, 7, FRONT, (provider, 6443), first_ns=now_ns, last_ns=now_ns)
    agent.dropped(FRONT, (DENIED, 443))
    assert not await report(await world.enrol("agent", "node1"), agent, "one", now_ns)
    return world


FILTERS = {
    'provider.address.type = "public"': {API_SERVER, OUTSIDE},
    'address.type = "private"': {UPLOADED, DENIED},
    'provider.address.type in ("cloud-metadata", "kube-apiserver")': {NODE1, API_SERVER, METADATA},
    'provider.address.type = "kube-apiserver" and provider.kind = "node"': {NODE1},
    "not provider.address.type exists": {NODE2, CARTS},
    'provider.address.type != "public"': {NODE1, NODE2, CARTS, METADATA, UPLOADED, DENIED},
    'provider.address.type matches "(cloud|link)-.*"': {METADATA},
    "consumer.address.type exists": set(),
    'provider.address.type contains "nothing"': set(),
}


async def test_filters_find_ends_by_type(seen: World) -> None:
    for written, found in FILTERS.items():
        items = (await seen.ok("GET", "/flows", params={"filter": written}))["items"]
        assert {item["provider"]["address"] for item in items} == found, written
    bad = await seen.http.get("/api/v1/flows", params={"filter": 'address.type = "publik"'})
    assert (bad.status_code, "'publik' is no type of address" in bad.json()["detail"]) == (
        422,
        True,
    )
    bad = await seen.http.get("/api/v1/inventory", params={"filter": 'address.type = "public"'})
    assert (bad.status_code, "no key 'address.type'" in bad.json()["detail"]) == (422, True)


async def test_answers_tell_the_type(seen: World) -> None:
    told: dict[str, Any] = {}
    for item in (await seen.ok("GET", "/flows"))["items"]:
        told[item["provider"]["address"]] = item["provider"]["labels"].get("address.type")
    assert told == TYPES | {DENIED: ["private"]}
    query = {"filter": 'provider.address.type = "private"'}
    (denied,) = (await seen.ok("GET", "/flows/denied", params=query))["items"]
    assert denied["provider"]["labels"] == {"address.type": ["private"]}
    related = (await seen.ok("GET", "/flows/related", params=query))["items"]
    assert [one["hops"][0]["provider"]["labels"]["address.type"] for one in related] == [
        ["private"], ["private"]
    ]  # fmt: skip
    _, out, _ = await seen.run("flows", "export")
    exported = {row["provider_address"]: row for row in map(json.loads, out.splitlines())}
    labels = {address: row["provider_labels"] for address, row in exported.items()}
    assert {address: one.get("address.type") for address, one in labels.items()} == told
    assert labels[UPLOADED]["user.site"] == ["berlin"]
    assert labels[CARTS]["kubernetes.label.name"] == ["carts"]


async def test_sums_by_type(seen: World) -> None:
    for since in ("5m", "6h"):
        query = {"by": "provider.address.type", "since": since}
        groups = (await seen.ok("GET", "/flows/top", params=query))["items"]
        counts = {one["group"]["provider.address.type"]: one["connections"] for one in groups}
        assert counts == {
            None: 2, "public": 1, "private": 2, "kube-apiserver": 1, "kube-apiserver,public": 1,
            "cloud-metadata,link-local": 1,
        }  # fmt: skip
    query = {"by": "dialled.address.type", "filter": 'provider.address.type = "public"'}
    groups = (await seen.ok("GET", "/flows/top", params=query))["items"]
    assert [one["group"]["dialled.address.type"] for one in groups] == [
        "kube-apiserver,public", "public"
    ]  # fmt: skip
    query = {"by": "provider.address.type,provider.address"}
    groups = (await seen.ok("GET", "/flows/top", params=query))["items"]
    assert len(groups) == len(TYPES) + 1
    code, out, said = await seen.run(
        "flows", "graph", "--by", "address.type,kubernetes.namespace", "-o", "dot"
    )
    assert (code, said) == (0, "")
    assert 'label="cloud-metadata,link-local", style=dashed' in out
    assert 'label="kube-apiserver"' in out
