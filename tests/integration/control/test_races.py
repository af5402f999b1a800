"""Changes at one time, on either database: they happen one after the other, or are refused."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.integration.control.conftest import World
from tests.integration.control.test_requests import HEAD

Start = Callable[..., Awaitable[World]]


@pytest.fixture(params=["sqlite", "postgresql"])
async def shared(request: pytest.FixtureRequest, start: Start) -> World:
    """A control plane on each kind of database."""
    if request.param == "sqlite":
        return await start()
    return await start(database_url=request.getfixturevalue("postgresql_url"))


ROOT = f"{HEAD}kind: Scope\nmetadata: {{name: all}}\nspec: {{query: everything}}\n---\n"


def scope(name: str, parent: str = "all") -> str:
    inside = f"{{parent: {parent}, query: everything}}"
    return f"{HEAD}kind: Scope\nmetadata: {{name: {name}}}\nspec: {inside}\n"


def workspace(name: str) -> str:
    catch_all = "{inbound: DENY, outbound: DENY}"
    spec = f"{{scope: a, catchAll: {catch_all}}}"
    return f"{HEAD}kind: Workspace\nmetadata: {{name: {name}}}\nspec: {spec}\n"


async def at_once(world: World, *documents: str) -> Counter[int]:
    """Apply each by itself, all at one time; how often each status was answered."""
    answers = await asyncio.gather(
        *(
            world.http.post("/api/v1/apply", json={"files": [{"name": "f", "documents": one}]})
            for one in documents
        )
    )
    return Counter(answer.status_code for answer in answers)


async def test_one_of_many_becomes_the_primary_workspace(shared: World) -> None:
    assert await at_once(shared, ROOT + scope("a")) == {200: 1}
    assert await at_once(shared, *map(workspace, ("w1", "w2", "w3", "w4"))) == {200: 1, 422: 3}
    assert len((await shared.ok("GET", "/workspaces"))["items"]) == 1


async def test_two_scopes_never_become_their_own_ancestors(shared: World) -> None:
    for _ in range(3):
        assert await at_once(shared, f"{ROOT}{scope('a')}---\n{scope('b')}") == {200: 1}
        assert await at_once(shared, scope("a", "b"), scope("b", "a")) == {200: 1, 422: 1}
    assert await at_once(shared, scope("c")) == {200: 1}


async def test_the_last_tokens_are_not_revoked_at_once(shared: World) -> None:
    await shared.ok("POST", "/tokens", json={"actor": "another"})
    held = (await shared.ok("GET", "/tokens"))["items"]
    answers = await asyncio.gather(
        *(shared.http.delete(f"/api/v1/tokens/{one['id']}") for one in held)
    )
    assert [answer.status_code for answer in answers].count(204) == 1
