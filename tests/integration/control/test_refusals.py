"""What a person and a client are told when a real control plane refuses them."""

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.main import FAILED, FOUND, OK, UNAUTHENTICATED, USAGE
from ringfence.control.agents import TOLERATED_SKEW_NS
from ringfence.control.identity import Role
from ringfence.link.enrolment import enrol
from ringfence.link.errors import RefusedError
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.store.errors import StaleError
from tests.integration.control.conftest import World
from tests.integration.control.test_authentication import give
from tests.integration.control.test_enforcement import FakeNode
from tests.unit.control.shop import CLUSTER, DOCUMENTS


async def refused(world: World, *words: str, token: str = "") -> tuple[int | None, str]:
    """The exit code of a command that is refused, and the one line that it says."""
    code, out, said = await world.run(*words, token=token)
    assert not out
    (line,) = said.splitlines()
    return code, line


async def test_an_expired_token(world: World) -> None:
    await give(world, "expired", Role.ADMIN, 1)
    code, said = await refused(world, "agents", token="expired")
    assert code == UNAUTHENTICATED
    assert "has expired; ask an administrator for a new one" in said


async def test_bad_yaml_names_file_line_and_field(world: World, tmp_path: Path) -> None:
    good, bad = tmp_path / "a-good.yaml", tmp_path / "b-bad.yaml"
    good.write_text(DOCUMENTS.split("---")[0])
    bad.write_text(DOCUMENTS.replace("TCP", "TCPX"))
    line = 1 + DOCUMENTS[: DOCUMENTS.index("TCP")].count("\n")
    for command in ("diff", "apply"):
        code, said = await refused(world, command, "-f", str(tmp_path))
        assert code == FAILED
        assert said.startswith(f"error: {bad}:{line}: spec.policies[0].protocol: ")


OVER = 10**11


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/tokens", {"json": {"actor": "ann", "ttl_seconds": OVER}}),
        ("POST", "/tokens", {"json": {"actor": "ringfence"}}),
        ("GET", "/changes", {"params": {"before": 2**63}}),
        ("GET", "/workspaces/shop", {"params": {"version": OVER}}),
        ("POST", "/workspaces/shop/rollback", {"json": {"version": OVER}}),
        ("POST", "/enforcement", {"json": {"workspaces": [{"name": "shop", "version": OVER}]}}),
        ("GET", "/analysis", {"params": {"workspace": "shop", "version": OVER}}),
        ("GET", "/versions/difference", {"params": {"old": f"shop@{OVER}", "new": "shop"}}),
        ("GET", "/versions/difference", {"params": {"old": "shop@0", "new": "shop"}}),
    ],
)
async def test_numbers_have_bounds(
    world: World, method: str, path: str, more: dict[str, Any]
) -> None:
    answer = await world.http.request(method, f"/api/v1{path}", **more)
    assert answer.status_code == 422, answer.text


async def test_what_was_applied_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise StaleError("somebody else was faster")

    assert world.plane.app is not None
    monkeypatch.setattr(world.plane.app.state.services.requests, "refresh", fail)
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    answer = await world.ok("POST", "/apply", json=files)
    assert "somebody else was faster" in answer["warnings"][-1]
    assert [one["version"] for one in answer["changes"]] == [None, None, 1]


async def test_where_a_change_came_from_is_not_for_the_client_to_say(world: World) -> None:
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files, headers={"X-Forwarded-For": "10.66.66.66"})
    newest = (await world.ok("GET", "/changes", params={"object": "shop"}))["items"][0]
    assert newest["source"] == "127.0.0.1"
    assert not (await world.ok("GET", "/changes", params={"object": "SHOP"}))["items"]


REFUSALS: list[tuple[list[str], int, str]] = [
    (["inventory", "-f", 'kubernetes.namespce = "x"'], USAGE, "mean kubernetes.namespace?"),
    (["flows", "list", "-f", 'consumr.name = "x"'], USAGE, "mean consumer.name?"),
    (["flows", "list", "-f", "port = 80 and and"], USAGE, "line 1, column 18"),
    (["flows", "denied", "--since", "abc"], USAGE, "'abc' is neither a time"),
    (["flows", "list", "--since", "1m", "--until", "5m"], USAGE, "comes after until '5m'"),
    (["discover", "nowhere"], FAILED, "there is no scope 'nowhere'"),
    (["why", "nobody", "10.0.0.1", "80"], FAILED, "'nobody' is no pod"),
    (["get", "policies", "nothing"], FAILED, "nothing"),
    (["agents", "mode", "n", "detailed", "--kubernetes-cluster", "x"], FAILED, "cluster 'x'"),
    (["flows", "related", "sock-shop/nobody", "carts", "80"], OK, "no flow matches"),
]


async def test_what_is_the_command_line_and_what_the_cluster(world: World) -> None:
    for words, code, says in REFUSALS:
        found, said = await refused(world, *words)
        assert (found, says in said) == (code, True), said


async def test_a_proposal_from_nothing_warns(world: World, tmp_path: Path) -> None:
    scopes = tmp_path / "scopes.yaml"
    scopes.write_text(DOCUMENTS.rpartition("---")[0])
    await world.run("apply", "-f", str(scopes))
    code, proposed, said = await world.run("discover", "shop")
    assert code == FOUND
    assert proposed.startswith("apiVersion")
    assert "warning: no connection was observed" in said


async def test_a_spent_and_an_expired_enrolment_token(world: World, tmp_path: Path) -> None:
    config = LinkConfig(
        server=str(world.http.base_url),
        ca_file=world.data_dir / "ca.pem",
        token_file=tmp_path / "token",
        state_dir=tmp_path / "state",
        kind=ClientKind.AGENT,
        name="n1",
        kubernetes_cluster=CLUSTER,
    )
    config.token_file.write_text(await world.enrolment_token("agent"))
    await enrol(config)
    with pytest.raises(RefusedError, match="expired or used up; make a new one"):
        await enrol(config)
    config.token_file.write_text(await world.enrolment_token("agent"))
    with contextlib.closing(sqlite3.connect(world.data_dir / "control.db")) as held, held:
        held.execute("UPDATE enrolment_tokens SET expires_ns = 1")
    with pytest.raises(RefusedError, match="expired or used up; make a new one"):
        await enrol(config)


@pytest.mark.parametrize(("sign", "way"), [(1, "ahead of"), (-1, "behind")])
async def test_an_agent_whose_clock_is_off(world: World, sign: int, way: str) -> None:
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(clock_ns=time.time_ns() + sign * 2 * TOLERATED_SKEW_NS)
    await agent.directive()
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert seen["stale_reason"].startswith("the clock of n1 is ")
    assert seen["stale_reason"].endswith(f" s {way} the control plane's; synchronise both with NTP")
