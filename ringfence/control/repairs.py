"""Writes into the audit trail which rules another had changed at a node, and its agent repaired."""

import asyncio
from collections.abc import Iterable

from ringfence.control.agents import TOLERATED_SKEW_NS, NodeKey
from ringfence.control.audit import Author
from ringfence.control.background import Background
from ringfence.control.identity import ITSELF, Principal, Role
from ringfence.control.inventory import Inventory
from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.ids import TenantId, item_key
from ringfence.model.repair import Damage, Repair
from ringfence.model.words import counted, named
from ringfence.model.workload import ItemKind
from ringfence.store.relational.changes import Sought, find_changes
from ringfence.store.relational.database import Database
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.limits import MOST_REPAIRS

_APART_NS = 60 * 10**9
"""Between two lines about one node: who changes rules again and again must not fill the trail."""
_LOOK_SECONDS = 5.0


class Repairs:
    """Agents tell each repair again and again; each is written down once."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        inventory: Inventory,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._inventory = inventory
        self._news = asyncio.Event()
        self._told: dict[NodeKey, list[Repair]] = {}
        self._told_ns: dict[NodeKey, int] = {}
        """Of each node the time of the last repair that is written down, by its own clock."""
        self._written_ns: dict[NodeKey, int] = {}
        """When that was written, by ours: what a node says of times cannot fill the trail."""
        self._following = Background("repairs", self._pause, self._write, metrics)

    async def start(self) -> None:
        """Write down what is heard from now on."""
        self._following.start()

    async def stop(self) -> None:
        """Write no more."""
        await self._following.stop()

    def hear(self, node: NodeKey, state: wire.AgentState) -> None:
        """Take what a node's agent tells, whose clock has to be near ours."""
        if abs(state.clock_ns - self._clock()) > TOLERATED_SKEW_NS:
            return
        told = [
            Repair(one.uid, Damage(one.damage), one.at_ns, one.times)
            for one in state.repairs[:MOST_REPAIRS]
            if one.damage in set(Damage) and one.at_ns <= state.clock_ns
        ]
        if any(one.at_ns > self._told_ns.get(node, 0) for one in told):
            self._told[node] = told
            self._news.set()

    async def _pause(self) -> None:
        if self._told:
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            await self._news.wait()
        self._news.clear()

    async def _write(self) -> None:
        for node, told in list(self._told.items()):
            await self._recall(node)
            now_ns = self._clock()
            news = [one for one in told if one.at_ns > self._told_ns[node]]
            if news and now_ns - self._written_ns[node] < _APART_NS:
                continue
            if news:
                author = Author(Principal(ITSELF, self._tenant, Role.ADMIN, None), node[1])
                async with self._database.write() as connection:
                    what = self._text(node, news)
                    await author.note(connection, now_ns, what, about=_object(node))
                self._told_ns[node] = max(one.at_ns for one in news)
                self._written_ns[node] = now_ns
            if self._told[node] is told:
                del self._told[node]

    async def _recall(self, node: NodeKey) -> None:
        """Look up a node's last line: it told of all repairs before it."""
        if node not in self._written_ns:
            async with self._database.read() as connection:
                found = await find_changes(connection, self._tenant, Sought(_object(node)), 1)
            self._written_ns[node] = self._told_ns[node] = found[0][1].at_ns if found else 0

    def _text(self, node: NodeKey, repairs: Iterable[Repair]) -> str:
        snapshot = self._inventory.timeline.latest()
        told = [f"{_whose(snapshot, node, one.uid)} ({_how(one)})" for one in repairs]
        return f"repaired rules at {node[1]} that another had changed: {named(told)}"


def _object(node: NodeKey) -> str:
    return f"rules/{'/'.join(filter(None, node))}"


def _how(one: Repair) -> str:
    """What was done to them, and how often if more than once."""
    times = f", {counted(one.times, 'time')} since the agent's start" if one.times > 1 else ""
    return one.damage + times


def _whose(snapshot: Snapshot, node: NodeKey, uid: str) -> str:
    if not uid:
        return "the node's own"
    at = snapshot.position(item_key(node[0], ItemKind.POD, uid))
    return "a pod that is gone" if at == NOWHERE else snapshot.items[at].display
