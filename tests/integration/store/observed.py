"""What agents see of connections along each path, and how tests store it and read it back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from operator import methodcaller
from typing import Any

from ringfence.control.labelling import Report, label
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address
from ringfence.model.flow import Observer
from ringfence.model.protocol import UDP
from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS, hourly
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    DB,
    FRONT,
    NODE1,
    NODE2,
    OUTSIDE,
    SECOND,
    START,
    Agent,
    Socket,
    timeline,
)

POD, NODE = Observer.POD, Observer.NODE
WINDOW = {"tenant": "default", "since": START - SECOND, "until": START + 60 * SECOND}
HISTORY = timeline()


async def insert(store: FlowStore, *agents: Agent) -> None:
    await keep(store, *(agent.report(f"b{number}") for number, agent in enumerate(agents)))


async def keep(store: FlowStore, *reports: Report, history: Timeline = HISTORY) -> None:
    """Store reports together, none of which is there yet."""
    keys = [report.key for report in reports]
    assert not await store.insert(keys, *label(reports, history))


async def known(store: FlowStore) -> set[str]:
    """The ids of the batches that are stored."""
    return set((await store.query("SELECT id FROM batches", {}))["id"].to_pylist())


async def cut_short(store: FlowStore, *reports: Report) -> None:
    """Leave an insertion that has all but its batches in, the last of its tables."""
    async with refusing(store, "batches_local" if store._config.cluster else "batches"):
        with suppress(StoreError):
            await store.insert([report.key for report in reports], *label(reports, HISTORY))
    assert store._journal.unfinished()


@asynccontextmanager
async def refusing(store: FlowStore, table: str) -> AsyncIterator[None]:
    """Within the ``async with`` block the table takes in nothing."""
    await command(store, f"ALTER TABLE {table} ADD CONSTRAINT closed CHECK 1 = 0")
    yield
    await command(store, f"ALTER TABLE {table} DROP CONSTRAINT closed")


async def command(store: FlowStore, *statements: str) -> None:
    for statement in statements:
        await store._run(store._writer, methodcaller("command", statement))


async def rows(store: FlowStore, table: str) -> int:
    counted = await store.query(f"SELECT count() AS n FROM {table}", {})
    return int(counted["n"][0].as_py())


async def packets(store: FlowStore) -> tuple[int, int]:
    """The packets of the one hop there is, by rows and by hours."""
    (by_row,) = (await store.query(HOPS, WINDOW))["forward_packets"].to_pylist()
    (by_hour,) = (await store.query(hourly(HOPS), WINDOW))["forward_packets"].to_pylist()
    return by_row, by_hour


def revisions(part: Any) -> list[int]:
    return [int(one) for one in HISTORY.select_revisions(part, START, START + 60 * SECOND)]


def text(seen: Records, name: str) -> list[str]:
    return [format_address(Address(packed.tobytes())) for packed in seen.column(name)]


def pod_to_pod_same_node() -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (CARTS, 8080))
    one.saw(POD, 8, FRONT, (CARTS, 8080))
    return (one,)


def pod_to_pod_across() -> tuple[Agent, ...]:
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (DB, 27017))
    one.saw(NODE, 2, FRONT, (DB, 27017))
    two.saw(NODE, 2, FRONT, (DB, 27017))
    two.saw(POD, 9, FRONT, (DB, 27017))
    return one, two


def pod_to_service(backend: str) -> tuple[Agent, ...]:
    before = (FRONT, (CARTS_IP, 80))
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80))
    if backend == CARTS:
        one.saw(POD, 8, FRONT, (CARTS, 8080), before)
        return (one,)
    one.saw(NODE, 2, FRONT, (backend, 8080), before)
    two.saw(NODE, 2, FRONT, (backend, 8080))
    two.saw(POD, 9, FRONT, (backend, 8080))
    return one, two


def node_port_same_node(source: str, front: Socket = (NODE1, 31095)) -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(NODE, 2, OUTSIDE, front)
    one.saw(POD, 7, source, (FRONT, 8079), (OUTSIDE, front))
    return (one,)


def node_port_elsewhere(front: Socket = (NODE2, 31095)) -> tuple[Agent, ...]:
    one, two = Agent("node1"), Agent("node2")
    two.saw(NODE, 2, OUTSIDE, front)
    two.saw(NODE, 2, NODE2, (FRONT, 8079), (OUTSIDE, front))
    one.saw(NODE, 2, NODE2, (FRONT, 8079))
    one.saw(POD, 7, NODE2, (FRONT, 8079))
    return one, two


def pod_to_balancer(front: Socket) -> tuple[Agent, ...]:
    """The pod's own node translates, and masquerades."""
    one, two = Agent("node1"), Agent("node2")
    two.saw(POD, 9, CARTS2, front)
    two.saw(NODE, 2, NODE2, (FRONT, 8079), (CARTS2, front))
    one.saw(NODE, 2, NODE2, (FRONT, 8079))
    one.saw(POD, 7, NODE2, (FRONT, 8079))
    return one, two


def dropped_at_balancer(front: Socket) -> tuple[Agent, ...]:
    two = Agent("node2")
    two.saw(NODE, 2, OUTSIDE, front, answered=0)
    two.dropped(OUTSIDE, front, observer=NODE, pod="")
    return (two,)


def pod_to_outside() -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (OUTSIDE, 666))
    one.saw(NODE, 2, NODE1, (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)))
    return (one,)


def through_an_overlay(before: Any) -> tuple[Agent, ...]:
    """Seen at the veth, at the VXLAN interface and, inside a tunnel, at the uplink."""
    one, two = Agent("node1"), Agent("node2")
    here, there = (NODE1, (NODE2, 4789)), (NODE2, (NODE1, 4789))
    outer: dict[str, Any] = {
        "protocol": UDP, "method": "degree", "reverse_packets": 0, "reverse_bytes": 0,
        "reverse_flags": 0, "answered": 0,
    }  # fmt: skip
    if before:
        one.saw(POD, 7, *before)
    else:
        one.saw(POD, 7, FRONT, (CARTS2, 8080))
    one.saw(NODE, 5, FRONT, (CARTS2, 8080), before)
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), before, here, forward_packets=6)
    one.saw(NODE, 2, FRONT, (DB, 27017), None, here)
    for agent, carries in ((one, 2), (two, 1)):
        agent.saw(NODE, 2, *here, forward_packets=11, carries=carries, **outer)
        agent.saw(NODE, 2, *there, carries=carries, **outer)
    two.saw(NODE, 2, FRONT, (CARTS2, 8080), None, here)
    two.saw(NODE, 5, FRONT, (CARTS2, 8080))
    two.saw(POD, 9, FRONT, (CARTS2, 8080))
    return one, two
