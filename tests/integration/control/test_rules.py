"""What people see of a workload's rules, with a real control plane and an agent that it asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from ringfence.control import inspections
from ringfence.policy.program import decode
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

Answer = Callable[[wire.Inspection], wire.Inspected]


@asynccontextmanager
async def answering(stub: ControlPlaneStub, answer: Answer) -> AsyncIterator[None]:
    """An agent that answers so, for the time of the block."""
    call = stub.Inspect()

    async def run() -> None:
        while isinstance(question := await call.read(), wire.Inspection):
            await call.write(answer(question))

    running = asyncio.create_task(run())
    await asyncio.sleep(0.5)  # until the control plane has it
    try:
        yield
    finally:
        running.cancel()
        call.cancel()


@dataclass
class Enforced:
    """The shop's agent, and what it is to do."""

    stub: ControlPlaneStub
    session: FakeNode
    directive: wire.Directive


@pytest.fixture
async def enforced(world: World) -> Enforced:
    """The shop, enforced."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    rejecting = DOCUMENTS.replace("  catchAll:", "  denied: REJECT\n  catchAll:")
    await world.ok("POST", "/apply", json={"files": [{"name": "s", "documents": rejecting}]})
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    stub = await world.enrol("agent", "n1")
    agent = FakeNode(stub)
    await agent.tell()
    return Enforced(stub, agent, await agent.directive())


def kernel_of(directive: wire.Directive, question: wire.Inspection) -> wire.Inspected:
    """One rule of nftables for each of the pod's inbound rules, which was hit seven times.

    A lookup counts two packets more for the first one.
    """
    policy = decode(directive.node_policy)
    (pod,) = (pod for pod in policy.pods if pod.uid == question.uid)
    (program,) = pod.inbound
    rules = []
    stated = policy.programs[program].rules
    for number, rule in enumerate(stated, 1):
        peers = f"ip saddr @rf_{rule.peers}_4_0123abcd " if rule.peers else ""
        ports = "".join(f"tcp dport {ports} " for ports in rule.ports)
        text = f'{peers}{ports}counter packets 7 bytes 420 accept comment "{rule.handle}"'
        rules.append(
            wire.KernelRule(
                chain="rf_input_4", handle=number, text=text, comment=rule.handle,
                packets=7, bytes=420, counted=True,
            )
        )  # fmt: skip
    lookup = "ip saddr . meta l4proto . th dport @rf_input_4_0_counted_0123abcd counter accept"
    admitted = {stated[0].handle: 2}
    rules.append(wire.KernelRule(chain="rf_input_4", handle=99, text=lookup, admitted=admitted))
    element = wire.MetElement(set="rf_x_4", element="10.244.0.7")
    met = [wire.Met(rules=[wire.MetRule(handle=1, elements=[element])])] * len(question.probes)
    return wire.Inspected(id=question.id, rules=rules, met=met)


async def test_a_workloads_rules_stand_beside_their_policies(
    world: World, enforced: Enforced
) -> None:
    told = await world.ok("GET", "/rules", params={"workload": "shop/db"})
    assert (told["workload"], told["node"], told["problem"]) == ("shop/db", "n1", None)
    inbound = [one for one in told["rules"] if one["direction"] == "inbound"]
    first, *_, last = inbound
    assert (first["action"], first["traffic"], first["place"]) == ("ALLOW", "TCP 3306", 1)
    assert first["peers"]["first"] == ["shop/front"]
    assert (first["policy"], first["packets"]) == ("shop/front-to-db@p1", None)
    assert (last["action"], last["rejects"], last["traffic"]) == ("DENY", True, "any")
    assert (last["peers"], last["policy"]) == (None, "shop/catch-all@p1")

    code, out, said = await world.run("rules", "shop/db")
    assert code == 0, said
    assert "shop/front  TCP 3306  shop/front-to-db@p1" in out
    assert "DENY, rejects  any" in out
    code, _, said = await world.run("rules", "shop/nobody")
    assert (code, "is no pod, node or host that the inventory knows" in said) == (1, True)


async def test_the_kernels_counters_are_asked_of_the_agent(
    world: World, enforced: Enforced, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, said = await world.run("rules", "shop/db", "--live")
    assert (code, "no agent of n1 is connected" in said) == (1, True)
    assert "shop/front-to-db@p1" in out
    async with answering(enforced.stub, lambda question: kernel_of(enforced.directive, question)):
        code, out, said = await world.run("rules", "shop/db", "--live", "-o", "json")
        assert code == 0, said
        inbound = [one for one in json.loads(out)["rules"] if one["direction"] == "inbound"]
        assert [one["packets"] for one in inbound] == [9] + [7] * (len(inbound) - 1)
        assert "tcp dport 3306" in inbound[0]["kernel"][0]["text"]

        code, out, said = await world.run("why", "shop/front", "shop/db", "3306")
        assert code == 0, said
        assert "kernel: rf_input_4: ip saddr @rf_" in out
        assert "counter packets 7 bytes 420" in out
        assert "by @rf_x_4: 10.244.0.7" in out
    monkeypatch.setattr(inspections, "ANSWER_SECONDS", 0.3)
    async with answering(enforced.stub, lambda asked: wire.Inspected(id=asked.id + 1)):
        code, out, _ = await world.run("why", "shop/front", "shop/db", "3306")
        assert code == 0
        assert "kernel: not known: the agent of n1 did not answer within" in out
    code, out, _ = await world.run("why", "shop/front", "shop/db", "3306", "--with", "shop@1")
    assert "kernel" not in out
