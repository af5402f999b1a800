"""What a version would block of what passes, and how the least that it lacks is accepted."""

import time
from typing import Any

import pytest

from ringfence.cli.main import FOUND, OK, USAGE
from ringfence.control.deciding import Deciding
from ringfence.model.flow import Observer
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import apply, report, through_service
from tests.integration.world import CARTS2, DB, FRONT, ITEMS, OUTSIDE

DOCUMENTS = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {query: 'kubernetes.namespace = "sock-shop"'}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: shop
  catchAll: {inbound: DENY, outbound: DENY}
  clusters:
  - {name: carts, query: kubernetes.owner.name = "carts"}
  policies:
  - id: nothing-to-the-db
    action: DENY
    consumer: {cluster: carts}
    provider: {filter: 'name = "user-db-1"'}
    protocol: TCP
    ports: [3306]
"""


@pytest.fixture
async def shop(world: World) -> World:
    """A shop that has been seen at work, and a workspace that allows nothing."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    one, two = through_service(now)
    two.saw(Observer.POD, 9, CARTS2, (DB, 27017), **now, opened=4)
    two.saw(Observer.POD, 9, CARTS2, (DB, 3306), **now)
    one.saw(Observer.POD, 7, FRONT, (OUTSIDE, 666), **now)
    two.dropped(CARTS2, (DB, 5432))
    for name, agent in (("node1", one), ("node2", two)):
        assert not await report(await world.enrol("agent", name), agent, name)
    await apply(world, DOCUMENTS)
    return world


async def blocked(world: World, **more: Any) -> list[dict[str, Any]]:
    asked = {"workspace": "shop", **more}
    return list((await world.ok("GET", "/what-if", params=asked))["blocked"])


def accepting(rows: list[dict[str, Any]]) -> dict[str, Any]:
    clusters = {one["name"]: one for row in rows for one in row["clusters"]}
    return {
        "workspace": "shop",
        "version": 1,
        "policies": [row["policy"] for row in rows],
        "clusters": list(clusters.values()),
    }


async def test_each_edge_that_passes_is_told_with_the_least_policy(shop: World) -> None:
    answer = await shop.ok("GET", "/what-if", params={"workspace": "shop"})
    assert (answer["version"], answer["conversations"], answer["workloads"]) == (1, 7, 3)
    told = {
        (row["consumer"], row["provider"], row["port"], row["conversations"]): row["policy"]
        for row in answer["blocked"]
    }
    assert [told[key]["provider"] for key in sorted(told)] == [
        {"cluster": "user-db"},
        {"cluster": "user-db"},
        {"cidr": f"{OUTSIDE}/32"},
        {"service": "sock-shop/carts"},
    ]
    assert sorted(told) == [
        ("carts", "user-db", "27017", 4),
        ("carts", "user-db", "3306", 1),
        ("front-end", OUTSIDE, "666", 1),
        ("front-end", "service sock-shop/carts", "80", 1),
    ]
    through = told["front-end", "service sock-shop/carts", "80", 1]
    assert (through["consumer"], through["ports"]) == ({"cluster": "front-end"}, [80])
    to_db = told["carts", "user-db", "27017", 4]
    assert (to_db["consumer"], to_db["id"]) == ({"cluster": "carts"}, "carts-to-user-db-tcp-27017")


async def test_the_policies_are_those_that_discovery_proposes(shop: World) -> None:
    approved = DOCUMENTS.split("---")[1]
    asked = {"scope": "shop", "since": "1h", "approved": approved, "every_edge": True}
    report = (await shop.ok("POST", "/discover", json=asked))["report"]
    discovered = report["workspace"]
    ends = {
        (str(one["consumer"]), str(one["provider"]), one["protocol"], port)
        for one in discovered["policies"]
        for port in one["ports"]
    }
    rows = await blocked(shop)
    least = [row["policy"] for row in rows]
    told = {
        (str(one["consumer"]), str(one["provider"]), one["protocol"], *one["ports"])
        for one in least
    }
    assert len(told) == 4
    assert told <= ends
    clusters = [one for row in rows for one in row["clusters"]]
    assert {one["name"] for one in clusters} == {"front-end", "user-db"}
    assert all(one in discovered["clusters"] for one in clusters)


async def test_what_is_accepted_passes_and_what_else_denies_is_said(shop: World) -> None:
    rows = await blocked(shop)
    still = {row["port"]: [one["policy"] for one in row["still_denied_by"]] for row in rows}
    assert still == {"27017": [], "3306": ["nothing-to-the-db"], "666": [], "80": []}
    body = accepting(rows)
    planned = await shop.ok("POST", "/what-if/accept", json={**body, "dry_run": True})
    assert [(one["change"], one["version"]) for one in planned["changes"]] == [("changed", 2)]
    assert len(await blocked(shop)) == 4, "a plan changes nothing"
    assert await shop.ok("POST", "/what-if/accept", json=body) == planned
    (left,) = await blocked(shop)
    assert (left["port"], left["denied_by"]) == ("3306", left["still_denied_by"])
    assert len(await blocked(shop, version=1)) == 4
    late = await shop.http.post("/api/v1/what-if/accept", json=body)
    assert (late.status_code, "p2 is the latest by now" in late.text) == (409, True)


async def test_what_denies_is_not_asked_row_by_row(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await blocked(shop)

    def row(self: Deciding, at: int) -> None:
        raise AssertionError(at)

    monkeypatch.setattr(Deciding, "__getitem__", row)
    assert await blocked(shop) == told
    assert len(told) == 4


async def test_the_command_accepts_some(shop: World) -> None:
    words = ("analyze", "shop", "--if-enforced", "--since", "1h")
    code, out, said = await shop.run(*words)
    assert code == FOUND
    assert "if shop p1 were enforced now, 7 conversations of 3 workloads would be blocked" in said
    heading, *lines = out.splitlines()
    assert heading.split()[:3] == ["#", "CONSUMER", "PROVIDER"]
    (number,) = (line.split()[0] for line in lines if "27017" in line)
    code, _, said = await shop.run(*words, "--accept", "9", "--yes")
    assert (code, "write numbers from 1 to 4" in said) == (USAGE, True)
    code, _, said = await shop.run(*words, "--accept", number)
    assert (code, "pass --yes" in said) == (USAGE, True)
    accepted = f"{number},carts-to-user-db-tcp-3306"
    code, out, said = await shop.run(*words, "--accept", accepted, "--dry-run")
    assert (code, "Workspace shop (p2): changed" in out) == (OK, True)
    assert "carts-to-user-db-tcp-3306 alone does not help: DENY shop/nothing-to-the-db@p1" in said
    code, out, said = await shop.run(*words, "--accept", number, "--yes")
    assert (code, "shop@p2 is made; it is not enforced yet" in out) == (OK, True)
    assert {row["port"] for row in await blocked(shop)} == {"3306", "666", "80"}
    code, out, _ = await shop.run(*words, "--accept", "all", "--yes", "-o", "json")
    assert code == OK
    assert {row["port"] for row in await blocked(shop)} == {"3306"}


async def test_accepting_takes_a_policys_review_away(shop: World) -> None:
    waiting = """
  - id: carts-to-db
    action: ALLOW
    review: "somebody: has to look"
    consumer: {cluster: carts}
    provider: {filter: 'name = "user-db-1"'}
    protocol: TCP
    ports: [27017]
"""
    await apply(shop, DOCUMENTS.rstrip("\n") + waiting)
    rows = await blocked(shop)
    (held,) = (row for row in rows if row["held"])
    assert (held["port"], held["review"]) == ("27017", "somebody: has to look")
    assert (held["policy"]["id"], held["still_denied_by"]) == ("carts-to-db", [])
    assert "review" not in held["policy"]
    assert rows.index(held) == len(rows) - 1
    words = ("analyze", "shop", "--if-enforced", "--since", "1h")
    code, out, said = await shop.run(*words, "--accept", "all", "--dry-run")
    assert (code, "carts-to-db" in out) == (OK, False)
    assert "all leaves out 1 that awaits review" in said
    code, _, said = await shop.run(*words, "--accept", str(len(rows)), "--yes")
    assert code == OK, said
    assert {row["port"] for row in await blocked(shop)} == {"3306", "666", "80"}
    _, made, _ = await shop.run("export", "shop")
    assert (made.count("carts-to-db"), "has to look" in made) == (1, False)


async def test_a_hypothetical_connection_is_judged_by_any_version(shop: World) -> None:
    rows = await blocked(shop)
    body = accepting(rows)
    await shop.ok("POST", "/what-if/accept", json=body)
    words = ("why", "sock-shop/carts", "sock-shop/user-db-1", "27017")
    for version, code in (("shop@p1", FOUND), ("shop@p2", OK), ("shop", OK)):
        assert (await shop.run(*words, "--with", version))[0] == code
