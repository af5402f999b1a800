"""Agents that are wrong: each is told what to do, and what is stored already stays."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ringfence.link.enrolment import enrol
from ringfence.link.errors import RefusedError
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.model.flow import Observer
from ringfence.wire import batch
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish, refusal
from tests.integration.control.test_flows_api import report
from tests.integration.world import CARTS2, CLUSTER, FRONT, ITEMS, SECOND, Agent

HOUR = 3600 * SECOND


async def outcomes(world: World) -> dict[str, float]:
    """How many batches came to which end."""
    text = (await world.http.get("/metrics")).text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ringfence_batches_total"
    }


def seen(at_ns: int) -> Agent:
    agent = Agent("node1")
    agent.saw(Observer.POD, 7, FRONT, (CARTS2, 8080), first_ns=at_ns, last_ns=at_ns)
    return agent


async def stored(world: World, since: str = "10m") -> int:
    return len((await world.ok("GET", "/flows", params={"since": since}))["items"])


def stream(schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(schema.empty_table())
    return bytes(sink.getvalue())


async def test_a_batch_of_other_columns_is_refused_and_counted(world: World) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    stub = await world.enrol("agent", "node1")
    await report(stub, seen(time.time_ns()), "good")
    flows, drops = batch.FLOWS, stream(batch.DROPS)
    crowd = pa.schema([*flows, *(pa.field("x" * 200 + str(i), pa.int64()) for i in range(500))])
    at = flows.get_field_index("opened")
    cases = [
        (flows.remove(at), "lacking: opened; of another type: none"),
        (flows.set(at, pa.field("opened", pa.string())), "lacking: none; of another type: opened"),
        (crowd, f"({len(flows) + 500} instead of {len(flows)}"),
        (pa.schema([*flows, flows.field(at)]), f"({len(flows) + 1} instead of {len(flows)}"),
    ]
    for number, (schema, said) in enumerate(cases):
        bad = wire.Batch(
            id=f"bad{number}", window_end_ns=time.time_ns(), flows=stream(schema), drops=drops
        )
        code, told = await refusal(stub.Report(bad))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, "which no agent tries again"
        assert said in told
        assert told.endswith("install the same release of Ringfence on both sides")
    assert await outcomes(world) == {"stored": 1, "refused": len(cases)}
    assert await stored(world) == 1


async def test_a_batch_without_bounds_is_refused_and_counted(world: World) -> None:
    stub = await world.enrol("agent", "node1")
    flows, drops = stream(batch.FLOWS), stream(batch.DROPS)
    rows = seen(time.time_ns()).report("b").flows
    packed = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(packed, batch.FLOWS, options=options) as writer:
        writer.write_table(rows)
    cases = [
        ("packed", bytes(packed.getvalue()), "compressed"),
        ("x" * 65, flows, "an id of more than 64 bytes"),
    ]
    for name, told, said in cases:
        bad = wire.Batch(id=name, window_end_ns=time.time_ns(), flows=told, drops=drops)
        code, why = await refusal(stub.Report(bad))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert said in why
    assert await outcomes(world) == {"refused": len(cases)}


@pytest.mark.parametrize("end_ns", [-(2**63), 15 * SECOND])
async def test_a_report_of_before_anything_that_is_kept_is_refused_and_counted(
    world: World, end_ns: int
) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    stub = await world.enrol("agent", "node1")
    old = wire.Batch(id="old", window_start_ns=end_ns, window_end_ns=end_ns)
    code, told = await refusal(stub.Report(old))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "older than the 400 days" in told
    assert "the clock of node1" in told
    assert await outcomes(world) == {"refused": 1}


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_clock_that_goes_off_by_an_hour(world: World, clock: Clock, sign: int) -> None:
    """The agent's own here is right, and the control plane's is set; each sees the other off."""
    await publish(await world.enrol("connector", "c"), ITEMS)
    stub = await world.enrol("agent", "node1")
    await report(stub, seen(time.time_ns()), "before")
    clock.ahead_ns = -sign * HOUR
    agent = FakeNode(stub)
    await agent.tell()
    await agent.directive()
    way = "ahead of" if sign > 0 else "behind"
    _, table, _ = await world.run("agents")
    assert f"stale: the clock of node1 is 3600 s {way} the control plane's; synchronise" in table
    if sign > 0:
        code, told = await refusal(report(stub, seen(time.time_ns()), "ahead"))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "the clock of node1 is 3600 s ahead of the control plane's" in told
        assert await outcomes(world) == {"stored": 1, "refused": 1}
        clock.ahead_ns = 0
    else:  # just as what waited in a spool for an hour
        assert not await report(stub, seen(time.time_ns()), "behind")
        assert await outcomes(world) == {"stored": 2}
    assert await stored(world, "2h") == 1


async def test_a_second_agent_of_a_name_is_not_enrolled_while_the_first_is_alive(
    world: World, clock: Clock, tmp_path: Path
) -> None:
    first = FakeNode(await world.enrol("agent", "node1"))
    await first.tell()
    await first.directive()
    config = LinkConfig(
        server=str(world.http.base_url), ca_file=world.data_dir / "ca.pem",
        token_file=tmp_path / "token", state_dir=tmp_path / "state",
        kind=ClientKind.AGENT, name="node1", kubernetes_cluster=CLUSTER,
    )  # fmt: skip
    config.token_file.write_text(await world.enrolment_token("agent"))
    with pytest.raises(RefusedError, match=r"'node1' is connected already; .* another --node"):
        await enrol(config)
    clock.ahead_ns += 90 * SECOND  # a machine that went away without a word, and is set up anew
    config.token_file.write_text(await world.enrolment_token("agent"))
    assert (await enrol(config)).certificate


async def test_two_machines_with_one_certificate_are_told(world: World) -> None:
    """As a copied disk makes them."""
    stub: ControlPlaneStub = await world.enrol("agent", "node1")

    async def told() -> str:
        (agent,) = (await world.ok("GET", "/agents"))["items"]
        return str(agent["stale_reason"])

    older = FakeNode(stub)
    await older.tell()
    await older.directive()
    newer: Any = FakeNode(stub)
    await newer.tell()
    await newer.directive()
    await newer.tell()
    assert await told() == "", "an agent that comes again is no second one"
    await older.tell()
    async with asyncio.timeout(10):
        while not (said := await told()):
            pass
    assert said.startswith("several agents are connected as node1")
    assert "--node of its own" in said
