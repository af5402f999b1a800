"""The life of a workspace's versions, by the commands, with a real control plane."""

import json
from pathlib import Path
from typing import Any

from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

SECOND = DOCUMENTS.replace("outbound: ALLOW", "outbound: DENY").replace("3306", "3306-3307")


async def apply(world: World, text: str) -> None:
    """Apply one file."""
    await world.ok("POST", "/apply", json={"files": [{"name": "f", "documents": text}]})


async def answer(world: World, *words: str) -> Any:
    """What a command says as JSON."""
    _, out, said = await world.run(*words, "-o", "json")
    return json.loads(out or said)


async def test_versions_have_marks(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await apply(world, DOCUMENTS)
    await apply(world, SECOND)
    await world.run("analyze", "shop@p1")
    first = (await answer(world, "get", "versions", "shop"))[1]["analysed"]
    await world.run("analyze", "shop@p1")
    await world.run("enforce", "shop@p1", "--yes", "--no-wait")
    await world.run("enforce", "shop@p2", "--yes", "--no-wait")
    newest, oldest = await answer(world, "get", "versions", "shop")
    assert (newest["version"], newest["analysed"], newest["enforced"]["until"]) == (2, None, None)
    assert oldest["analysed"] == first
    assert oldest["enforced"]["until"] == newest["enforced"]["at"]
    assert oldest["proposed"]["actor"] == newest["proposed"]["actor"] == first["actor"] != ""
    _, table, _ = await world.run("get", "versions", "shop")
    heading, second, _ = table.splitlines()
    assert heading.split() == ["VERSION", "POLICIES", "PROPOSED", "ANALYSED", "ENFORCED"]
    assert second.startswith(f"p2              1  {first['actor']}, ")
    (workspace,) = await answer(world, "get", "workspaces")
    assert (workspace["name"], workspace["version"], workspace["enforced"]) == ("shop", 2, 2)
    _, out, _ = await world.run("get", "policies", "shop@p1")
    assert out.splitlines()[1].endswith("TCP 3306")


async def test_difference_rollback_and_round_trip(world: World, tmp_path: Path) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await apply(world, DOCUMENTS)
    await apply(world, SECOND)
    code, out, _ = await world.run("diff", "shop@p1", "shop")
    assert (code, out.splitlines()) == (
        2,
        [
            "shop@p1 → shop@p2",
            "  ~ catchAll, outbound: ALLOW → DENY",
            "  ~ policy front-to-db, ports: [3306] → [3306-3307]",
        ],
    )
    parts = (await answer(world, "diff", "shop@p1", "shop@p2"))["differences"]
    assert [(one["part"], one["field"], one["change"]) for one in parts] == [
        ("catchAll", "outbound", "changed"),
        ("policy front-to-db", "ports", "changed"),
    ]
    assert (parts[1]["old"], parts[1]["new"]) == ([3306], ["3306-3307"])
    assert (await world.run("diff", "shop@p2", "shop@p2"))[:2] == (0, "")
    assert (await world.run("diff", "shop@p1"))[0] == 3
    assert (await world.run("diff", "shop@p1", "shop@p9"))[0] == 1

    await world.run("enforce", "shop@p2", "--yes", "--no-wait")
    tried = ("rollback", "shop", "p1", "--enforce", "--dry-run")
    code, out, _ = await world.run(*tried, "--rules")
    assert (code, out.splitlines()[0]) == (0, "shop p3: would be as p1")
    assert "workspace shop: enforce p1 instead of p2" in out, out
    assert "rules of shop/db at lab/n1:" in out, out
    assert "rules of" not in (await world.run(*tried))[1]
    assert (await world.run("rollback", "shop", "p1", "--rules"))[0] == 3
    assert (await world.run("diff", "shop@p2", "shop"))[0] == 0, "nothing was made"
    assert (await world.ok("GET", "/enforcement"))["workspaces"] == [{"name": "shop", "version": 2}]
    code, out, _ = await world.run("rollback", "shop", "p1")
    assert (code, out.splitlines()[0]) == (0, "shop p3: as p1")
    assert (await world.ok("GET", "/enforcement"))["workspaces"] == [{"name": "shop", "version": 2}]
    code, out, _ = await world.run("rollback", "shop", "p1", "--enforce", "--yes", "--no-wait")
    assert (code, out.splitlines()[0]) == (0, "shop p3 is as p1 already")
    assert (await world.ok("GET", "/enforcement"))["workspaces"] == [{"name": "shop", "version": 3}]
    assert (await world.run("diff", "shop@p1", "shop@p3"))[0] == 0
    assert (await world.run("rollback", "shop", "p9"))[0] == 1
    assert (await world.run("rollback", "shop", "1.5"))[0] == 3

    # Each version comes back from its export as it was.
    for number in (2, 1):
        exported = ("export", "--kind", "Workspace", "--name", "shop", "--version", str(number))
        _, text, _ = await world.run(*exported)
        file = tmp_path / "shop.yaml"
        file.write_text(text)
        assert (await world.run("apply", "-f", str(file)))[0] == 0
        _, again, _ = await world.run("export", "--kind", "Workspace", "--name", "shop")
        assert again == text


async def test_changes_are_found_and_tell_their_difference(world: World) -> None:
    await apply(world, DOCUMENTS)
    await apply(world, SECOND)
    await world.run("rollback", "shop", "p1")
    said = [
        (one["object"], one["what"]) for one in await answer(world, "changes", "workspace/shop")
    ]
    assert said == [
        ("workspace/shop", "changed Workspace shop (p3), back to p1"),
        ("workspace/shop", "changed Workspace shop (p2)"),
        ("workspace/shop", "created Workspace shop (p1)"),
    ]
    both = {one["object"] for one in await answer(world, "changes", "shop")}
    assert both == {"workspace/shop", "scope/shop"}
    _, out, said_ = await world.run("changes", "workspace/shop", "--patch", "--limit", "1")
    assert out.splitlines()[1:] == [
        "  ~ catchAll, outbound: DENY → ALLOW",
        "  ~ policy front-to-db, ports: [3306-3307] → [3306]",
    ]
    assert said_ == "the last 1 changes; more with --limit\n"
    assert await answer(world, "changes", "--actor", "nobody") == []
    assert await answer(world, "changes", "--until", "1h") == []
    everything = await answer(world, "changes")
    page = await world.ok("GET", "/changes", params={"limit": 2})
    rest = await world.ok("GET", "/changes", params={"before": page["next"]})
    assert [*page["items"], *rest["items"]] == everything
    assert rest["next"] is None


async def test_versions_of_a_deleted_workspace_say_how_to_have_them(world: World) -> None:
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    assert (await world.http.delete("/api/v1/documents/Workspace/shop")).status_code == 204
    rollback = "/api/v1/workspaces/shop/rollback"
    answer = await world.http.post(rollback, json={"version": 1})
    assert answer.status_code == 404
    assert "workspace 'shop' was deleted: apply it again" in answer.json()["detail"]
    await world.ok("POST", "/apply", json=files)
    assert (await world.http.post(rollback, json={"version": 1})).is_success
