"""No route but health is served without a valid token, and tokens are kept nowhere in clear."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from ringfence.control.auth import digest
from ringfence.control.identity import Role
from ringfence.store.relational.database import Database
from ringfence.store.relational.tokens import Token, add_token
from tests.integration.control.conftest import World

OPEN = {("GET", "/healthz"), ("GET", "/readyz")}


def app_of(world: World) -> FastAPI:
    """The application that the server serves."""
    assert world.plane.app is not None
    return world.plane.app


def routes(world: World) -> Iterator[tuple[str, str]]:
    """Every (method, path) of the routing table, ids filled in."""
    for route in iter_route_contexts(app_of(world).routes):
        assert route.path is not None, f"{route} is walked nowhere"
        for method in route.methods or ():
            yield method, re.sub(r"\{\w+\}", "some", route.path)


async def give(world: World, token: str, role: Role, expires_ns: int | None) -> None:
    """Make a token known, past the API."""
    database = Database(f"sqlite:///{world.data_dir / 'control.db'}")
    await database.start()
    async with database.write() as connection:
        made = Token(digest(token), "default", "vera", role, 0, expires_ns)  # type: ignore[arg-type]
        await add_token(connection, made)
    await database.stop()


async def test_every_route_demands_a_token(world: World) -> None:
    await give(world, "expired", Role.ADMIN, 1)
    walked = set(routes(world))
    assert ("POST", "/api/v1/apply") in walked
    assert ("GET", "/metrics") in walked
    assert ("GET", "/api/v1/openapi.json") in walked
    wrong = ({"Authorization": text} for text in ("Bearer wrong", "Bearer expired", "Basic YTpi"))
    async with httpx.AsyncClient(
        base_url=world.http.base_url, verify=world.verify, trust_env=False
    ) as anonymous:
        for headers, (method, path) in itertools.product(({}, *wrong), sorted(walked)):
            answer = await anonymous.request(method, path, headers=headers)
            if (method, path) in OPEN:
                assert answer.status_code == 200, (headers, path)
            else:
                assert answer.status_code == 401, (headers, method, path, answer.text)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert answer.json()["detail"]


async def test_a_viewer_may_only_read(world: World) -> None:
    await give(world, "seer", Role.VIEWER, None)
    headers = {"Authorization": "Bearer seer"}
    seen = await world.ok("GET", "/whoami", headers=headers)
    assert seen == {"actor": "vera", "tenant": "default", "role": "viewer", "expires_at": None}
    for method, path in routes(world):
        if method != "GET" and path != "/api/v1/enrol":
            answer = await world.http.request(method, path, headers=headers)
            assert answer.status_code == 403, path


def test_no_file_of_the_data_directory_holds_the_token(world: World) -> None:
    files = [path for path in world.data_dir.rglob("*") if path.is_file()]
    assert any(path.name == "control.db" for path in files)
    assert not any(world.token.encode() in path.read_bytes() for path in files)


def test_what_is_secret_is_private(world: World) -> None:
    assert world.data_dir.stat().st_mode & 0o777 == 0o700
    for secret in (world.data_dir / "ca.key", world.data_dir / "server.key", token_file(world)):
        assert secret.stat().st_mode & 0o777 == 0o600


def token_file(world: World) -> Path:
    """Where the administrator's token was written."""
    return world.data_dir.parent / "admin-token"


async def test_bad_input_names_the_field(world: World) -> None:
    answer = await world.http.post("/api/v1/enrolment-tokens", json={"kind": "agent"})
    assert answer.status_code == 422
    assert "kubernetes_cluster: Field required" in answer.json()["detail"]


async def test_a_token_is_made_listed_and_revoked(world: World) -> None:
    code, token, _ = await world.run("tokens", "create", "ann", "--ttl", "60")
    assert code == 0
    token = token.strip()
    seen = await world.ok("GET", "/whoami", headers={"Authorization": f"Bearer {token}"})
    assert (seen["actor"], seen["role"]) == ("ann", "admin")
    first, second = (await world.ok("GET", "/tokens"))["items"]
    assert (first["actor"], second["actor"]) == ("admin", "ann")
    _, listed, _ = await world.run("tokens", "list")
    assert second["id"] in listed
    assert token not in listed
    assert (await world.run("tokens", "revoke", second["id"]))[0] == 0
    answer = await world.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    said = [one["what"] for one in (await world.ok("GET", "/changes"))["items"]]
    assert said[:2] == [
        f"revoked token {second['id']} of ann",
        f"made token {second['id']} for ann",
    ]
    code, _, refused = await world.run("tokens", "revoke", "nothing")
    assert (code, refused) == (1, "error: there is no token 'nothing'\n")


async def test_the_last_token_that_opens_anything_stays(world: World) -> None:
    await give(world, "expired", Role.ADMIN, 1)
    (only,) = (
        one for one in (await world.ok("GET", "/tokens"))["items"] if one["actor"] == "admin"
    )
    code, _, refused = await world.run("tokens", "revoke", only["id"])
    assert code == 1
    assert "make another one first" in refused
    assert await world.ok("GET", "/whoami")
