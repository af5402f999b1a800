"""Live analysis: what a policy version would have said to the connections that were seen."""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.contents import Contents
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import ScopeName, Version
from ringfence.model.policy import Workspace
from ringfence.model.quarantine import Quarantine
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, EndRole
from ringfence.model.workload import ItemKind
from ringfence.policy.connection import Connections
from ringfence.policy.ends import members
from ringfence.policy.evaluate import UNGOVERNED, Verdicts, end_items, evaluate
from ringfence.policy.logged import logged
from ringfence.policy.moment import Moment, expiries, moment, patterns, sets_named
from ringfence.policy.order import PolicySet


@dataclass(frozen=True)
class Judged:
    """The verdicts on n connections.

    `deciding` has the rule of each end that decided, `logged` those that log the connection.
    """

    in_view: NDArray[np.bool_]
    """Which connections have an end in the scope at hand."""
    allowed: NDArray[np.bool_]
    deciding: list[dict[EndRole, Decision]]
    logged: list[list[Decision]]


@dataclass(frozen=True)
class History:
    """What held over time."""

    timeline: Timeline
    names: Resolutions
    quarantines: Collection[Quarantine] = ()
    sets: Contents = field(default_factory=Contents)


async def judge(
    records: Records,
    history: History,
    until_ns: int,
    tree: ScopeTree,
    enforced: Iterable[tuple[Workspace, Version]],
    scope: ScopeName,
) -> Judged:
    """Judge each connection by all that held when its own first packet was seen.

    A thread judges; timeline and names are asked here, for they change on the event loop.
    """
    enforced = tuple(enforced)
    count = len(records)
    judged = Judged(
        np.zeros(count, bool),
        np.ones(count, bool),
        [{} for _ in range(count)],
        [[] for _ in range(count)],
    )

    def work(
        rows: NDArray[np.intp], snapshot: Snapshot, then: Moment, apart: Iterable[Quarantine]
    ) -> None:
        policy_set = PolicySet(snapshot, tree, enforced, then, apart)
        connections = connections_of(records.take(rows), snapshot)
        verdicts = evaluate(policy_set, connections)
        judged.allowed[rows] = verdicts.allowed
        judged.in_view[rows] = _in_view(connections, members(tree, snapshot, scope))
        for row, deciding in zip(rows.tolist(), _deciding(policy_set, verdicts), strict=True):
            judged.deciding[row] = deciding
        for decision, hits in logged(policy_set, connections):
            for row in rows[hits].tolist():
                if decision not in judged.logged[row]:
                    judged.logged[row].append(decision)

    first_ns = records.column("first_ns")
    instants = _instants(enforced, history)
    for rows, snapshot in by_inventory(records, history.timeline, until_ns):
        epochs = np.searchsorted(instants, first_ns[rows], side="right")
        for epoch in np.unique(epochs).tolist():
            some = rows[epochs == epoch]
            then = moment(history.names, history.sets, int(first_ns[some].min()))
            apart = [one for one in history.quarantines if one.since_ns <= then.at_ns]
            await asyncio.to_thread(work, some, snapshot, then, apart)
    return judged


def _instants(enforced: Iterable[tuple[Workspace, Version]], history: History) -> NDArray[np.int64]:
    """When what is enforced changed its meaning by time alone, or somebody was cut off; sorted."""
    enforced = tuple(enforced)
    begun = (one.since_ns for one in history.quarantines)
    named = history.names.instants(patterns(enforced))
    held = history.sets.instants(sets_named(enforced))
    changes = {*expiries(enforced), *named, *held, *begun}
    return np.array(sorted(changes), dtype=np.int64)


def by_inventory(
    records: Records, timeline: Timeline, until_ns: int
) -> Iterator[tuple[NDArray[np.intp], Snapshot]]:
    """Split the connections by inventories that hold all their ends as they were then.

    Most of what is analysed ran in the present inventory, so that one is tried first.
    """
    first_ns = records.column("first_ns")
    ends = np.stack([records.column(f"{end}_revision") for end in _ENDS], axis=1)
    left = np.arange(len(records))
    at_ns = until_ns - 1
    while len(left):
        snapshot = timeline.at(at_ns)
        known = (np.isin(ends[left], snapshot.revisions) | (ends[left] == 0)).all(axis=1)
        fits = known | (first_ns[left] == at_ns)
        if fits.any():
            yield left[fits], snapshot
        left = left[~fits]
        at_ns = int(first_ns[left].max(initial=0))


_ENDS = ("first_consumer", "provider", "dialled")


def connections_of(records: Records, snapshot: Snapshot) -> Connections:
    """The connections as policy judges them, in one inventory."""
    dialled, protocol = records.column("dialled"), records.column("protocol")
    port = records.column("dialled_port")
    consumer_item, provider_item, dialled_item = (
        snapshot.locate(records.column(end)) for end in _ENDS
    )
    kinds = np.array([item.kind is ItemKind.NODE for item in snapshot.items] + [False])
    services = ServiceSockets(snapshot)
    to_service = np.array(
        [
            services.at(address.tobytes(), *socket) is not None
            for address, *socket in zip(dialled, protocol.tolist(), port.tolist(), strict=True)
        ],
        dtype=np.bool_,
    )
    received = kinds[dialled_item] & (to_service | records.translated)
    # A node port whose packet went no further: the provider would have been a backend.
    provider_item[received & ~records.translated] = NOWHERE
    return Connections(
        protocol=protocol,
        consumer=records.column("first_consumer"),
        consumer_item=consumer_item,
        provider=records.column("provider"),
        provider_port=records.column("provider_port"),
        provider_item=provider_item,
        dialled=dialled,
        dialled_port=port,
        node_item=np.where(received, dialled_item, NOWHERE).astype(np.int32),
    )


def _in_view(connections: Connections, scope: BitMap) -> NDArray[np.bool_]:
    wanted = np.array(scope.to_array(), dtype=np.int64)
    found = np.zeros(len(connections), dtype=np.bool_)
    for role in EndRole:
        found |= np.isin(end_items(connections, role), wanted)
    return found


def _deciding(policy_set: PolicySet, verdicts: Verdicts) -> Iterator[dict[EndRole, Decision]]:
    places = {role: verdicts.deciding(role).tolist() for role in EndRole}
    for row in range(len(verdicts.allowed)):
        yield {
            role: policy_set.rules[places[role][row]].decision
            for role in EndRole
            if places[role][row] != UNGOVERNED
        }
