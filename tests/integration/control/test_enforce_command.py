"""`ringfence enforce` does what it showed and says what came of it, with a real control plane."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import replace

import httpx
import pytest
import typer

from ringfence.cli.client import ApiError, connect
from ringfence.cli.enforce import enforce
from ringfence.control import enforcement
from ringfence.model.protocol import TCP
from ringfence.model.workload import Backend, ItemKind, ServicePort, ServiceSpec, ServiceType
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item


def files(documents: str = DOCUMENTS) -> dict[str, object]:
    """What apply takes."""
    return {"files": [{"name": "shop.yaml", "documents": documents}]}


async def test_nodes_that_did_not_answer_are_named(world: World) -> None:
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, item(ItemKind.NODE, "n2", "192.0.2.2"), FRONT, DB])
    await world.ok("POST", "/apply", json=files())
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()

    async def obey() -> None:
        await agent.tell(enforced_revision=(await agent.directive()).revision)

    obeyed = asyncio.create_task(obey())
    code, _, said = await world.run("enforce", "shop", "--yes")
    await obeyed
    assert (code, said.splitlines()) == (
        2,
        [
            "in force on 1 node (revision 1)",
            "not known to be in force on lab/n2: no agent is connected there",
        ],
    )
    code, _, said = await world.run("enforce", "--off", "--yes", "--timeout", "0.1")
    assert code == 2
    assert "in force on 0 nodes (revision 2)\nnot in force on n1: no answer\n" in said
    await publish(connector, [NODE, FRONT, DB])
    await agent.tell(enforced_revision=0)
    code, _, said = await world.run("enforce", "--off", "--yes")
    assert (code, said) == (0, "in force on 1 node (revision 2)\n")


async def test_what_is_taken_back_while_it_is_waited_for_is_not_in_force(
    world: World, clock: Clock
) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=files())
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()

    async def go_back() -> None:
        await agent.directive()
        clock.ahead_ns += 61 * 10**9
        await agent.tell(enforced_revision=(await agent.directive()).revision)

    gone = asyncio.create_task(go_back())
    code, _, said = await world.run("enforce", "shop", "--confirm", "60s", "--yes")
    await gone
    assert (code, said) == (2, "revision 1 is not enforced any more: revision 2 is\n")


async def test_what_only_a_stage_has_is_refused_without_one(world: World) -> None:
    for option, value in (("--for", "10m"), ("--threshold", "0.5%")):
        code, _, said = await world.run("enforce", "shop", option, value, "--yes")
        assert (code, "--for and --threshold go with --stage" in said) == (3, True)


async def test_what_was_shown_is_enforced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.ok("POST", "/apply", json=files())
    newer = files(DOCUMENTS.replace("3306", "3307"))
    await enforce_while(world, monkeypatch, "/apply", newer)
    assert (await world.ok("GET", "/workspaces/shop"))["version"] == 2
    enforced = (await world.ok("GET", "/enforcement"))["workspaces"]
    assert enforced == [{"name": "shop", "version": 1}]


async def test_what_another_enforces_meanwhile_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DOCUMENTS.replace("name: shop", "name: other").replace("scope: shop", "scope: all")
    for documents in (DOCUMENTS, other):
        await world.ok("POST", "/apply", json=files(documents))
    both = {"workspaces": [{"name": "shop"}, {"name": "other"}]}
    with pytest.raises(ApiError, match="enforced something else meanwhile"):
        await enforce_while(world, monkeypatch, "/enforcement", both)
    assert len((await world.ok("GET", "/enforcement"))["workspaces"]) == 2
    stale = {"expected_revision": 0}
    answer = await world.http.delete("/api/v1/enforcement", params=stale)
    assert answer.status_code == 409


async def enforce_while(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, body: Mapping[str, object]
) -> None:
    """Enforce by the command, and post something while it asks whether to go ahead."""
    for name, value in world.context().items():
        monkeypatch.setenv(name, value)

    def confirm(*_: object, **__: object) -> bool:
        headers = {"Authorization": f"Bearer {world.token}"}
        url = f"{world.http.base_url}/api/v1{path}"
        with httpx.Client(verify=world.verify, trust_env=False, headers=headers) as client:
            assert client.post(url, json=body).is_success
        return True

    monkeypatch.setattr(typer, "confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    client = connect()
    monkeypatch.setattr("ringfence.cli.enforce.connect", lambda: client)
    try:
        await asyncio.to_thread(enforce, ["shop"], wait=False)
    finally:
        client._http.close()


async def test_a_widening_that_arises_later_is_told(world: World) -> None:
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=files())
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    assert (await world.ok("GET", "/enforcement"))["warnings"] == []
    other = item(ItemKind.POD, "other", "10.0.0.3")
    backends = tuple(
        Backend("db", TCP, pod.addresses[0], 3306, True, pod.key) for pod in (DB, other)
    )
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("db", TCP, 3306),), backends)
    service = replace(item(ItemKind.SERVICE, "db", "10.96.0.10"), service=spec)
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()
    await publish(connector, [NODE, FRONT, DB, other, service])
    await agent.directive()
    (warning,) = (await world.ok("GET", "/enforcement"))["warnings"]
    assert "means only some backends of Service db:3306: kube-proxy may pick the others" in warning
    _, _, said = await world.run("agents")
    assert f"note: {warning}" in said


async def test_a_failure_of_a_moment_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement, "_RETRY_SECONDS", 0.1)
    assert world.plane.app is not None
    held = world.plane.app.state.services.enforcement

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(world.data_dir / "control.db")) as db, db:
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")

    async def until(*, fails: bool) -> None:
        for _ in range(500):
            await asyncio.sleep(0.02)
            if bool(held.problem) is fails:
                return
        raise AssertionError(held.problem)

    rename("quarantines", "gone")
    held.touch()
    await until(fails=True)
    rename("gone", "quarantines")
    await until(fails=False)


async def test_a_dry_run_shows_how_the_rules_of_each_workload_would_differ(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=files())
    code, out, _ = await world.run("enforce", "shop", "--dry-run", "--rules")
    assert code == 0
    assert "rules of shop/db at lab/n1:\n--- now\n+++ planned\n@@" in out
    assert "+\t\tip saddr @rf_" in out
    assert 'tcp dport 3306 counter accept comment "default/shop/p1/front-to-db"' in out
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    await world.ok("POST", "/apply", json=files(DOCUMENTS.replace("3306", "3307")))
    body = {"workspaces": [{"name": "shop"}], "dry_run": True, "rules": True}
    (change,) = (
        one
        for one in (await world.ok("POST", "/enforcement", json=body))["rules"]
        if one["workload"] == "shop/db"
    )
    assert change["node"] == "lab/n1"
    ports = [line[0] + port for line in change["difference"] for port in ("3306", "3307")
             if f"dport {port} " in line]  # fmt: skip
    assert set(ports) == {"-3306", "+3307"}  # of both families
    same = {"workspaces": [{"name": "shop", "version": 1}], "dry_run": True, "rules": True}
    assert (await world.ok("POST", "/enforcement", json=same))["rules"] == []
    _, out, _ = await world.run("enforce", "--off", "--dry-run", "--rules", "-o", "json")
    gone = {one["workload"]: one["difference"] for one in json.loads(out)["rules"]}
    assert all(line[0] in "-@+" for line in gone["shop/db"])
    assert "-table inet ringfence {" in gone["shop/db"]
    assert (await world.ok("GET", "/enforcement"))["revision"] == 1
    code, _, said = await world.run("enforce", "shop", "--rules", "--yes")
    assert (code, said) == (3, "error: --rules goes with --dry-run\n")
