"""Who may open which connections to whom, for all workloads of an inventory at once.

Judged are not workloads but *ends*: workloads that no rule tells apart, and addresses outside that
none does, against each other and against cells of ports. So the work grows with what policies
distinguish, not with how many pods there are. Connections are taken as dialled directly: a policy
on a Service speaks of the sockets of its backends.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, is_v4
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP, PortRange
from ringfence.model.ranges import AddressRange, union
from ringfence.model.verdict import EndRole
from ringfence.model.workload import ItemKind
from ringfence.policy import bits
from ringfence.policy.cells import AddressCells, PortCells
from ringfence.policy.evaluate import Order
from ringfence.policy.layer import RuleLayer
from ringfence.policy.match import Matcher

Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]
Allowed = NDArray[np.uint8]
"""Which cells of ports are allowed: bits of octets, along the last axis."""

_WITH_NAMES = (TCP, UDP, SCTP, ICMP, ICMPV6)
_V4, _V6 = 1, 2


class Kind(NamedTuple):
    """What one layer's rules see of an end. `sockets` has (protocol, port, kind of socket)."""

    workload: int
    addresses: int
    sockets: tuple[tuple[int, int, int], ...] = ()


@dataclass
class End:
    """Workloads, by position, or addresses that no item holds, that every layer judges alike.

    A workload with addresses that are not judged alike is in several ends.
    """

    kinds: tuple[Kind, ...]
    families: int
    workloads: list[int] = field(default_factory=list)
    ranges: tuple[AddressRange, ...] = ()


class PortCell(NamedTuple):
    """Ports of a protocol that no rule tells apart."""

    protocol: int
    first: int
    last: int


class Survey:
    """What the rules of some layers, all of one inventory, tell apart.

    `ends` are `inside` ends of workloads and then those outside. `own_nodes` are the pairs of ends
    (pods, nodes) in which a node runs one of the pods.
    """

    def __init__(self, layers: Sequence[RuleLayer]) -> None:
        self.layers = layers
        self.snapshot = layers[0].snapshot
        self.matchers = [Matcher(layer) for layer in layers]
        self.other_protocol: int | None = None
        """Stands for every protocol that no rule names; None where the rules name them all."""
        self.cells = list(self._port_cells())
        self.ends = list(self._workload_ends())
        self.inside = len(self.ends)
        self.ends += self._outside_ends()
        self.own_nodes = self._own_nodes()

    def _port_cells(self) -> Iterator[PortCell]:
        rules = [rule for layer in self.layers for rule in layer.rules]
        sockets = [one for matcher in self.matchers for one in matcher.backends.kinds]
        named = {*_WITH_NAMES, *(rule.protocol for rule in rules if rule.protocol is not None)}
        self.other_protocol = next((one for one in range(256) if one not in named), None)
        others = () if self.other_protocol is None else (self.other_protocol,)
        for protocol in sorted({*named, *others}):
            cut = [
                ports for rule in rules if rule.protocol in (None, protocol) for ports in rule.ports
            ]
            cut += [PortRange(port, port) for _, number, port in sockets if number == protocol]
            ports = PortCells(cut)
            for cell in range(len(ports)):
                yield PortCell(protocol, *ports.bounds(cell))

    def _workload_ends(self) -> Iterator[End]:
        items = self.snapshot.items
        held = [
            (at, address)
            for at in self.snapshot.subjects
            for address in items[at].addresses
            if self.snapshot.at(address, items[at].cluster) == at
        ]
        addresses = [address for _, address in held]
        seen = [
            _kinds(matcher, np.array([at for at, _ in held], dtype=np.intp), addresses)
            for matcher in self.matchers
        ]
        families: dict[tuple[int, tuple[Kind, ...]], int] = defaultdict(int)
        for (at, address), *kinds in zip(held, *seen, strict=True):
            families[at, tuple(kinds)] |= _V4 if is_v4(address) else _V6
        ends: dict[tuple[object, ...], End] = {}
        for (at, kinds_of), spoken in families.items():
            # Nodes and pods apart: a pod and its own node may meet two verdicts, one each way.
            key = kinds_of, spoken, items[at].kind is ItemKind.NODE
            ends.setdefault(key, End(kinds_of, spoken)).workloads.append(at)
        yield from ends.values()

    def _outside_ends(self) -> Iterator[End]:
        cells = AddressCells(
            span
            for matcher in self.matchers
            for span in map(matcher.cells.bounds, range(len(matcher.cells)))
        )
        spans = [cells.bounds(cell) for cell in range(len(cells))]
        starts = [Address(first.to_bytes(16)) for first, _ in spans]
        nowhere = np.full(len(spans), NOWHERE)
        seen = [_kinds(matcher, nowhere, starts) for matcher in self.matchers]
        held = {int.from_bytes(one) for item in self.snapshot.items for one in item.addresses}
        found: dict[tuple[tuple[Kind, ...], int], list[AddressRange]] = {}
        for span, start, *kinds in zip(spans, starts, *seen, strict=True):
            if span[0] != span[1] or span[0] not in held:
                family = _V4 if is_v4(start) else _V6
                found.setdefault((tuple(kinds), family), []).append(span)
        for (kinds_of, family), ranges in found.items():
            yield End(kinds_of, family, ranges=union(ranges))

    def _own_nodes(self) -> set[tuple[int, int]]:
        ends_of: dict[int, list[int]] = defaultdict(list)
        for number, end in enumerate(self.ends):
            for at in end.workloads:
                ends_of[at].append(number)
        own = self.layers[0].own_nodes
        return {
            (pod, node)
            for at, pods in ends_of.items()
            for node in ends_of.get(int(own[at]), ())
            for pod in pods
            if self.ends[pod].families & self.ends[node].families
        }

    def judge(self, *layers: int) -> "Reach":
        """What the layers of those numbers, at least one, all allow between all ends."""
        parts = [_LayerReach(self, layer) for layer in layers]
        pairs = {pair for part in parts for pair in part.own}
        return Reach(
            self,
            np.bitwise_and.reduce([part.allowed for part in parts]),
            {
                pair: np.bitwise_and.reduce([part.between(*pair) for part in parts])
                for pair in pairs
            },
        )


def _kinds(matcher: Matcher, positions: Rows, addresses: Sequence[Address]) -> list[Kind]:
    packed = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
    sockets: dict[Address, list[tuple[int, int, int]]] = defaultdict(list)
    for (address, protocol, port), kind in matcher.backends.kinds.items():
        sockets[address].append((protocol, port, kind))
    return [
        Kind(workload, span, tuple(sorted(sockets.get(address, ()))))
        for workload, span, address in zip(
            matcher.workload_class[positions].tolist(),
            matcher.range_class[matcher.cells.of(packed)].tolist(),
            addresses,
            strict=True,
        )
    ]


@dataclass(frozen=True)
class Reach:
    """What is allowed: `allowed` [consumer, provider, octet of cells], by ends of a survey.

    A pod and its own node are judged apart: `own` has (consumer, provider) of ends.
    """

    survey: Survey
    allowed: Allowed
    own: dict[tuple[int, int], Allowed]


class _LayerReach:
    """What one layer allows, in the form of `Reach`."""

    def __init__(self, survey: Survey, layer: int) -> None:
        self.survey = survey
        self._rules = survey.layers[layer].rules
        self._matcher = matcher = survey.matchers[layer]
        kinds = [end.kinds[layer] for end in survey.ends]
        workload = np.array([kind.workload for kind in kinds], dtype=np.intp)
        span = np.array([kind.addresses for kind in kinds], dtype=np.intp)
        self._consumer = self._held(matcher.consumer[workload] | matcher.consumer_range[span])
        self._provider = self._held(matcher.provider[workload] | matcher.provider_range[span])
        self._outbound = self._held(matcher.governed[EndRole.CONSUMER][workload])
        self._inbound = self._held(matcher.governed[EndRole.PROVIDER][workload])
        self._runs = self._held(matcher.runs)
        self._by_backend = self._held(matcher.by_backend)
        self._cluster = matcher.cluster[workload]
        self._destinations()
        self._sockets(kinds)
        families = np.array([end.families for end in survey.ends])
        self.allowed = self._all_outbound() & self._all_inbound().transpose(1, 0, 2)
        self.allowed[(families[:, None] & families[None, :]) == 0] = 0
        self.own: dict[tuple[int, int], Allowed] = {}
        if self._runs.any():
            (consuming, providing), nobody = self._runs, np.zeros_like(self._runs[0])
            for pod, node in survey.own_nodes:
                self.own[node, pod] = self._pair(node, pod, consuming, nobody)
                self.own[pod, node] = self._pair(pod, node, nobody, providing)

    def between(self, consumer: int, provider: int) -> Allowed:
        """What a pod and its own node may."""
        pair = consumer, provider
        allowed: Allowed = self.own[pair] if pair in self.own else self.allowed[pair]
        return allowed

    def _held(self, rows: bits.Bits) -> Mask:
        return bits.unpack(rows, len(self._rules))

    def _destinations(self) -> None:
        """The rules of each cell: [cell, rule], by protocol alone and with the ports."""
        cells = np.array(self.survey.cells).T
        self._protocols = np.ones((cells.shape[1], len(self._rules)), dtype=np.bool_)
        self._ports = self._protocols.copy()
        for place, rule in enumerate(self._rules):
            if rule.protocol is not None:
                self._protocols[:, place] = cells[0] == rule.protocol
            if rule.ports:
                self._ports[:, place] = np.logical_or.reduce(
                    [(cells[1] >= one.first) & (cells[2] <= one.last) for one in rule.ports]
                )
        self._ports &= self._protocols

    def _sockets(self, kinds: Sequence[Kind]) -> None:
        """The sockets that rules on Services name: of which end, in which cell, of which kind."""
        place = {(cell.protocol, cell.first): at for at, cell in enumerate(self.survey.cells)}
        found = [
            (end, place[protocol, port], socket)
            for end, kind in enumerate(kinds)
            for protocol, port, socket in kind.sockets
        ]
        self._socket_end, self._socket_cell, self._socket_kind = (
            np.array(found, dtype=np.intp).reshape(-1, 3).T
        )

    def _named(self, cluster: int, sockets: Rows | slice, rules: Rows) -> Mask:
        """The rules on Services that name each socket to consumers of a cluster."""
        rows = cluster * len(self._matcher.backends) + self._socket_kind[sockets]
        named: Mask = self._by_backend[rows][:, rules]
        return named & self._protocols[self._socket_cell[sockets]][:, rules]

    def _all_outbound(self) -> Allowed:
        """What consumers allow: [consumer, provider, octet]."""
        found = []
        for end in range(len(self.survey.ends)):
            rules = np.flatnonzero(self._outbound[end] & self._consumer[end])
            said = self._said(rules, self._provider[:, rules], self._ports[:, rules])
            if len(self._socket_end):
                direct = self._provider[self._socket_end][:, rules]
                direct &= self._ports[self._socket_cell][:, rules]
                direct |= self._named(int(self._cluster[end]), slice(None), rules)
                said[self._socket_end, self._socket_cell] = self._decided(rules, direct)
            found.append(np.packbits(said, axis=1))
        return np.stack(found)

    def _all_inbound(self) -> Allowed:
        """What providers allow: [provider, consumer, octet]."""
        count = len(self.survey.ends)
        shape = count, count, -(-len(self.survey.cells) // 8)
        found = np.empty(shape, dtype=np.uint8)
        clusters = np.unique(self._cluster).tolist()
        for end in range(count):
            own = np.flatnonzero(self._socket_end == end)
            for cluster in clusters if len(own) else [None]:
                rules, rows = self._arriving(end, own, cluster)
                chosen = slice(None) if cluster is None else self._cluster == cluster
                said = self._said(rules, self._consumer[chosen][:, rules], rows)
                found[end, chosen] = np.packbits(said, axis=1)
        return found

    def _arriving(self, end: int, own: Rows, cluster: int | None) -> tuple[Rows, Mask]:
        """The rules that govern what comes to an end, and [cell, rule] what they speak of."""
        everything = np.arange(len(self._rules))
        rows = self._ports & self._provider[end]
        if cluster is not None:
            rows[self._socket_cell[own]] |= self._named(cluster, own, everything)
        rules = np.flatnonzero(self._inbound[end] & rows.any(axis=0))
        return rules, rows[:, rules]

    def _pair(self, consumer: int, provider: int, is_own: Mask, has_own: Mask) -> Allowed:
        """What a pod and its own node may: with the rules that `node: own` adds to either end."""
        named, reached = self._consumer[consumer] | is_own, self._provider[provider] | has_own
        own = np.flatnonzero(self._socket_end == provider)
        everything = np.arange(len(self._rules))
        rows = self._ports & reached
        rows[self._socket_cell[own]] |= self._named(int(self._cluster[consumer]), own, everything)
        allowed = np.ones(len(rows), dtype=np.bool_)
        for governed in (self._outbound[consumer], self._inbound[provider]):
            rules = np.flatnonzero(governed & named)
            allowed &= self._decided(rules, rows[:, rules])
        return np.packbits(allowed)

    def _said(self, rules: Rows, peers: Mask, cells: Mask) -> Mask:
        """What the rules say to each of the peers on each of the cells: [peer, cell]."""
        (some, peer_of), (few, cell_of) = (bits.distinct(bits.pack(one)) for one in (peers, cells))
        met = peers[some][:, None, :] & cells[few][None, :, :]
        said = self._decided(rules, met.reshape(len(some) * len(few), len(rules)))
        found: Mask = said.reshape(len(some), len(few))[peer_of][:, cell_of]
        return found

    def _decided(self, rules: Rows, met: Mask) -> Mask:
        """Whether each row of the rules that are met allows; where none decides, it does."""
        order = Order(tuple(self._rules[place] for place in rules.tolist()))
        allows: Mask = ~order.denies[order.deciding(bits.pack(met))]
        return allows
