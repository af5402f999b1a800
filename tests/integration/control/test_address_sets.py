"""Address sets through the real control plane, their lists from a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from ringfence.control import address_sets as keeping
from ringfence.control.address_sets import AddressSetKeeper
from ringfence.control.audit import Author
from ringfence.control.errors import ConflictError
from ringfence.control.identity import Principal, Role
from ringfence.control.metrics import Metrics
from ringfence.feeds.lists import fetch_list
from ringfence.model.address import Network, parse_network
from ringfence.model.address_set import AddressSet, Fetched, Source, Uploaded
from ringfence.model.ids import DEFAULT_TENANT, AddressSetName
from ringfence.policy.difference import DocumentKind
from ringfence.store.relational.address_sets import (
    Refreshed,
    all_address_sets,
    load_contents,
    put_address_sets,
)
from ringfence.store.relational.database import Database
from ringfence.store.relational.removal import remove_document
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_flows_api import POD, categories, report
from tests.integration.control.test_policy_language import allowed_to
from tests.integration.world import FRONT as FRONT_IP
from tests.integration.world import ITEMS, Agent
from tests.unit.control.shop import DB, FRONT, NODE

LOOPBACK = (parse_network("127.0.0.0/8"),)
SCOPE = """\
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
"""
WORKSPACE = """\
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: all
  catchAll: {inbound: ALLOW, outbound: DENY}
  policies:
    - id: partners
      action: ALLOW
      consumer: {scope: all}
      provider: {addressSet: partners}
      protocol: TCP
      ports: [443]
"""
QUESTION = {"source": "shop/front", "destination": "203.0.113.77", "port": 443}


def address_set(spec: str, name: str = "partners") -> str:
    return (
        "---\napiVersion: ringfence.io/v1alpha1\nkind: AddressSet\n"
        f"metadata: {{name: {name}}}\nspec: {spec}\n"
    )


@dataclass
class Lists:
    """A web server with one page, and what it was asked."""

    port: int = 0
    status: str = "200 OK"
    headers: str = ""
    body: bytes = b""
    asked: list[str] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        self.came.set()
        head = f"HTTP/1.1 {self.status}\r\n{self.headers}Content-Length: {len(self.body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + self.body)
        await writer.drain()
        writer.close()

    @property
    def spec(self) -> str:
        return f"{{url: 'http://127.0.0.1:{self.port}/drop.txt', every: 5m}}"


@pytest.fixture
async def lists() -> AsyncIterator[Lists]:
    served = Lists()
    server = await asyncio.start_server(served.answer, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    yield served
    server.close()
    await server.wait_closed()


async def apply(world: World, documents: str) -> Any:
    files = {"files": [{"name": "shop.yaml", "documents": documents}]}
    return await world.ok("POST", "/apply", json=files)


async def refused(world: World, method: str, path: str, **more: Any) -> str:
    answer = await world.http.request(method, f"/api/v1{path}", **more)
    assert answer.is_client_error, answer.text
    return str(answer.json()["detail"])


async def enforcing(world: World, documents: str) -> FakeNode:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await apply(world, SCOPE + documents + WORKSPACE)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    node = FakeNode(await world.enrol("agent", "n1"))
    await node.tell()
    return node


async def test_a_list_is_fetched_enforced_and_kept_when_it_goes_bad(
    start: Callable[..., Awaitable[World]], lists: Lists
) -> None:
    world = await start(fetch_networks=LOOPBACK)
    lists.body = b"; of partners\n203.0.113.0/25 ; SBL1\n2001:db8::-2001:db8::ff\n"
    node = await enforcing(world, address_set(lists.spec))
    await asyncio.wait_for(lists.came.wait(), 20)  # by itself
    found = await world.ok("POST", "/address-sets/partners/refresh")
    assert (found["ranges"], found["problem"], found["every"]) == (2, "", "5m")
    assert "Host: 127.0.0.1" in lists.asked[0]
    blocks = {"203.0.113.0/25", "2001:db8::/120"}
    directive = await node.directive()
    if not allowed_to(directive):  # that of before the list had come
        directive = await node.directive()
    assert {str(one) for one in allowed_to(directive)} == blocks
    assert (await world.ok("GET", "/why", params=QUESTION))["allowed"]

    for status, headers, body, why in (
        ("500 Oops", "", b"", "answered 500"),
        ("200 OK", "", b"# nothing any more\n", "no address in it"),
        ("200 OK", "", b"<html>\nsorry\n", "line 1: '<html>' is not a CIDR block"),
        ("200 OK", "", b"203.0.113.9\n0.0.0.0/1\n", "half or more of all IPv4"),
        ("200 OK", "", b"203.0.113.9 " * 200_000, "longer than 2,097,152 bytes"),
        ("302 Found", "Location: file:///etc/passwd\r\n", b"", "redirects are not followed"),
        ("200 OK", "X secret: y\r\n", b"", "does not speak HTTP as it should"),
        ("200 OK", "Content-Encoding: gzip\r\n", b"", "an encoding that was not asked for"),
    ):
        lists.status, lists.headers, lists.body = status, headers, body
        found = await world.ok("POST", "/address-sets/partners/refresh")
        assert why in found["problem"]
        assert "secret" not in found["problem"]
        assert (found["ranges"], found["refreshed_at"] < found["tried_at"]) == (2, True)
    assert (await world.ok("GET", "/why", params=QUESTION))["allowed"]
    code, out, said = await world.run("get", "address-sets")
    assert code == 0
    assert "an encoding that was not asked for" in out
    assert "not refreshed, and as they were: partners" in said
    assert "ringfence_address_sets_failing 1.0" in (await world.http.get("/metrics")).text

    world = await start(fetch_networks=LOOPBACK)  # what it held outlives the process
    assert (await world.ok("GET", "/why", params=QUESTION))["allowed"]
    lists.status, lists.headers, lists.body = "200 OK", "", b'["198.51.100.1", "203.0.113.7"]'
    assert (await world.run("address-sets", "refresh", "partners"))[0] == 0
    assert not (await world.ok("GET", "/why", params=QUESTION))["allowed"]
    code, out, _ = await world.run("address-sets", "show", "partners", "-o", "csv")
    assert (code, out.split()) == (0, ["ADDRESS", "198.51.100.1", "203.0.113.7"])


async def test_urls_lead_nowhere_inside(world: World, lists: Lists) -> None:
    """Without a word of the operator's no URL is asked that is not public, whatever its name."""
    lists.body = b"203.0.113.9\n"
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"):
        await apply(world, address_set(f"{{url: 'http://{host}:{lists.port}/x', every: 1h}}"))
        found = await world.ok("POST", "/address-sets/partners/refresh")
        assert "no public address" in found["problem"], host
    assert not lists.asked
    said = {
        "{url: 'file:///etc/passwd', every: 1h}": "spec.url: 'file:///etc/passwd' is no URL",
        "{url: 'http://me:secret@example.org/', every: 1h}": "a user or a password",
        "{url: 'http://example.org/', every: 1m}": "'1m' is no interval from 5m to 7d",
        "{url: 'http://example.org/'}": "go together",
        "{uploaded: true, addresses: [192.0.2.1]}": "exactly one of",
        "{addresses: [192.0.2.9-192.0.2.1]}": "is no range",
        "{addresses: ['::/0']}": "half or more of all IPv6",
    }
    for spec, why in said.items():
        files = {"files": [{"name": "x.yaml", "documents": address_set(spec)}]}
        detail = await refused(world, "POST", "/apply", json=files)
        assert why in detail
        assert detail.startswith("x.yaml:")


async def test_one_list_that_cannot_be_had_stops_no_other(
    start: Callable[..., Awaitable[World]], lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(url: str, networks: tuple[Network, ...]) -> str:
        if url.endswith("/bug"):
            raise RuntimeError("a bug of ours")
        return await fetch_list(url, networks)

    monkeypatch.setattr(keeping, "fetch_list", fetch)
    world = await start(fetch_networks=LOOPBACK)
    lists.body = b"203.0.113.9\n"
    bad = [address_set("{url: 'http://192.0.2.1/bug', every: 5m}", f"a{n}") for n in range(8)]
    await apply(world, "".join((*bad, address_set(lists.spec))))
    await asyncio.wait_for(lists.came.wait(), 20)
    (found,) = [
        one for one in (await world.ok("GET", "/address-sets"))["items"] if one["name"] == "a0"
    ]
    assert found["problem"] == "the control plane failed to read it: RuntimeError"
    assert "ringfence_address_sets_failing 8.0" in (await world.http.get("/metrics")).text
    found = await world.ok("POST", "/address-sets/a0/refresh")
    assert "RuntimeError" in found["problem"]


@pytest.mark.parametrize("source", ["url", "uploaded"])
@pytest.mark.parametrize("replaced", [True, False])
async def test_no_list_gets_into_a_set_that_was_changed_meanwhile(
    tmp_path: Path, lists: Lists, source: str, replaced: bool
) -> None:
    lists.body, name = b"203.0.113.9\n", AddressSetName("partners")
    url = f"http://127.0.0.1:{lists.port}/x"
    sources: dict[str, Source] = {"url": Fetched(url, 300), "uploaded": Uploaded()}
    author = Author(Principal("me", DEFAULT_TENANT, Role.ADMIN, None), "here")
    database = Database(f"sqlite:///{tmp_path / 'control.db'}")
    await database.start()
    try:
        keeper = AddressSetKeeper(time_ns, database, DEFAULT_TENANT, LOOPBACK, Metrics())
        async with database.write() as connection:
            made = [AddressSet(name, sources[source])]
            await put_address_sets(connection, DEFAULT_TENANT, made, "me", 1)
        await keeper.reload()
        async with database.write() as connection:  # and the keeper has not heard of it yet
            await remove_document(connection, DEFAULT_TENANT, DocumentKind.ADDRESS_SET, name)
            if replaced:
                other = [AddressSet(name, Fetched(f"{url}/other", 300))]
                await put_address_sets(connection, DEFAULT_TENANT, other, "me", 2)
        with pytest.raises(ConflictError, match="changed meanwhile"):
            await (
                keeper.refresh(name)
                if source == "url"
                else keeper.upload(name, "203.0.113.9", author)
            )
        async with database.read() as connection:
            assert await load_contents(connection, DEFAULT_TENANT) == []
            held = await all_address_sets(connection, DEFAULT_TENANT)
        assert [one.refreshed for one in held] == [Refreshed()] * replaced
        assert keeper.contents.latest(name) is None
    finally:
        await database.stop()


async def test_uploaded_lists_and_what_uses_them(world: World, tmp_path: Path) -> None:
    node = await enforcing(world, address_set("{uploaded: true}"))
    directive = await node.directive()
    assert not allowed_to(directive)
    plan = await world.ok("POST", "/enforcement", json={
        "workspaces": [{"name": "shop"}], "dry_run": True,
    })  # fmt: skip
    assert any("stands for nobody" in one for one in plan["warnings"])

    file = tmp_path / "partners.txt"
    file.write_text("203.0.113.77\nnonsense\n10.0.0.1/8\n")
    code, _, said = await world.run("address-sets", "upload", "partners", str(file))
    assert code == 1
    assert "line 2: 'nonsense'" in said
    assert "line 3: '10.0.0.1/8'" in said
    file.write_text("203.0.113.77 # the one\n10.0.0.2\n")
    code, _, said = await world.run("address-sets", "upload", "partners", str(file))
    assert (code, said) == (0, "partners holds 2 ranges\n")
    assert {str(one) for one in allowed_to(await node.directive())} == {
        "203.0.113.77/32", "10.0.0.2/32",
    }  # fmt: skip
    assert (await world.ok("GET", "/why", params={**QUESTION, "destination": "shop/db"}))["allowed"]

    detail = await refused(world, "DELETE", "/documents/AddressSet/partners")
    assert "policy shop/partners" in detail
    assert "policy shop@p1/partners" in detail
    code, _, said = await world.run("delete", "address-set", "partners")
    assert code == 1
    assert "is used by policy shop/partners" in said

    await world.ok("DELETE", "/enforcement")
    for kind, name in (("workspace", "shop"), ("address-set", "partners"), ("scope", "all")):
        code, _, said = await world.run("delete", kind, name)
        assert (code, said) == (0, f"deleted {kind} {name}\n")
    assert (await world.ok("GET", "/address-sets"))["items"] == []
    assert (await world.ok("GET", "/scopes"))["items"] == []
    assert (await world.ok("GET", "/workspaces"))["items"] == []
    changes = [one["what"] for one in (await world.ok("GET", "/changes"))["items"]]
    assert changes[:3] == [
        "deleted Scope all", "deleted AddressSet partners", "deleted Workspace shop",
    ]  # fmt: skip
    assert "uploaded address set partners: 2 ranges, 2 new, 0 gone" in changes
    assert "workspace 'shop' was deleted" in await refused(world, "GET", "/workspaces/shop")

    again = await apply(world, SCOPE + address_set("{addresses: [192.0.2.0/25]}") + WORKSPACE)
    assert [one["version"] for one in again["changes"]] == [None, None, 2]


async def test_analysis_judges_by_what_a_set_held_then(world: World, clock: Clock) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    await apply(world, SCOPE + address_set("{uploaded: true}") + WORKSPACE)
    agent = await world.enrol("agent", "node1")
    for number, text in enumerate(("203.0.113.0/24\n", "192.0.2.0/24\n")):
        await world.ok("POST", "/address-sets/partners/upload", json={"text": text})
        seen, now_ns = Agent("node1"), clock()
        provider = f"203.0.113.{number}"  # another one, for a conversation is judged as it began
        seen.saw(POD, 7, FRONT_IP, (provider, 443), first_ns=now_ns, last_ns=now_ns)
        await report(agent, seen, f"node1-{number}", clock.end_window())
    asked = {"workspace": "shop", "since": "1d"}
    answer = await world.ok("GET", "/analysis", params=asked)
    assert categories(answer) == {"permitted": 1, "escaped": 1}
    told = {one["flow"]["first"]: one["category"] for one in answer["records"]}
    assert [told[at] for at in sorted(told)] == ["permitted", "escaped"]


async def test_a_set_that_is_not_there_is_refused_with_its_place(world: World) -> None:
    files = {"files": [{"name": "shop.yaml", "documents": SCOPE + WORKSPACE}]}
    detail = await refused(world, "POST", "/apply", json=files)
    assert detail.startswith("shop.yaml:")
    assert "provider.addressSet: there is no address set 'partners'" in detail
