"""A consumer in one scope, its provider in another: from what was seen to what is enforced."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, apply, report
from tests.integration.control.test_offline import offline
from tests.integration.world import CARTS, CARTS2, CARTS_IP, DB, FRONT, ITEMS, Agent

HEAD = "apiVersion: ringfence.io/v1alpha1\n"
SCOPES = "---\n".join(
    f"{HEAD}kind: Scope\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    for name, spec in (
        ("all", "query: everything"),
        ("front", "parent: all, query: 'kubernetes.label.name = \"front-end\"'"),
        ("carts", "parent: all, query: 'kubernetes.label.name = \"carts\"'"),
    )
)
METRICS = (
    "{id: metrics, action: ALLOW, consumer: {node: own}, provider: {scope: all}, "
    "protocol: TCP, ports: [9100]}"
)


def workspace(name: str, verdict: str, *policies: str) -> str:
    return (
        f"---\n{HEAD}kind: Workspace\nmetadata: {{name: {name}}}\nspec:\n  scope: {name}\n"
        f"  catchAll: {{inbound: {verdict}, outbound: {verdict}}}\n"
        f"  policies: [{', '.join(policies)}]\n"
    )


@pytest.fixture
async def seen(world: World) -> World:
    """The front end uses the carts, which use a database outside both scopes."""
    connector = await world.enrol("connector", "c")
    node1, node2 = [await world.enrol("agent", name) for name in ("node1", "node2")]
    await publish(connector, ITEMS)
    await apply(world, SCOPES + workspace("carts", "DENY"))
    at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80), **at)
    one.saw(POD, 7, FRONT, (CARTS, 8080), (FRONT, (CARTS_IP, 80)), **at)
    two.saw(POD, 9, CARTS2, (DB, 27017), **at)
    one.saw(POD, 8, CARTS, (CARTS2, 9), answered=0, refused=1, **at)
    await report(node1, one, "one")
    await report(node2, two, "two")
    return world


async def discovered(world: World, tmp_path: Path, *words: str) -> tuple[list[str], str]:
    """Discover, and apply what is proposed: the names of its workspaces, and what was said."""
    code, out, said = await world.run("discover", "front", "--since", "10m", *words)
    assert code == 0, said
    file = tmp_path / "front.yaml"
    file.write_text(out)
    code, _, error = await world.run("apply", "-f", str(file))
    assert code == 0, error
    return [one["metadata"]["name"] for one in yaml.safe_load_all(out)], said


async def enforce(world: World, *names: str) -> int:
    body = {"workspaces": [{"name": name} for name in names]}
    return (await world.http.post("/api/v1/enforcement", json=body)).status_code


async def may(world: World, consumer: str, provider: str, port: int) -> bool:
    asked = {
        "source": f"sock-shop/{consumer}",
        "destination": f"sock-shop/{provider}",
        "port": port,
    }
    return bool((await world.ok("GET", "/why", params=asked))["allowed"])


async def test_the_ancestors_workspace_opens_both_ends(seen: World, tmp_path: Path) -> None:
    await apply(seen, workspace("all", "ALLOW", METRICS))
    names, said = await discovered(seen, tmp_path)
    assert names == ["all", "front"]
    assert "2 policies of these are for workspace all, after what it has" in said
    assert "front needs all: `ringfence enforce all front`" in said
    assert "carts" not in [line.split()[0] for line in said.splitlines()]
    assert "refused" not in said, "what is refused between the carts is nothing of this scope's"
    held = await seen.ok("GET", "/workspaces/all")
    assert [one["id"] for one in held["policies"]] == [
        "metrics", "front-end-to-carts", "probes-to-front-end",
    ]  # fmt: skip
    assert (await seen.ok("GET", "/requests"))["items"] == []

    assert await enforce(seen, "front", "carts") == 409, "the probes' policy is in the other"
    assert await enforce(seen, "all", "front", "carts") == 200
    assert await may(seen, "front-end-1", "carts-2", 8080)
    assert not await may(seen, "front-end-1", "carts-2", 8081)
    assert not await may(seen, "carts-1", "carts-2", 8080)
    assert not await may(seen, "front-end-1", "user-db-1", 27017)

    approved = "--approved", str(tmp_path / "front.yaml")
    names, said = await discovered(seen, tmp_path, *approved)
    assert names == ["front"], "all of it is there"
    assert "front needs all" in said
    assert not any(word in said for word in ("added:", "unused:", "generalised:"))


async def test_files_of_scopes_and_workspaces_give_the_same(seen: World, tmp_path: Path) -> None:
    above = workspace("all", "ALLOW", METRICS)
    await apply(seen, above)
    inventory, flows = str(tmp_path / "inventory.yaml"), str(tmp_path / "flows.parquet")
    scopes = tmp_path / "scopes.yaml"
    scopes.write_text(SCOPES + above)
    _, live, _ = await seen.run("discover", "front", "--since", "10m")
    await seen.run("inventory", "export", "--since", "10m", "--file", inventory)
    words = ("flows", "export", "--since", "10m", "-o", "parquet", "--file", flows)
    assert await seen.run(*words) == (0, "", "")
    files = ("--inventory", inventory, "--flows", flows, "--scopes", str(scopes))
    code, out, _ = await offline("discover", *files, "--scope", "front")
    assert (code, out) == (0, live)
    assert [one["metadata"]["name"] for one in yaml.safe_load_all(out)] == ["all", "front"]

    # The proposal has the workspace of `all` as it has to become, the files as it was.
    (proposed := tmp_path / "front.yaml").write_text(out)
    given = "--policies", str(scopes), "--policies", str(proposed), *files[:4], "-o", "json"
    code, out, said = await offline("analyze", "front", *given)
    assert (code, said) == (0, f"note: workspace all is as {proposed} has it, not {scopes}\n")
    assert set(json.loads(out)["counts"]) >= {"permitted"}
    assert json.loads(out)["counts"]["escaped"] == 0
    twice = "--policies", str(scopes), *given
    assert (await offline("analyze", "front", *twice))[0] == 0, "what is twice the same is one"
    (other := tmp_path / "other.yaml").write_text(SCOPES.replace("front-end", "backend"))
    code, _, said = await offline("analyze", "front", "--policies", str(other), *given)
    assert code == 1
    assert f"scope 'front' stands in {other}, and otherwise in {scopes}" in said


async def test_without_it_the_other_scope_is_asked(seen: World, tmp_path: Path) -> None:
    await apply(seen, workspace("all", "ALLOW", METRICS))
    names, said = await discovered(seen, tmp_path, "--own")
    assert names == ["front"]
    assert "front needs" not in said
    (asked,) = (await seen.ok("GET", "/requests"))["items"]
    assert (asked["policy"], asked["provider_workspace"]) == ("front-end-to-carts", "carts")
    assert await enforce(seen, "front", "carts") == 200
    assert not await may(seen, "front-end-1", "carts-2", 8080)
    await seen.ok("POST", f"/requests/{asked['id']}/approve", json={})
    assert await enforce(seen, "front", "carts") == 200
    assert await may(seen, "front-end-1", "carts-2", 8080)
