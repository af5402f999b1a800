"""Requests between workspaces, from apply to a version that grants them, by hand and by rule."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringfence.control import requests as requests_module
from ringfence.model.protocol import TCP
from ringfence.model.workload import Backend, ItemKind, ServicePort, ServiceSpec, ServiceType
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import publish
from tests.unit.control.shop import DB, FRONT, NODE, item

HEAD = "apiVersion: ringfence.io/v1alpha1\n"
SCOPES = "---\n".join(
    f"{HEAD}kind: Scope\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    for name, spec in (
        ("all", "query: everything"),
        ("front", "parent: all, query: 'name = \"front\"'"),
        ("db", "parent: all, query: 'name = \"db\"'"),
        ("nodes", "parent: all, query: 'kind = \"node\"'"),
    )
)
WEB = replace(
    item(ItemKind.SERVICE, "web", "10.96.0.20"),
    namespace="shop",
    service=ServiceSpec(
        ServiceType.NODE_PORT,
        (ServicePort("http", TCP, 80, 31095),),
        (Backend("http", TCP, FRONT.addresses[0], 8079, True, FRONT.key),),
    ),
)


def workspace(name: str, *policies: str) -> str:
    listed = ", ".join(policies)
    return (
        f"---\n{HEAD}kind: Workspace\nmetadata: {{name: {name}}}\nspec:\n  scope: {name}\n"
        f"  catchAll: {{inbound: DENY, outbound: DENY}}\n  policies: [{listed}]\n"
    )


def allow(name: str, consumer: str, provider: str, port: int) -> str:
    return (
        f"{{id: {name}, action: ALLOW, consumer: {{{consumer}}}, provider: {{{provider}}}, "
        f"protocol: TCP, ports: [{port}]}}"
    )


TO_DB = allow("to-db", "filter: 'name = \"front\"'", "filter: 'name = \"db\"'", 3306)


async def apply(world: World, *documents: str, **more: Any) -> list[dict[str, Any]]:
    """Apply, and what the given workspaces ask for."""
    files = [{"name": "f.yaml", "documents": "".join(documents)}]
    answer = await world.ok("POST", "/apply", json={"files": files, **more})
    return list(answer["requests"])


async def prepare(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, WEB])
    await apply(world, SCOPES, workspace("db"), workspace("nodes"))


async def test_json_tells_the_requests_as_well(world: World, tmp_path: Path) -> None:
    await prepare(world)
    file = tmp_path / "front.yaml"
    file.write_text(workspace("front", TO_DB))
    for command in ("diff", "apply"):
        _, out, _ = await world.run(command, "-f", str(file), "-o", "json")
        assert [one["policy"] for one in json.loads(out)["requests"]] == ["to-db"]
    _, out, _ = await world.run("rollback", "front", "p1", "-o", "json")
    assert json.loads(out) == {"version": 1, "differences": []}


async def states(world: World) -> dict[str, str]:
    held = (await world.ok("GET", "/requests"))["items"]
    return {one["policy"]: one["state"] for one in held}


async def why(world: World) -> bool:
    asked = {"source": "shop/front", "destination": "shop/db", "port": 3306}
    return bool((await world.ok("GET", "/why", params=asked))["allowed"])


async def test_the_provider_s_owner_answers(world: World) -> None:
    await prepare(world)
    (planned,) = await apply(world, workspace("front", TO_DB), dry_run=True)
    assert await states(world) == {}
    (raised,) = await apply(world, workspace("front", TO_DB))
    assert raised["id"] == planned["id"]
    assert (raised["state"], raised["workspace"], raised["provider_workspace"]) == (
        "pending",
        "front",
        "db",
    )
    assert raised["text"].startswith(f"+ policy front-to-db-{raised['id']}: description requested")
    assert raised["text"].endswith(
        'action ALLOW, consumer filter name = "front", provider filter name = "db", '
        "protocol TCP, ports [3306]"
    )
    (again,) = await apply(world, workspace("front", TO_DB))
    assert again == raised, "asked once"
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "front"}, {"name": "db"}]})
    assert not await why(world)

    at = f"/requests/{raised['id']}"
    rejected = await world.ok("POST", f"{at}/reject", json={"reason": "use the API"})
    assert (rejected["state"], rejected["reason"], rejected["actor"]) == (
        "rejected",
        "use the API",
        "admin",
    )
    (remembered,) = await apply(world, workspace("front", TO_DB))
    assert remembered == rejected

    approved = await world.ok("POST", f"{at}/approve", json={"reason": "well"})
    assert approved["state"] == "approved"
    assert await world.ok("POST", f"{at}/approve", json={}) == approved
    held = await world.ok("GET", "/workspaces/db")
    assert (held["version"], held["enforced"], len(held["policies"])) == (2, 1, 1)
    assert not await why(world), "a version that is not enforced opens nothing"
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "front"}, {"name": "db"}]})
    assert await why(world)
    assert await apply(world, workspace("front", TO_DB)) == []
    refused = await world.http.post(f"/api/v1{at}/reject", json={})
    assert refused.status_code == 409
    changes = (await world.ok("GET", "/changes"))["items"]
    (approval,) = (one for one in changes if one["what"].startswith("approved"))
    assert approval["actor"] == "admin"
    assert approval["difference"][0].startswith(f"+ policy front-to-db-{raised['id']}: ")
    whats = [one["what"] for one in changes]
    assert f"rejected request {raised['id']} of front/to-db to workspace db" in whats
    assert f"raised request {raised['id']} of front/to-db to workspace db" in whats

    (reopened,) = await apply(world, workspace("front", TO_DB), workspace("db"))
    assert reopened["state"] == "pending", "its policy was taken out"
    await apply(world, workspace("front"))
    assert await states(world) == {}, "needed no longer"


async def test_a_node_port_is_asked_of_the_scope_of_the_nodes(world: World) -> None:
    await prepare(world)
    shoppers = allow("shoppers", "cidr: 0.0.0.0/0", "service: shop/web", 80)
    (raised,) = await apply(world, workspace("front", shoppers))
    assert raised["provider_workspace"] == "nodes"
    await world.ok("POST", f"/requests/{raised['id']}/approve", json={})
    await world.ok(
        "POST", "/enforcement", json={"workspaces": [{"name": "front"}, {"name": "nodes"}]}
    )
    asked = {"source": "198.51.100.7", "destination": "n1", "port": 31095}
    answer = await world.ok("GET", "/why", params=asked)
    assert answer["allowed"]
    roles = [end["role"] for end in answer["connections"][0]["ends"]]
    assert roles == ["provider", "node"]


async def test_a_rule_answers_at_once(world: World) -> None:
    await prepare(world)
    (raised,) = await apply(world, workspace("front", TO_DB))
    rule = {"provider_workspace": "db", "scope": "front", "protocol": "TCP", "ports": [3306]}
    made = await world.ok("POST", "/approval-rules", json=rule)
    assert await world.ok("POST", "/approval-rules", json=rule) == made
    held = await world.ok("GET", f"/requests/{raised['id']}")
    assert (held["state"], held["reason"]) == ("approved", f"by rule {made['id']}")
    wider = TO_DB.replace("to-db", "more").replace("3306", "22")
    asked = await apply(world, workspace("front", TO_DB, wider))
    assert [(one["policy"], one["state"]) for one in asked] == [("more", "pending")]
    for bad in ({**rule, "scope": "none"}, {**rule, "protocol": "any"}):
        answer = await world.http.post("/api/v1/approval-rules", json=bad)
        assert answer.status_code == 422, answer.text
    await world.ok("DELETE", f"/approval-rules/{made['id']}")
    assert (await world.ok("GET", "/approval-rules"))["items"] == []


async def test_what_comes_and_goes_in_the_inventory_raises_and_closes(
    world: World, monkeypatch: Any
) -> None:
    monkeypatch.setattr(requests_module, "_SETTLE_SECONDS", 0.0)
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT])
    await apply(world, SCOPES, workspace("db"))
    assert await apply(world, workspace("front", TO_DB)) == [], "there is no db yet"
    assert world.plane.app is not None
    held = world.plane.app.state.services.requests
    await held.stop()  # it slept while the pause was a long one
    await held.start()
    for items, wanted in (([NODE, FRONT, DB], {"to-db": "pending"}), ([NODE, FRONT], {})):
        await publish(connector, items)
        for _ in range(500):
            await asyncio.sleep(0.02)
            if await states(world) == wanted:
                break
        assert await states(world) == wanted


async def test_a_grant_that_could_not_be_read_again_is_refused(world: World) -> None:
    """Each filter is allowed; joined they are too long for a document."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    long = " or ".join(f'name = "{number:030}"' for number in range(1000))
    wide = SCOPES.replace("'name = \"front\"'", f"'name = \"front\" or {long}'")
    await apply(world, wide, workspace("db"))
    consumer = f'filter: \'name = "front" or {long[:-1]}x"\''
    asking = allow("to-db", consumer, "filter: 'name = \"db\"'", 3306)
    (raised,) = await apply(world, workspace("front", asking))
    answer = await world.http.post(f"/api/v1/requests/{raised['id']}/approve", json={})
    assert answer.status_code == 409
    assert "letters" in answer.json()["detail"]
    assert await states(world) == {"to-db": "pending"}
    held = await world.ok("GET", "/workspaces/db")
    assert (held["version"], held["policies"]) == (1, [])
    packed = "or ".join(f'name="{number:030}"' for number in range(1600))
    too_long = allow("x", f"filter: '{packed}'", "filter: 'name = \"db\"'", 1)
    files = [{"name": "f.yaml", "documents": workspace("db", too_long)}]
    answer = await world.http.post("/api/v1/apply", json={"files": files})
    assert answer.status_code == 422, "it is longer as it is stored"
    assert (await world.ok("GET", "/workspaces/db"))["version"] == 1


async def test_who_answers_a_request_answers_what_was_shown(world: World) -> None:
    await prepare(world)
    (shown,) = await apply(world, workspace("front", TO_DB))
    never = TO_DB.replace("to-db", "never").replace("ALLOW", "DENY, rank: absolute, priority: 1")
    await apply(world, workspace("db", never))
    answer = await world.http.post(f"/api/v1/requests/{shown['id']}/approve", json={})
    assert answer.status_code == 404
    (other,) = (await world.ok("GET", "/requests"))["items"]
    assert other["id"] != shown["id"]
    assert "rank absolute, priority 1" in other["text"]
    assert other["text"].endswith("ahead of its never, which denies")
    approved = await world.ok("POST", f"/requests/{other['id']}/approve", json={})
    assert (approved["state"], approved["raised"]) == ("approved", other["raised"])


async def test_requests_follow_filters_rollback_and_expiry(world: World, clock: Clock) -> None:
    await prepare(world)
    callers = (
        f"---\n{HEAD}kind: Filter\nmetadata: {{name: callers}}\n"
        "spec: {scope: all, query: 'name = \"%s\"'}\n"
    )
    provider = "filter: 'name = \"db\"'"
    named = allow("named", "namedFilter: callers", provider, 3306)
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock() // 10**9 + 3600))
    lent = TO_DB.replace("{id: to-db", f"{{id: lent, expires: {soon}").replace("3306", "22")
    (asked,) = await apply(world, callers % "nobody", workspace("front", named, lent))
    assert asked["policy"] == "lent"
    await apply(world, callers % "front")
    assert await states(world) == {"named": "pending", "lent": "pending"}
    await apply(world, callers % "nobody")
    assert await states(world) == {"lent": "pending"}

    await world.ok("POST", f"/requests/{asked['id']}/approve", json={})
    assert await states(world) == {"lent": "approved"}
    await world.ok("POST", "/workspaces/db/rollback", json={"version": 1})
    assert await states(world) == {"lent": "pending"}
    clock.ahead_ns += 3601 * 10**9
    await apply(world, SCOPES)
    assert await states(world) == {}


async def test_the_command(world: World, tmp_path: Path) -> None:
    await prepare(world)
    file = tmp_path / "front.yaml"
    file.write_text(workspace("front", TO_DB))
    code, _, said = await world.run("apply", "-f", str(file))
    assert code == 0
    (raised,) = (await world.ok("GET", "/requests"))["items"]
    line = f"request {raised['id']} of front/to-db to workspace db"
    assert f"{line}: pending\n  + policy" in said
    code, out, _ = await world.run("requests", "list", "--state", "pending")
    assert (code, raised["id"] in out, "front/to-db" in out) == (0, True, True)
    code, out, _ = await world.run("requests", "reject", raised["id"], "--reason", "no")
    assert out.startswith(f"{line}: rejected: no\n")
    code, out, _ = await world.run("requests", "show", raised["id"])
    assert (code, "rejected: no" in out) == (0, True)
    code, out, _ = await world.run("requests", "approve", raised["id"], "-o", "json")
    assert (code, '"state": "approved"' in out) == (0, True)
    words = ("requests", "rule", "add", "db", "--from-scope", "front", "--ports", "1,2-3")
    code, out, _ = await world.run(*words, "--protocol", "TCP")
    assert code == 0
    assert "TCP 1,2-3" in out
    rule = out.splitlines()[1].split()[0]
    code, out, _ = await world.run("requests", "rule", "list")
    assert rule in out
    assert (await world.run("requests", "rule", "remove", rule))[0] == 0
    assert (await world.ok("GET", "/approval-rules"))["items"] == []
