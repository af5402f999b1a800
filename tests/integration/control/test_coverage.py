"""Whether what was seen of a scope is enough to decide by, asked of the API and by the command."""

import json
import time
from typing import Any

from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import apply, report, through_service
from tests.integration.world import ITEMS

SCOPES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: silent}
spec: {parent: all, query: 'name = "user-db-1"'}
"""


async def test_a_scopes_coverage_is_told_by_api_and_command(world: World) -> None:
    await apply(world, SCOPES)
    await publish(await world.enrol("connector", "c"), ITEMS)
    before = await world.ok("GET", "/coverage", params={"scope": "all"})
    assert (before["edges"], before["unseen_edges"]) == (0, None)
    assert before["silent"] == before["workloads"] > 0
    at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    for agent in through_service(at):
        await report(await world.enrol("agent", agent.node), agent, agent.node)

    code, out, said = await world.run("coverage", "all", "--since", "10m", "-o", "json")
    assert code == 0, said
    told = json.loads(out)
    asked = await world.ok("GET", "/coverage", params={"scope": "all", "since": "10m"})
    assert told == asked
    assert (told["edges"], told["allowed"], told["unseen_edges"]) == (1, 1, None)
    assert told["workloads"] == before["workloads"]
    assert told["silent"] == before["silent"] - 2, "front-end and carts have spoken"
    assert (told["observed_a_day"], told["share"]) == (0, 0)

    code, out, said = await world.run("coverage", "all", "--since", "10m")
    assert code == 0, said
    lines = out.splitlines()
    assert lines[0] == f"0 of {told['workloads']} workloads observed for a day or more"
    assert lines[1] == "1 edge seen, 1 of them enough to be allowed"
    assert lines[2] == "0 edges of core services seen"
    assert lines[3:] == told["sentences"]


async def test_what_others_do_is_not_taken_for_a_silent_scopes_own(world: World) -> None:
    await apply(world, SCOPES)
    await publish(await world.enrol("connector", "c"), ITEMS)
    at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    for agent in through_service(at):
        await report(await world.enrol("agent", agent.node), agent, agent.node)

    told = await world.ok("GET", "/coverage", params={"scope": "silent"})
    assert (told["workloads"], told["silent"]) == (1, 1)
    counts = ("edges", "allowed", "unseen_edges", "unseen_next_conversation", "would_block")
    assert [told[name] for name in counts] == [0, 0, None, 1, None]
    code, out, said = await world.run("coverage", "silent", "--since", "10m")
    assert (code, "nothing was seen in this time" in out) == (2, True), said
    code, _, said = await world.run("discover", "silent", "--since", "10m")
    assert (code, "warning: no connection was observed" in said) == (2, True), said
    assert (await world.run("discover", "all", "--since", "10m"))[0] == 0

    await world.ok("POST", "/promotions/silent/criteria", json={"observe_seconds": 0})
    answer = await world.http.post("/api/v1/promotions/silent/promote", json={})
    assert answer.status_code == 409, answer.text
    assert "nothing was seen of scope silent" in answer.json()["detail"]


async def test_coverage_of_no_scope_is_refused(world: World) -> None:
    code, out, said = await world.run("coverage", "nowhere")
    assert (code != 0, out) == (True, "")
    assert "there is no scope 'nowhere'" in said
