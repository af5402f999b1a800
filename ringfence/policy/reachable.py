"""What a workload reaches and what reaches it, and what a change of policy gains and loses, told
in names that people know: owners, namespaces, CIDR blocks, ports.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.protocol import WITH_PORTS, PortRange, format_port, format_protocol
from ringfence.model.ranges import AddressRange, union
from ringfence.model.workload import ItemKind
from ringfence.policy.cells import PORTS
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.reach import Allowed, PortCell, Reach, Survey

OWN_NODE = "its own node"
OTHERS = "other addresses"


@dataclass(frozen=True, slots=True)
class Peers:
    """Who may be reached, or may reach, on the same connections, such as `TCP 80, 443; UDP 53`."""

    names: tuple[str, ...]
    connections: str


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections from any of the consumers to any of the providers."""

    consumers: tuple[str, ...]
    providers: tuple[str, ...]
    connections: str


def outbound(reach: Reach, position: int) -> list[Peers]:
    """Whom the workload at the position may open connections to."""
    return _peers(reach, position, consumer=True)


def inbound(reach: Reach, position: int) -> list[Peers]:
    """Who may open connections to the workload at the position."""
    return _peers(reach, position, consumer=False)


def cells_by_peer(reach: Reach, position: int, *, consumer: bool) -> tuple[Allowed, Allowed]:
    """What a workload may open, as the consumer, or else get: [position, octet of cells] for the
    workloads, and [end - `inside`, octet] for the ends outside.

    It is allowed what one of its ends is, and one of its peer's.
    """
    survey = reach.survey
    allowed = reach.allowed if consumer else reach.allowed.transpose(1, 0, 2)
    mine = [at for at, end in enumerate(survey.ends) if position in end.workloads]
    own_nodes = survey.layers[0].own_nodes
    near = BitMap(np.flatnonzero(own_nodes == position).tolist())
    if own_nodes[position] != NOWHERE:
        near.add(int(own_nodes[position]))
    inside = np.zeros((len(survey.snapshot.items), allowed.shape[2]), dtype=np.uint8)
    for at, end in enumerate(survey.ends[: survey.inside]):
        workloads = BitMap(end.workloads)
        inside[(workloads - near).to_array()] |= np.bitwise_or.reduce(allowed[mine, at])
        pairs = [(one, at) if consumer else (at, one) for one in mine]
        for pair in pairs:
            inside[(workloads & near).to_array()] |= reach.own.get(pair, reach.allowed[pair])
    return inside, np.bitwise_or.reduce(allowed[mine, survey.inside :])


def _peers(reach: Reach, position: int, *, consumer: bool) -> list[Peers]:
    survey, names = reach.survey, Names(reach.survey, but=position)
    workloads, addresses = cells_by_peer(reach, position, consumer=consumer)
    inside: dict[bytes, BitMap] = defaultdict(BitMap)
    for peer in survey.snapshot.subjects:
        if peer != position:
            inside[workloads[peer].tobytes()].add(peer)
    outside: dict[bytes, list[int]] = defaultdict(list)
    for end, said in enumerate(addresses, survey.inside):
        outside[said.tobytes()].append(end)
    found = []
    for row in {*inside, *outside}:
        cells = np.frombuffer(row, dtype=np.uint8)
        if cells.any():
            called = (*names.of(inside[row]), *names.outside(outside[row]))
            found.append(Peers(called, tell(survey, cells)))
    return sorted(found, key=lambda peers: peers.names)


def gained(old: Reach, new: Reach) -> list[Connections]:
    """The connections that `new` allows and `old`, of the same survey, does not."""
    survey, names = old.survey, Names(old.survey)
    added = new.allowed & ~old.allowed
    for at, end in enumerate(survey.ends):
        if len(end.workloads) == 1:
            added[at, at] = 0
    by_change: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for consumer in np.flatnonzero(added.any(axis=(1, 2))).tolist():
        rows = added[consumer]
        for said in {row.tobytes() for row in rows[rows.any(axis=1)]}:
            alike = (rows == np.frombuffer(said, dtype=np.uint8)).all(axis=1)
            by_change[said, np.flatnonzero(alike).tobytes()].append(consumer)
    found = [
        Connections(
            names.of_ends(consumers),
            names.of_ends(np.frombuffer(providers, dtype=np.intp).tolist()),
            tell(survey, np.frombuffer(said, dtype=np.uint8)),
        )
        for (said, providers), consumers in by_change.items()
    ]
    found += _gained_at_own_nodes(old, new, names)
    return sorted(found, key=lambda one: (one.consumers, one.providers, one.connections))


def _gained_at_own_nodes(old: Reach, new: Reach, names: "Names") -> Iterator[Connections]:
    """What pods and their own nodes gain where that is not what any node gains."""
    by_change: dict[tuple[bytes, bool], list[int]] = defaultdict(list)
    for consumer, provider in {*old.own, *new.own}:
        pair = consumer, provider
        will, was = (one.own.get(pair, one.allowed[pair]) for one in (new, old))
        added, any_node = will & ~was, new.allowed[pair] & ~old.allowed[pair]
        from_node = (provider, consumer) in old.survey.own_nodes
        if added.any() and (added != any_node).any():
            by_change[added.tobytes(), from_node].append(provider if from_node else consumer)
    for (said, from_node), pods in by_change.items():
        node: tuple[str, ...] = (OWN_NODE,)
        consumers, providers = node, names.of_ends(pods)
        if not from_node:
            consumers, providers = providers, consumers
        connections = tell(old.survey, np.frombuffer(said, dtype=np.uint8))
        yield Connections(consumers, providers, connections)


class Names:
    """The shortest names for workloads and addresses of a survey.

    Names of groups stand for all of them `but` the workload at one position, whose peers are told.
    """

    def __init__(self, survey: Survey, but: int | None = None) -> None:
        self._survey = survey
        self._snapshot: Snapshot = survey.snapshot
        self._groups: dict[str, BitMap] = defaultdict(BitMap)
        items = self._snapshot.items
        several = len({items[at].cluster for at in self._snapshot.subjects} - {""}) > 1
        self._names: list[tuple[str, str, str]] = []
        """For each position: a name for all around it, for its replicas, and its own."""
        for at, item in enumerate(items):
            within = f"{item.cluster}/" if several and item.cluster else ""
            if item.kind is ItemKind.POD:
                space = f"{within}{item.namespace}"
                names = f"{space}/*", f"{space}/{item.workload_name}", f"{space}/{item.name}"
            else:
                names = f"{within}{item.kind}s", f"{within}{item.name}", f"{within}{item.name}"
            self._names.append(names)
            if at in self._snapshot.subjects and at != but:
                for name in names[:2]:
                    self._groups[name].add(at)

    def of(self, workloads: BitMap) -> tuple[str, ...]:
        """Names for all of the workloads and no others, sorted."""
        found = set()
        for at in workloads:
            around, replicas, own = self._names[at]
            whole = (name for name in (around, replicas) if self._groups[name] <= workloads)
            found.add(next(whole, own))
        return tuple(sorted(found))

    def outside(self, ends: Iterable[int]) -> tuple[str, ...]:
        """CIDR blocks for the addresses of the ends, and a word for those that no rule names."""
        ranges: list[AddressRange] = []
        others = False
        for at in ends:
            unnamed = self._is_unnamed(at)
            others |= unnamed
            ranges += () if unnamed else self._survey.ends[at].ranges
        blocks = ResolvedEnd(ranges=union(ranges)).networks
        return (*map(str, blocks), *((OTHERS,) if others else ()))

    def of_ends(self, ends: Iterable[int]) -> tuple[str, ...]:
        """Names for the workloads and addresses of all of the ends."""
        ends = list(ends)
        inside = BitMap(at for end in ends for at in self._survey.ends[end].workloads)
        return *self.of(inside), *self.outside(end for end in ends if end >= self._survey.inside)

    def _is_unnamed(self, end: int) -> bool:
        kinds = self._survey.ends[end].kinds
        return not any(
            matcher.consumer_range[kind.addresses].any()
            or matcher.provider_range[kind.addresses].any()
            for matcher, kind in zip(self._survey.matchers, kinds, strict=True)
        )


def tell(survey: Survey, allowed: Allowed) -> str:
    """The connections of some cells of ports: `TCP 80, 8000-8100; UDP`, or `any` for all."""
    held = np.unpackbits(allowed, count=len(survey.cells)).tolist()
    if all(held):
        return "any"
    chosen = [cell for cell, is_held in zip(survey.cells, held, strict=True) if is_held]
    return "; ".join(
        _tell_protocol(survey, protocol, list(cells))
        for protocol, cells in groupby(chosen, key=lambda cell: cell.protocol)
    )


def _tell_protocol(survey: Survey, protocol: int, cells: list[PortCell]) -> str:
    name = format_protocol(protocol) if protocol != survey.other_protocol else "other protocols"
    merged: list[tuple[int, int]] = []
    for _, first, last in cells:
        if merged and merged[-1][1] + 1 == first:
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    if merged == [(0, PORTS - 1)]:
        return name
    if protocol in WITH_PORTS:
        return f"{name} {', '.join(str(PortRange(*ports)) for ports in merged)}"
    told = [dict.fromkeys(format_port(protocol, port) for port in ports) for ports in merged]
    return f"{name} {', '.join('-'.join(one) for one in told)}"
