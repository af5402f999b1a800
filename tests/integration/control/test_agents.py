"""What agents say of themselves, and how people have them report, over real TLS, gRPC and HTTP."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ringfence.model.flow import Observer
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.limits import AUDITED_INTERFACES
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.integration.control.test_flows_api import report
from tests.integration.world import DB as DB_ADDRESS
from tests.integration.world import FRONT as FRONT_ADDRESS
from tests.integration.world import ITEMS, Agent
from tests.unit.control.shop import CLUSTER, DB, FRONT, NODE


def interface(number: int, least: int = 0) -> wire.InterfaceAudit:
    return wire.InterfaceAudit(
        ifindex=number,
        name=f"veth{number}",
        judged=True,
        ingress=wire.SideAudit(counted=1000, least=least, most=least),
        egress=wire.SideAudit(counted=2000),
    )


def audit(**fields: object) -> wire.Audit:
    same = {
        "skbs": 3000, "recorded": 2990, "judged": 500,
        "losses": {"truncated": 3, "fragment unplaced": 7, "words of its own": 1},
    }  # fmt: skip
    return wire.Audit(**(same | fields))  # type: ignore[arg-type]


async def test_an_agents_audit_is_shown_whole_in_json_and_in_a_word_in_the_table(
    world: World,
) -> None:
    agent = FakeNode(await world.enrol("agent", "n1"))
    many = [interface(number) for number in range(2, AUDITED_INTERFACES + 20)]
    await agent.tell(audit=audit(interfaces=many))
    await agent.directive()
    code, out, _ = await world.run("agents")
    assert code == 0
    assert "exact" in out
    assert "fragment unplaced=7" in out
    _, out, _ = await world.run("agents", "-o", "json")
    (seen,) = json.loads(out)
    assert len(seen["audit"]["interfaces"]) == AUDITED_INTERFACES
    assert seen["audit"]["interfaces"][0] == {
        "name": "veth2", "ifindex": 2, "judged": True,
        "ingress": {"counted": 1000, "unaccounted_least": 0, "unaccounted_most": 0},
        "egress": {"counted": 2000, "unaccounted_least": 0, "unaccounted_most": 0},
    }  # fmt: skip
    assert len((await world.ok("GET", "/agents"))["items"][0]["audit"]["interfaces"]) == 1
    assert (await world.ok("GET", "/enforcement"))["agents"][0]["audit"]["interfaces"] == []

    for told, said in (
        (audit(uncertain=12), "within 12"),
        (audit(unaccounted=37, interfaces=[interface(9, 37)]), "37 unaccounted, most on veth9"),
        (audit(unaccounted=37, interfaces=[interface(9)]), "37 unaccounted  "),
        (audit(overcounted=3, interfaces=[interface(9, -3)]), "3 overcounted, most on veth9"),
    ):
        await agent.tell(audit=told)
        async with asyncio.timeout(30):
            while said not in (await world.run("agents"))[1]:
                pass


async def test_pods_without_their_rules_are_told_by_name(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT])
    agent = FakeNode(await world.enrol("agent", "n1"))
    without = [wire.PodState(uid="front"), wire.PodState(uid="gone", reason="no namespace")]
    await agent.tell(pods=[*without, wire.PodState(uid="db", programmed=True)])
    await agent.directive()
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert seen["pods"] == {
        "total": 3,
        "programmed": 1,
        "reasons": {"shop/front": "no rules are in force for it", "gone": "no namespace"},
    }


async def test_prometheus_reads_a_few_series_of_each_node(world: World) -> None:
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(audit=audit(unaccounted=37, interfaces=[interface(9, 37)] * 100))
    await agent.directive()
    text = (await world.http.get("/metrics")).text
    samples = {
        (sample.name, sample.labels.get("cause")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ringfence_agent_")
        and (sample.labels["kubernetes_cluster"], sample.labels["node"]) == (CLUSTER, "n1")
    }
    assert samples == {
        ("ringfence_agent_skbs_total", None): 3000,
        ("ringfence_agent_recorded_skbs_total", None): 2990,
        ("ringfence_agent_unaccounted_skbs", None): 37,
        ("ringfence_agent_overcounted_skbs", None): 0,
        ("ringfence_agent_losses_total", "truncated"): 3,
        ("ringfence_agent_losses_total", "fragment unplaced"): 7,
    }


async def test_a_chosen_mode_is_told_shown_and_kept(start: Callable[[], Awaitable[World]]) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    first = await agent.directive()
    assert (first.mode, first.interval_seconds) == (wire.CONVERSATION, 15)

    # The command waits for the agent to say that it has taken it up.
    code, _, said = await world.run("agents", "mode", "n1", "detailed", "--timeout", "0")
    assert (code, said) == (2, "n1 has not taken it up yet\n")
    told = await agent.directive()
    assert (told.mode, told.interval_seconds) == (wire.DETAILED, 1)
    assert (told.revision, told.node_policy) == (first.revision, first.node_policy)
    assert "conversation, soon detailed" in (await world.run("agents"))[1]
    await agent.tell(mode=wire.DETAILED)
    code, _, said = await world.run("agents", "mode", "n1", "detailed")
    assert (code, said) == (0, "n1 reports in detailed mode\n")
    (change, *_) = (await world.ok("GET", "/changes"))["items"]
    assert (change["what"], change["actor"]) == ("detailed mode for the agent of n1", "admin")

    world = await start()
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(mode=wire.DETAILED)
    assert (await agent.directive()).mode == wire.DETAILED
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert (seen["mode"], seen["desired_mode"]) == ("detailed", "detailed")
    await world.ok("POST", "/agents/mode", json={"node": "n1", "mode": "conversation"})
    back = await agent.directive()
    assert (back.mode, back.interval_seconds) == (wire.CONVERSATION, 15)


async def test_a_mode_for_nobody_or_of_no_meaning_is_refused(world: World) -> None:
    code, _, said = await world.run("agents", "mode", "nowhere", "detailed")
    assert (code, "no agent of a node 'nowhere'" in said) == (1, True)
    code, _, said = await world.run("agents", "mode", "n1", "loud")
    assert (code, "loud" in said) == (3, True)
    await FakeNode(await world.enrol("agent", "n1")).tell()
    body = {"node": "n1", "kubernetes_cluster": "another", "mode": "detailed"}
    refused = await world.http.post("/api/v1/agents/mode", json=body)
    assert refused.status_code == 404


async def test_the_ports_that_were_told_in_detail_are_shown_with_their_one_flow(
    world: World,
) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    node1, agent = await world.enrol("agent", "node1"), Agent("node1")
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    for port in (0, 40001, 40000):
        agent.saw(
            Observer.POD, 7, FRONT_ADDRESS, (DB_ADDRESS, 27017), None, consumer_port=port, **now
        )
    assert not await report(node1, agent, "one")
    _, out, _ = await world.run("flows", "list", "-o", "json")
    (flow,) = json.loads(out)
    assert flow["consumer_ports"] == [40000, 40001]
    assert flow["forward"]["packets"] == 3 * 5
