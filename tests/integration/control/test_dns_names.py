"""Names that agents heard in DNS answers, from the batch to whoever asks."""

import csv
import io
import json
import time
from typing import Any

import pytest

from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import NODE, POD, report
from tests.integration.world import CARTS2, CARTS_IP, DB, FRONT, ITEMS, OUTSIDE, Agent

API, SERVICE = "api.example.com", "carts.sock-shop.svc.cluster.local"
FORMULA = "203.0.113.77"


@pytest.fixture
async def seen(world: World) -> World:
    """The observer that counts does not know the outside's name, another one does."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (OUTSIDE, 443), **at)
    one.saw(NODE, 2, FRONT, (OUTSIDE, 443), provider_dns_name=API, **at)
    one.saw(POD, 7, FRONT, (FORMULA, 8000), provider_dns_name="=cmd", **at)
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), provider_dns_name=SERVICE, **at)
    before = (FRONT, (CARTS_IP, 80))
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), before, provider_dns_name=SERVICE, **at)
    two.saw(POD, 9, FRONT, (CARTS2, 8080), provider_dns_name="another.asked", **at)
    two.dropped(FRONT, (DB, 3306))
    for agent in (one, two):
        assert not await report(await world.enrol("agent", agent.node), agent, agent.node)
    return world


async def flows(world: World, written: str) -> dict[int, Any]:
    answer = await world.ok("GET", "/flows", params={"filter": written})
    return {flow["port"]: flow for flow in answer["items"]}


async def test_a_provider_has_its_name_whoever_knows_it(seen: World) -> None:
    told = await flows(seen, "everything")
    names = {port: flow["provider"]["dns_name"] for port, flow in told.items()}
    assert names == {443: API, 8000: "=cmd", 80: SERVICE, 3306: ""}
    assert [hop["provider"]["dns_name"] for hop in told[80]["related"]] == [SERVICE]
    assert {flow["consumer"]["dns_name"] for flow in told.values()} == {""}
    code, out, _ = await seen.run("flows", "list", "-f", "port = 443")
    assert (code, f"{API} ({OUTSIDE})" in out) == (0, True)
    _, out, _ = await seen.run("flows", "list", "-f", "port = 8080", "-o", "wide")
    assert (f"carts ({CARTS_IP})" in out, SERVICE in out) == (True, True)
    _, out, _ = await seen.run("flows", "related", FRONT, OUTSIDE, "443")
    assert f"hop 1: front-end-1 ({FRONT}) → {API} ({OUTSIDE}) 443" in out


FILTERS = {
    f'provider.dns.name = "{API}"': {443},
    f'dns.name in ("{API}", "{SERVICE}")': {443, 80},
    'Provider.DNS.Name contains "example"': {443},
    'provider.dns.name matches ".*\\\\.(com|org)"': {443},
    'provider.dns.name matches "example"': set(),
    'provider.dns.name exists and not provider.dns.name contains "="': {443, 80},
    f'provider.dns.name != "{API}" and not provider.kind = "service"': {8000, 3306},
    """dns.name = "x') OR (1=1" """: set(),
}


async def test_filters_and_groups_by_name(seen: World) -> None:
    for written, ports in FILTERS.items():
        assert set(await flows(seen, written)) == ports, written
    for since in ("5m", "1d"):  # rows, and whole hours
        query = {"by": "provider.dns.name", "since": since}
        answer = await seen.ok("GET", "/flows/top", params=query)
        groups = {row["group"]["provider.dns.name"]: row["connections"] for row in answer["items"]}
        assert groups == {API: 1, SERVICE: 1, "=cmd": 1, None: 1}


async def test_where_names_mean_nothing_they_are_refused(world: World) -> None:
    for path, written, why in (
        ("flows", 'consumer.dns.name = "a"', "no key 'consumer.dns.name'"),
        ("flows", "dns.name > 1", "is text"),
        ("flows", 'dns.name matches "(?=a)"', "no look-around"),
        ("flows/denied", 'dns.name = "a"', "drops have no dns.name"),
        ("inventory", 'dns.name = "a"', "no key 'dns.name'"),
    ):
        bad = await world.http.get(f"/api/v1/{path}", params={"filter": written})
        assert (bad.status_code, why in bad.json()["detail"]) == (422, True), bad.text


async def test_exports_have_the_name(seen: World) -> None:
    _, out, _ = await seen.run("flows", "export")
    rows = [json.loads(line) for line in out.splitlines()]
    told = {(row["port"], row["provider_address"]): row["provider_dns_name"] for row in rows}
    assert told == {
        (443, OUTSIDE): API, (8000, FORMULA): "=cmd", (8080, CARTS2): SERVICE,
        (3306, DB): None,
    }  # fmt: skip
    answer = await seen.http.get("/api/v1/flows/export", params={"format": "csv"})
    cells = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert {row["provider_dns_name"] for row in cells} == {API, SERVICE, "'=cmd", ""}
