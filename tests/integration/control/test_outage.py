"""A control plane that is gone for long: what the agent's disk holds arrives afterwards, once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from ringfence.agent.session import Session, deliver
from ringfence.agent.spool import Spool
from ringfence.link.channel import Link
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.model.flow import Loss, Observer
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import AgentState, Batch, Inspected, Inspection
from ringfence.wire.limits import PROTOCOL
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.world import CARTS2, CLUSTER, FRONT, ITEMS, SECOND, Agent, stream

KEPT = 10
LOST = 20


def report(number: int) -> Batch:
    """One connection, seen in a window of its own."""
    now_ns = time.time_ns()
    seen = Agent("node1")
    seen.saw(Observer.POD, 7, FRONT, (CARTS2, 8080), first_ns=now_ns, last_ns=now_ns)
    table = pa.Table.from_pylist(seen.flows, schema=batch.FLOWS)
    return Batch(
        id=f"report-{number:02d}",
        window_start_ns=now_ns - SECOND,
        window_end_ns=now_ns,
        flows=stream(table),
        drops=stream(batch.DROPS.empty_table()),
    )


LIMIT = KEPT * len(report(0).SerializeToString())


@contextlib.asynccontextmanager
async def agent(world: World, directory: Path) -> AsyncIterator[Spool]:
    """As much of an agent as talks to the control plane; its state outlives it."""
    spool = Spool(directory / "spool", LIMIT)
    spool.open()
    spool.release()
    link = Link(
        LinkConfig(
            server=str(world.http.base_url),
            ca_file=world.data_dir / "ca.pem",
            token_file=directory / "token",
            state_dir=directory,
            kind=ClientKind.AGENT,
            name="node1",
            kubernetes_cluster=CLUSTER,
        )
    )
    state = AgentState(
        protocol=PROTOCOL, kubernetes_cluster=CLUSTER, node="node1", clock_ns=time.time_ns()
    )

    async def look(question: Inspection) -> Inspected:
        return Inspected(id=question.id)

    session = Session(link, lambda: state, lambda _: None, look)
    await link.start()
    tasks = [asyncio.create_task(session.run()), asyncio.create_task(deliver(link, spool))]
    try:
        yield spool
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.stop()


async def delivered(spool: Spool) -> None:
    async with asyncio.timeout(60):
        while len(spool):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def opened(world: World) -> Any:
    (flow,) = (await world.ok("GET", "/flows"))["items"]
    return flow["opened"]


async def test_a_long_outage_costs_what_found_no_room_and_no_more(
    start: Callable[[], Awaitable[World]], tmp_path: Path
) -> None:
    directory = tmp_path / "agent"
    directory.mkdir()
    world = await start()
    await publish(await world.enrol("connector", "c"), ITEMS)
    (directory / "token").write_text(await world.enrolment_token("agent"))
    async with agent(world, directory) as spool:
        spool.put(report(0))
        spool.release()
        await delivered(spool)
        assert await opened(world) == 1

        await world.plane.stop()
        for number in range(1, 1 + LOST + KEPT):
            spool.put(report(number))
            spool.release()
            await asyncio.sleep(0)  # meanwhile the oldest is tried again and again
        assert (len(spool), spool.lost[Loss.SPOOL_FULL]) == (KEPT, LOST)
        files = list((directory / "spool").iterdir())
        assert sum(path.stat().st_size for path in files) <= LIMIT

    world = await start()
    await publish(await world.enrol("connector", "c"), ITEMS)
    async with agent(world, directory) as spool:  # the agent too was away
        await delivered(spool)
        assert await opened(world) == 1 + KEPT
        spool.put(report(LOST + KEPT))  # its answer was lost, say
        spool.release()
        await delivered(spool)
        assert not any(spool.lost.values())
        assert await opened(world) == 1 + KEPT
