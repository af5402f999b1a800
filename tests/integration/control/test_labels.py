"""Labels uploaded for addresses, from a file to flows, filters and other uploads."""

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from ringfence.inventory.uploaded import (
    MOST_BYTES,
    MOST_LABELS,
    MOST_NETWORKS,
    MOST_VALUE_BYTES,
    make_upload,
    written_bytes,
)
from ringfence.model.parts import PART
from ringfence.policy.design import split
from ringfence.policy.document import Documents, format_documents
from ringfence.store.relational import tables
from ringfence.store.relational.database import Database
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import POD, apply, report
from tests.integration.world import CARTS, CLUSTER, FRONT, ITEMS, NODE1, OUTSIDE, Agent

OFFICES = f"""address,name,site,Owner
{OUTSIDE},berlin-1,berlin,it
203.0.113.0/24,,offices,
10.1.0.0/16,pods,here,
"""


def called(at_ns: int, *providers: str) -> Agent:
    """The front end calls addresses."""
    agent = Agent("node1")
    for provider in providers:
        agent.saw(POD, 7, FRONT, (provider, 443), first_ns=at_ns, last_ns=at_ns)
    return agent


async def listed(world: World, filter_: str = "everything") -> dict[str, list[dict[str, Any]]]:
    """Providers by their addresses, the earliest flow first."""
    query = {"filter": filter_, "sort": "first"}
    found: dict[str, list[dict[str, Any]]] = {}
    for flow in reversed((await world.ok("GET", "/flows", params=query))["items"]):
        found.setdefault(flow["provider"]["address"], []).append(flow["provider"])
    return found


async def sites(world: World, **query: str) -> list[str]:
    rows = (await world.ok("GET", "/inventory", params={"kind": "network", **query}))["items"]
    return sorted(f"{row['name']} {row['labels']['user.site'][0]}" for row in rows)


@pytest.fixture
async def labelled(world: World, clock: Clock, tmp_path: Path) -> World:
    """Offices are known when the front end calls them, the Internet and a pod."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    (tmp_path / "offices.csv").write_text(OFFICES)
    code, out, said = await world.run("labels", "upload", str(tmp_path / "offices.csv"))
    assert (code, out, said) == (0, "", "labels of 3 addresses: 3 added, 0 changed, 0 removed\n")
    at_ns = clock.end_window()
    agent = called(at_ns, OUTSIDE, "203.0.113.77", "198.51.100.1", CARTS)
    assert not await report(await world.enrol("agent", "node1"), agent, "one", at_ns)
    return world


async def test_a_file_names_the_ends_of_flows(labelled: World) -> None:
    found = {address: one for address, (one,) in (await listed(labelled)).items()}
    berlin = found[OUTSIDE]
    assert (berlin["name"], berlin["kind"]) == ("berlin-1", "network")
    assert berlin["labels"] == {
        "address.type": ["public"], "user.owner": ["it"], "user.site": ["berlin"]
    }  # fmt: skip
    offices = found["203.0.113.77"]
    assert (offices["name"], offices["labels"]["user.site"]) == ("203.0.113.0/24", ["offices"])
    unknown = found["198.51.100.1"]
    assert (unknown["name"], unknown["labels"]) == ("", {"address.type": ["public"]})
    assert (found[CARTS]["name"], found[CARTS]["labels"]) == ("carts-1", {})  # the pod's own

    assert set(await listed(labelled, 'provider.user.SITE = "berlin"')) == {OUTSIDE}
    assert set(await listed(labelled, 'user.site in ("here", "offices")')) == {"203.0.113.77"}
    assert set(await listed(labelled, 'kind = "network" and not user.owner exists')) == {
        "203.0.113.77"
    }
    code, out, said = await labelled.run("flows", "list", "-o", "wide", "-f", 'name = "berlin-1"')
    assert (code, said) == (0, "")
    assert f"berlin-1 ({OUTSIDE})" in out
    assert "address.type=public user.owner=it user.site=berlin" in out
    top = {"by": "provider.user.site,provider.workload", "filter": "provider.user.site exists"}
    groups = (await labelled.ok("GET", "/flows/top", params=top))["items"]
    assert [one["group"]["provider.workload"] for one in groups] == ["berlin-1", "203.0.113.0/24"]


async def test_flows_keep_the_labels_of_their_time(
    labelled: World, clock: Clock, start: Callable[[], Awaitable[World]], tmp_path: Path
) -> None:
    early_ns = clock.end_window()
    before = datetime.fromtimestamp(early_ns / 10**9, UTC).isoformat()
    (tmp_path / "moved.csv").write_text(f"address,name,site\n{OUTSIDE},bonn-1,bonn\n")
    code, _, said = await labelled.run("labels", "upload", str(tmp_path / "moved.csv"))
    assert (code, said) == (0, "labels of 1 address: 0 added, 1 changed, 0 removed\n")
    stub = await labelled.enrol("agent", "node1")
    at_ns = clock.end_window()
    await report(stub, called(at_ns, OUTSIDE), "two", at_ns)
    await report(stub, called(early_ns, OUTSIDE), "late", early_ns)
    await labelled.ok("POST", "/labels", json={"items": [], "replace": False})  # says nothing
    code, _, said = await labelled.run("labels", "remove", OUTSIDE, "203.0.113.0/24")
    assert (code, said) == (0, "labels of 2 addresses removed\n")
    at_ns = clock.end_window()
    await report(stub, called(at_ns, OUTSIDE), "three", at_ns)

    world = await start()
    names = [one["name"] for one in (await listed(world))[OUTSIDE]]
    assert names == ["berlin-1", "bonn-1", ""]
    first, *_ = (await world.ok("GET", "/flows", params={"filter": 'name = "berlin-1"'}))["items"]
    assert first["opened"] == 2, "what comes late has the name of its time"
    (bonn,) = (await listed(world, 'provider.user.site = "bonn"'))[OUTSIDE]
    assert bonn["name"] == "bonn-1"
    assert await sites(world) == ["pods here"]
    then = ["203.0.113.0/24 offices", "berlin-1 berlin", "pods here"]
    assert await sites(world, at=before) == then
    changes = (await world.ok("GET", "/changes"))["items"]
    assert [change["what"] for change in changes[:4] if "labels" in change["what"]] == [
        f"labels removed for 203.0.113.0/24, {OUTSIDE}",
        f"labels changed for {OUTSIDE}",
    ]


async def test_proposals_and_analysis_take_a_labelled_address_for_one_outside(
    labelled: World,
) -> None:
    await apply(labelled, format_documents(Documents(scopes=split(CLUSTER, ["sock-shop"]))))
    body = {"scope": "sock-shop", "until": None}
    found = await labelled.ok("POST", "/discover", json=body)
    for address in (OUTSIDE, "203.0.113.77", "198.51.100.1"):
        assert f"cidr: {address}/32" in found["documents"]
    await apply(labelled, found["documents"])
    answer = await labelled.ok("GET", "/analysis", params={"workspace": "sock-shop"})
    judged = [(row["category"], row["flow"]["provider"]["name"]) for row in answer["records"]]
    assert ("permitted", "berlin-1") in judged
    assert {category for category, _ in judged} == {"permitted"}


async def test_what_a_crash_kept_from_the_inventory_is_told_again(
    labelled: World, start: Callable[[], Awaitable[World]]
) -> None:
    """Labels are in the database when an upload is answered, lives of items a moment later."""
    await labelled.plane.stop()
    database = Database(f"sqlite:///{labelled.data_dir / 'control.db'}")
    await database.start()
    async with database.write() as connection:
        lost = tables.item_revisions.c.key.contains("/network/203.0.113")
        assert (await connection.execute(delete(tables.item_revisions).where(lost))).rowcount == 2
        removed = tables.uploaded_labels.c.name == "pods"
        await connection.execute(delete(tables.uploaded_labels).where(removed))
    await database.stop()
    world = await start()
    assert await sites(world) == ["203.0.113.0/24 offices", "berlin-1 berlin"]
    found = await listed(world, "provider.user.site exists")
    assert set(found) == {OUTSIDE, "203.0.113.77"}, "flows of before have their names again"


async def test_lists_can_be_uploaded_again(world: World, tmp_path: Path) -> None:
    items = [
        {"address": "10.0.0.0/8", "name": "=cmd", "labels": {"site": "+x", "a/b.c-d": "ö, \"q\""}},
        {"address": "2001:db8::9", "name": "", "labels": {"team": "'quoted"}},
    ]  # fmt: skip
    answer = await world.ok("POST", "/labels", json={"items": items})
    assert answer == {"added": 2, "changed": 0, "removed": 0, "notes": []}
    for form in ("csv", "json", "yaml"):
        code, out, _ = await world.run("labels", "list", "-o", form)
        assert code == 0
        if form == "csv":
            first, *_ = csv.DictReader(io.StringIO(out))
            assert (first["name"], first["site"]) == ("'=cmd", "'+x")
        (tmp_path / f"again.{form}").write_text(out)
        words = ("labels", "upload", str(tmp_path / f"again.{form}"), "--replace")
        code, _, said = await world.run(*words)
        assert (code, said) == (0, "labels of 2 addresses: 0 added, 0 changed, 0 removed\n"), form
    kept = (await world.ok("GET", "/labels"))["items"]
    assert [{key: one[key] for key in items[0]} for one in kept] == items
    assert {one["actor"] for one in kept} == {"admin"}
    answer = await world.ok("POST", "/labels", json={"items": items[:1], "replace": True})
    assert answer == {"added": 0, "changed": 0, "removed": 1, "notes": []}


async def test_an_item_of_kubernetes_comes_first(world: World, tmp_path: Path) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    (tmp_path / "pods.csv").write_text(f"address,site\n{CARTS},x\n{NODE1},y\n{OUTSIDE},z\n")
    code, _, said = await world.run("labels", "upload", str(tmp_path / "pods.csv"))
    count = "whose labels count while it holds the address"
    assert (code, said.splitlines()) == (0, [
        f"note: {CARTS} is pod sock-shop/carts-1, {count}",
        f"note: {NODE1} is node node1, {count}",
        "labels of 3 addresses: 3 added, 0 changed, 0 removed",
    ])  # fmt: skip


async def test_a_bad_file_changes_nothing(labelled: World, tmp_path: Path) -> None:
    kept = await labelled.ok("GET", "/labels")
    bad = tmp_path / "bad.csv"
    bad.write_text(f"address,site\n{OUTSIDE},x\n300.1.1.1,y\n")
    code, out, said = await labelled.run("labels", "upload", str(bad), "--replace")
    assert (code, out, said.count("\n")) == (1, "", 1)
    assert "bad.csv: line 3: '300.1.1.1'" in said
    assert said.endswith("; nothing was changed\n")
    bad.write_bytes(b"address,site\n10.0.0.1,\xff\n")
    code, _, said = await labelled.run("labels", "upload", str(bad))
    assert (code, "is not UTF-8" in said) == (1, True)
    odd = tmp_path / "odd.yaml"
    odd.write_text(json.dumps([{"address": "10.0.0.1", "label": {"site": "x"}}]))
    code, _, said = await labelled.run("labels", "upload", str(odd))
    assert (code, "items.0.label: Extra inputs" in said) == (1, True)
    for wrong in (
        [{"address": "10.0.0.1", "labels": {"site": ""}}],
        [{"address": "10.0.0.1", "labels": {"site": "x", "SITE": "y"}}],
        [{"address": "10.0.0.1", "labels": {f"k{n}": "x" for n in range(33)}}],
        [{"address": "10.0.0.1"}, {"address": "10.0.0.1/32"}],
        [{"address": "10.0.0.1", "labels": {"kubernetes namespace": "x"}}],
        [{"address": f"10.{n >> 8 & 255}.{n & 255}.0/24"} for n in range(10_001)],
    ):
        answer = await labelled.http.post("/api/v1/labels", json={"items": wrong})
        assert answer.status_code == 422
        assert "items" in answer.json()["detail"]
    code, _, said = await labelled.run("labels", "remove", OUTSIDE, "192.0.2.200")
    assert (code, said) == (1, "error: no labels are uploaded for 192.0.2.200\n")
    assert await labelled.ok("GET", "/labels") == kept


def most_labels(value: str) -> list[dict[str, Any]]:
    """As many networks as may have labels, which take all the bytes that they may."""
    items: list[dict[str, Any]] = [
        {"address": f"198.51.{n >> 8}.{n & 255}", "name": "", "labels": {"site": value}}
        for n in range(MOST_NETWORKS)
    ]
    most = {f"{key:0128}": value * MOST_VALUE_BYTES for key in range(MOST_LABELS)}
    left = MOST_BYTES - size_of(items)
    for item in items:
        labels = most if left >= size_of([item | {"labels": most}]) else {"site": value * 20}
        left -= size_of([item | {"labels": labels}]) - size_of([item])
        if left < 0:
            break
        item["labels"] = labels
    return items


def size_of(items: list[dict[str, Any]]) -> int:
    return written_bytes(make_upload(one["address"], one["name"], one["labels"]) for one in items)


async def test_as_much_as_may_be_uploaded_is_taken_changed_listed_and_known(
    world: World, clock: Clock
) -> None:
    items = most_labels("x")
    assert MOST_BYTES - 300 < size_of(items) <= MOST_BYTES
    assert max(len(one["labels"]) for one in items) == MOST_LABELS

    async def send(items: list[dict[str, Any]]) -> tuple[int, str]:
        body = {"items": items, "replace": True}
        answer = await world.http.post("/api/v1/labels", json=body)
        return answer.status_code, answer.text

    assert (await send(items))[0] == 200
    changed = most_labels("y")
    told = f'{{"added":0,"changed":{MOST_NETWORKS},"removed":0,"notes":[]}}'
    assert await send(changed) == (200, told)
    kept = (await world.ok("GET", "/labels"))["items"]
    assert {one["address"]: one["labels"] for one in kept} == {
        one["address"]: one["labels"] for one in changed
    }
    await publish(await world.enrol("connector", "c"), ITEMS)
    at_ns = clock.end_window()
    agent = called(at_ns, changed[-1]["address"])
    await report(await world.enrol("agent", "node1"), agent, "now", at_ns)
    (found,) = (await listed(world, 'provider.user.site = "y"'))[changed[-1]["address"]]
    assert found["name"] == changed[-1]["address"]
    one_more = {"address": "192.0.2.1", "name": "", "labels": {}}
    longer = {**changed[-1], "name": "n" * 256}, {**changed[-2], "name": "n" * 256}
    for wrong, why in (
        ([*changed, one_more], f"at most {MOST_NETWORKS} items"),
        ([*changed[:-2], *longer], f"more than the {MOST_BYTES:,}"),
    ):
        status, problem = await send(wrong)
        assert (status, why in problem) == (422, True), problem
    status, _ = await send([{**one, "name": "n" * 250} for one in changed])
    assert status == 413


async def test_others_have_their_turn_while_labels_change(world: World) -> None:
    """Each change of the inventory comes in a turn of its own of the event loop."""
    turns, changes = 0, list[int]()
    services = world.plane.app.state.services  # type: ignore[union-attr]
    services.inventory.subscribe(lambda: changes.append(turns))

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    for value in ("x", "y"):
        await world.ok("POST", "/labels", json={"items": most_labels(value)})
    counting.cancel()
    assert len(changes) >= 3 * MOST_NETWORKS // PART
    assert len(set(changes)) == len(changes)
