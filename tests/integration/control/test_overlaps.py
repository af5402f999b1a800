"""What is decided on one state is not written on another: a change meanwhile has it refused."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from types import ModuleType
from typing import Any

import pytest

from ringfence.control import planning as planning_module
from ringfence.control import requests as requests_module
from ringfence.store.errors import StoreError
from ringfence.store.relational.address_sets import all_address_sets
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_requests import (
    HEAD,
    SCOPES,
    TO_DB,
    allow,
    apply,
    workspace,
)
from tests.unit.control.shop import DB, FRONT, NODE

DBS = (
    f"---\n{HEAD}kind: Filter\nmetadata: {{name: dbs}}\n"
    "spec: {scope: all, query: 'name = \"db\"'}\n"
)
Answer = Coroutine[Any, Any, Any]


async def meanwhile(
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[ModuleType, str],
    first: Callable[[], Answer],
    second: Callable[[], Answer],
) -> tuple[Any, Any]:
    """Do the second while the first is in a function of a module first; what both answered.

    Neither is begun by the caller: one that nothing awaits would fail whatever test runs later.
    """
    module, name = place
    real, came, go_on = getattr(module, name), threading.Event(), threading.Event()

    def held_up(*given: Any) -> Any:
        if not came.is_set():
            came.set()
            assert go_on.wait(30)
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, held_up)
        task = asyncio.create_task(first())
        try:
            assert await asyncio.to_thread(came.wait, 30)
            then = await second()
        finally:
            go_on.set()
            answer = await task
    return answer, then


async def prepare(world: World) -> None:
    """Workspace front, of which version 1 alone names a filter."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await apply(
        world, SCOPES, DBS, workspace("front", allow("p", "scope: front", "namedFilter: dbs", 1))
    )
    await apply(world, workspace("front"))


def enforce(world: World, version: int) -> Answer:
    wanted = {"workspaces": [{"name": "front", "version": version}]}
    return world.http.post("/api/v1/enforcement", json=wanted)


@pytest.mark.parametrize(
    ("version", "gone"), [(1, "Filter/dbs"), (2, "Workspace/front")], ids=["filter", "workspace"]
)
async def test_what_is_deleted_while_enforcing_it_is_planned_is_not_enforced(
    world: World, monkeypatch: pytest.MonkeyPatch, version: int, gone: str
) -> None:
    await prepare(world)
    enforced, deleted = await meanwhile(
        monkeypatch,
        (planning_module, "affected"),
        lambda: enforce(world, version),
        lambda: world.http.delete(f"/api/v1/documents/{gone}"),
    )
    assert deleted.status_code == 204
    assert enforced.status_code == 409, enforced.text
    assert (await world.ok("GET", "/enforcement"))["revision"] == 0


async def test_a_quarantine_waits_for_no_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(world)
    enforced, set_ = await meanwhile(
        monkeypatch,
        (planning_module, "affected"),
        lambda: enforce(world, 1),
        lambda: world.http.post("/api/v1/quarantines", json={"workload": "shop/db"}),
    )
    assert set_.is_success, set_.text
    assert enforced.is_success, enforced.text


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        ("enforcement", {"workspaces": [{"name": "front", "version": 2}]}, "meanwhile"),
        (
            "enforcement/kubernetes",
            {"kubernetes_cluster": "lab", "confirm_seconds": 60},
            "on trial",
        ),
    ],
)
async def test_what_is_enforced_while_another_is_planned_stands(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, body: object, refused: str
) -> None:
    await prepare(world)
    enforced, other = await meanwhile(
        monkeypatch,
        (planning_module, "affected"),
        lambda: enforce(world, 1),
        lambda: world.http.post(f"/api/v1/{path}", json=body),
    )
    assert other.is_success, other.text
    assert enforced.status_code == 409
    assert refused in enforced.text


async def test_an_enforced_set_without_meaning_stands_in_the_way_of_nothing(world: World) -> None:
    await prepare(world)
    assert (await enforce(world, 1)).is_success
    with closing(sqlite3.connect(world.data_dir / "control.db")) as database, database:
        assert database.execute("DELETE FROM filters WHERE name = 'dbs'").rowcount == 1
    files = [{"name": "f", "documents": workspace("db")}]
    applied = await world.ok("POST", "/apply", json={"files": files})
    assert "no filter 'dbs'" in "".join(applied["warnings"])
    assert (await world.http.delete("/api/v1/documents/Workspace/db")).status_code == 204
    planned = await world.ok("DELETE", "/enforcement", params={"dry_run": True})
    assert planned["changes"] == ["workspace front: no longer enforced"]
    assert "no filter 'dbs'" in "".join(planned["warnings"])
    await apply(world, DBS)  # which mends it
    await world.ok("DELETE", "/enforcement")
    assert (await world.ok("GET", "/enforcement"))["workspaces"] == []


async def test_enforcement_ends_without_the_workspace_that_is_enforced(world: World) -> None:
    await prepare(world)
    assert (await enforce(world, 1)).is_success
    with closing(sqlite3.connect(world.data_dir / "control.db")) as database, database:
        assert database.execute("UPDATE workspaces SET deleted = TRUE").rowcount == 1
    await apply(world, workspace("db"))
    await world.ok("DELETE", "/enforcement")
    assert (await world.ok("GET", "/enforcement"))["workspaces"] == []


async def test_a_rule_that_is_removed_meanwhile_grants_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(world)
    await apply(world, workspace("db"))
    wanted = {"provider_workspace": "db", "scope": "front"}
    rule = (await world.ok("POST", "/approval-rules", json=wanted))["id"]
    requests, _ = await meanwhile(
        monkeypatch,
        (requests_module, "needed"),
        lambda: apply(world, workspace("front", TO_DB)),
        lambda: world.ok("DELETE", f"/approval-rules/{rule}"),
    )
    assert [one["state"] for one in requests] == ["pending"]
    assert (await world.ok("GET", "/workspaces/db/versions"))["items"][0]["version"] == 1


async def test_approving_brings_no_deleted_workspace_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(world)
    (request,) = await apply(world, workspace("db"), workspace("front", TO_DB))

    async def delete() -> asyncio.Task[Any]:
        """Which is answered after the approval, but done before."""
        task = asyncio.create_task(world.http.delete("/api/v1/documents/Workspace/db"))
        while len((await world.ok("GET", "/workspaces"))["items"]) > 1:
            pass
        return task

    await apply(world, workspace("nodes"), dry_run=True)  # so that the answer is no longer known
    approved, deleted = await meanwhile(
        monkeypatch,
        (requests_module, "needed"),
        lambda: world.http.post(f"/api/v1/requests/{request['id']}/approve", json={}),
        delete,
    )
    assert approved.status_code == 409
    assert (await deleted).status_code == 204
    assert [one["name"] for one in (await world.ok("GET", "/workspaces"))["items"]] == ["front"]


async def test_what_fails_after_a_change_does_not_make_it_look_undone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(world)
    (request,) = await apply(world, workspace("db"), workspace("front", TO_DB))

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(requests_module, "needed", broken)
    approved = await world.ok("POST", f"/requests/{request['id']}/approve", json={})
    assert approved["state"] == "approved"
    files = [{"name": "f", "documents": workspace("nodes")}]
    applied = await world.ok("POST", "/apply", json={"files": files})
    assert "is not known yet: RuntimeError('a bug')" in "".join(applied["warnings"])
    back = await world.ok("POST", "/workspaces/front/rollback", json={"version": 1})
    assert back["version"] == 4
    gone = await world.http.delete("/api/v1/documents/Workspace/nodes")
    assert gone.status_code == 204


async def test_address_sets_that_could_not_be_taken_up_are_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ringfence.control.address_sets.all_address_sets"

    async def failing_once(*given: Any) -> Any:
        monkeypatch.setattr(name, all_address_sets)
        raise StoreError("no luck")

    monkeypatch.setattr(name, failing_once)
    document = f"{HEAD}kind: AddressSet\nmetadata: {{name: s}}\nspec: {{addresses: [192.0.2.1]}}\n"
    files = [{"name": "f", "documents": SCOPES + "---\n" + document}]
    applied = await world.ok("POST", "/apply", json={"files": files})
    assert "address sets hold what they held, for now: no luck" in applied["warnings"]
    async with asyncio.timeout(10):
        while not (await world.http.get("/api/v1/address-sets/s")).is_success:
            pass
    assert (await world.ok("GET", "/address-sets/s"))["ranges"] == 1
