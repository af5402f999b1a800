"""Live analysis: what a policy version would have said to the connections that were seen."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.control.deciding import Deciding, Logging
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.as_known import AsKnown
from ringfence.inventory.contents import Contents
from ringfence.inventory.holders import distinct, distinct_rows, octets_of
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import RevisionId, WorkspaceName
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import compile_policies
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import end_items, evaluate
from ringfence.policy.layer import RuleLayer
from ringfence.policy.logged import logged
from ringfence.policy.moment import Moment, expiries, moment, patterns, sets_named
from ringfence.policy.nodes import NodeKey, Surroundings
from ringfence.policy.program import NodePolicy
from ringfence.policy.spared import FailSafes, decision_of

if TYPE_CHECKING:  # who judges files needs nothing that keeps an inventory
    from ringfence.control.inventory import Inventory


@dataclass(frozen=True)
class Judged:
    """The verdicts on n connections.

    `deciding` has the rule of each end that decided, `logged` those that log the connection.
    """

    views: dict[WorkspaceName, NDArray[np.bool_]]
    """By workspace asked about, which connections have an end that it governs."""
    allowed: NDArray[np.bool_]
    deciding: Deciding
    logged: Logging

    @classmethod
    def blank(cls, count: int, workspaces: Iterable[WorkspaceName]) -> "Judged":
        """Nothing of so many connections is known yet."""
        return cls(
            {name: np.zeros(count, bool) for name in workspaces},
            np.ones(count, bool),
            Deciding(count),
            Logging(count),
        )

    def spread(self, which: NDArray[np.int64]) -> "Judged":
        """The same of more connections, each of which is one of these."""
        return Judged(
            {name: view[which] for name, view in self.views.items()},
            self.allowed[which],
            self.deciding.spread(which),
            self.logged.spread(which),
        )

    @property
    def in_view(self) -> NDArray[np.bool_]:
        """Which connections have an end that any of the workspaces governs."""
        nothing = np.zeros(len(self.allowed), np.bool_)
        return np.asarray(np.logical_or.reduce([nothing, *self.views.values()]))


@dataclass(frozen=True)
class History:
    """What held over time."""

    timeline: Timeline
    names: Resolutions
    sets: Contents = field(default_factory=Contents)
    surroundings: Surroundings = Surroundings()  # noqa: RUF009 - frozen
    """Whom fail-safes let pass; as it is now."""


def history_of(inventory: "Inventory", surroundings: Surroundings) -> History:
    """What held over time by the inventory."""
    names, sets = inventory.names.resolutions, inventory.address_sets.contents
    return History(inventory.timeline, names, sets, surroundings)


async def judge(
    records: Records,
    history: History,
    until_ns: int,
    judged_by: JudgedBy,
    *workspaces: WorkspaceName,
) -> Judged:
    """Judge each connection by all that held when its own first packet was seen.

    A fail-safe decides where policies deny what it lets pass.

    In view are the ends that the workspaces, some of those judged by, govern. Threads judge, by
    the inventory as it is known now; names are asked here, for they change on the event loop.
    """
    instants = _instants(judged_by, history)
    epochs = np.searchsorted(instants, records.column("first_ns"), side="right")
    chosen, which = await asyncio.to_thread(_distinct, records, epochs)
    asked = await asyncio.to_thread(records.only(_JUDGED).take, chosen)
    judged, known = Judged.blank(len(asked), workspaces), history.timeline.as_known()

    def work(rows: NDArray[np.intp], snapshot: Snapshot, then: Moment) -> None:
        policy_set = judged_by.begun(then.at_ns).ringfence(snapshot, then)
        connections = connections_of(asked.take(rows), snapshot)
        for name, view in judged.views.items():
            view[rows] = _in_view(connections, judged_by.within(snapshot, name))
        layers: list[RuleLayer] = [policy_set, *judged_by.kubernetes(snapshot)]
        for layer in layers:
            judged.deciding.add(rows, layer, evaluate(layer, connections))
        denied = np.flatnonzero(judged.deciding.denied(rows))
        if len(denied):
            enforced = partial(_enforced, judged_by, known, then, history.surroundings)
            fail_safes = FailSafes(snapshot, history.surroundings, enforced)
            _spare(judged.deciding, rows[denied], connections.take(denied), fail_safes)
        judged.allowed[rows] = ~judged.deciding.denied(rows)
        for decision, hits in logged(policy_set, connections):
            judged.logged.add(decision, rows[hits])

    first_ns, epochs = asked.column("first_ns"), epochs[chosen]
    async for rows, snapshot in by_inventory(asked, history.timeline, until_ns):
        for epoch in np.unique(epochs[rows]).tolist():
            some = rows[epochs[rows] == epoch]
            then = moment(history.names, history.sets, int(first_ns[some].min()))
            await asyncio.to_thread(work, some, snapshot, then)
    return await asyncio.to_thread(judged.spread, which)


def _spare(
    deciding: Deciding,
    rows: NDArray[np.intp],
    denied: Connections,
    fail_safes: FailSafes,
) -> None:
    """Have fail-safes decide of what is denied; `denied` are the connections of the rows."""
    for role in EndRole:
        for handle, spoken in fail_safes.at(denied, role):
            deciding.spare(rows[spoken], role, decision_of(handle))


def _enforced(
    judged_by: JudgedBy, known: AsKnown, then: Moment, around: Surroundings
) -> Mapping[NodeKey, NodePolicy]:
    """What nodes enforced at a moment, by all of the inventory as it was."""
    policy_set = judged_by.begun(then.at_ns).ringfence(known.at(then.at_ns), then)
    return compile_policies(policy_set, around.control_plane, around.access).policies


def _distinct(
    records: Records, epochs: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Of connections that differ in nothing that is judged the last, and which each one is."""
    words = [records.column(f"{end}_revision") for end in _ENDS]
    halves = [records.column(name) for name in ("protocol", "provider_port", "dialled_port")]
    nodes = records.table["node"].combine_chunks().dictionary_encode().indices
    ends = (records.column(end) for end in _ENDS)
    observer, homes = np.asarray(nodes.fill_null(0)), records.seen_from.which
    _, which = distinct_rows(
        octets_of(*ends, *words, epochs, *halves, records.translated, observer, homes)
    )
    first_ns = records.column("first_ns")
    last_ns = np.zeros(int(which.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(last_ns, which, first_ns)
    rows = np.flatnonzero(first_ns == last_ns[which])
    last = np.zeros(len(last_ns), dtype=np.intp)
    last[which[rows]] = rows
    return last, which


def _instants(judged_by: JudgedBy, history: History) -> NDArray[np.int64]:
    """When what is enforced changed its meaning by time alone, or somebody was cut off; sorted."""
    enforced = judged_by.workspaces
    begun = (one.since_ns for one in judged_by.quarantines)
    named = history.names.instants(patterns(enforced))
    held = history.sets.instants(sets_named(enforced))
    changes = {*expiries(enforced), *named, *held, *begun}
    return np.array(sorted(changes), dtype=np.int64)


async def by_inventory(
    records: Records, timeline: Timeline, until_ns: int
) -> AsyncIterator[tuple[NDArray[np.intp], Snapshot]]:
    """Split the connections by inventories that hold all their ends as they were then.

    Threads look through what is known now.
    """
    parts = _by_inventory(records, timeline.as_known(), until_ns)
    while part := await asyncio.to_thread(next, parts, None):
        yield part


def _by_inventory(
    records: Records, known: AsKnown, until_ns: int
) -> Iterator[tuple[NDArray[np.intp], Snapshot]]:
    """Most of what is analysed ran in the present inventory, so that one is tried first.

    Each change since then concerns few: of earlier ones only what is around the ends is needed.
    Ends are found by their addresses: late news may have given the revision of one another end.
    """
    ends = np.stack([records.column(f"{end}_revision") for end in _ENDS], axis=1)
    revisions, which = np.unique(ends, return_inverse=True)
    which = which.reshape(ends.shape)
    # Who came in the midst of the connection, as one that was put together of several may have it.
    began = known.begins_of(map(RevisionId, revisions.tolist()))[which].max(axis=1, initial=0)
    first_ns = np.maximum(records.column("first_ns"), began)
    keys, place = distinct(np.concatenate([records.column(end) for end in _ENDS]))
    addresses, place = keys.to_pylist(), place.reshape(len(_ENDS), -1)
    left = np.arange(len(records))
    at_ns = until_ns - 1
    present = True
    while len(left):
        alive = np.isin(revisions, known.living_at(at_ns)) | (revisions == 0)
        fits = alive[which[left]].all(axis=1) | (first_ns[left] == at_ns)
        chosen, left = left[fits], left[~fits]
        if len(chosen):
            held = {addresses[at] for at in np.unique(place[:, chosen]).tolist()}
            yield chosen, known.at(at_ns) if present else known.around(at_ns, held)
        at_ns, present = int(first_ns[left].max(initial=0)), False


_ENDS = ("first_consumer", "provider", "dialled")
_JUDGED = (
    *_ENDS,
    *(f"{end}_revision" for end in _ENDS),
    *("protocol", "provider_port", "dialled_port", "first_ns", "node", "kubernetes_cluster"),
)
"""The columns that are looked at."""


def connections_of(records: Records, snapshot: Snapshot) -> Connections:
    """The connections as policy judges them, in one inventory."""
    dialled, protocol = records.column("dialled"), records.column("protocol")
    port = records.column("dialled_port")
    seen_from = records.seen_from
    consumer_item, provider_item, dialled_item = (
        snapshot.locate(records.column(end), seen_from) for end in _ENDS
    )
    kinds = np.array([item.kind is ItemKind.NODE for item in snapshot.items] + [False])
    services = ServiceSockets(snapshot)
    places, which = distinct_rows(octets_of(dialled, protocol, port, seen_from.which))
    homes = [seen_from.clusters[at] for at in seen_from.which[places].tolist()]
    dialled_service = [
        services.at(dialled[at].tobytes(), int(protocol[at]), int(port[at]), home)
        for at, home in zip(places.tolist(), homes, strict=True)
    ]
    to_service = np.array([one is not None for one in dialled_service], dtype=np.bool_)[which]
    received = kinds[dialled_item] & (to_service | records.translated)
    node_item = np.where(received, dialled_item, NOWHERE).astype(np.int32)
    _receive(node_item, dialled_service, which, records, snapshot)
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
        node_item=node_item,
    )


def _receive(
    node_item: NDArray[np.int32],
    dialled: Sequence[Item | None],
    which: NDArray[np.int64],
    records: Records,
    snapshot: Snapshot,
) -> None:
    """Fill in the nodes that received at load-balancer and external addresses.

    `dialled` are Services, `which` the one of each connection. Each node translates by itself what
    comes to it: the node that told of the last hop received it.
    """
    services = (snapshot.items[at].service for at in snapshot.services)
    external = {address for spec in services if spec for address in spec.external_addresses}
    packed = np.ascontiguousarray(records.column("dialled")).view("S16").reshape(-1)
    rows = np.flatnonzero(np.isin(packed, np.array(list(external), dtype="S16")))
    if not len(rows):
        return
    nodes = {
        (item.cluster, item.name): at
        for at, item in enumerate(snapshot.items)
        if item.kind is ItemKind.NODE
    }
    told = records.column("node")
    for row in rows.tolist():
        if item := dialled[which[row]]:
            node_item[row] = nodes.get((item.cluster, told[row]), NOWHERE)


def _in_view(connections: Connections, scope: BitMap) -> NDArray[np.bool_]:
    wanted = np.array(scope.to_array(), dtype=np.int64)
    found = np.zeros(len(connections), dtype=np.bool_)
    for role in EndRole:
        found |= np.isin(end_items(connections, role), wanted)
    return found
