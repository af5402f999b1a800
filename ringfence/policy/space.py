"""Rules as sets of connections, so that one may be taken away from another.

What an end meets of a connection has five sides: whose address opens it, whose address is reached,
which Service was dialled, protocol and port. A rule is a union of regions, each a product of five
sets; the difference of two regions is a union of at most five. Addresses that no rule tells apart,
and that nobody holds, are one atom; so are ports of Services that share every socket.

The inventory is that of the layer, every address and every connection between them counts, whether
anybody would open it or not. Where a region cannot be exact it is larger, and `exact` says so: such
a one is never taken away from another.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.layer import OrderedRule, RuleLayer

Sides = tuple[BitMap, ...]
"""Five sets: consumers and providers (address atoms; at a receiving node that node for a provider),
what was dialled, protocols, ports."""
_Socket = tuple[Address, int, int]

_PROTOCOLS = BitMap(range(256))
_PORTS = BitMap(range(65536))
_DIRECT, _ELSEWHERE = 0, 1
"""Dialled was the address that is reached, or one of no Service that a rule names."""


@dataclass(frozen=True)
class Region:
    """A product of five sets; `own_node` restricts it to pairs of a pod and its node."""

    sides: Sides
    own_node: EndRole | None = None
    """Which end is the node of the other one."""
    exact: bool = True

    def __bool__(self) -> bool:
        """Whether there may be a connection in it."""
        return all(self.sides)

    def meets(self, other: "Region") -> bool:
        """Whether there may be a connection in both."""
        return all(mine.intersect(its) for mine, its in zip(self.sides, other.sides, strict=True))

    def without(self, other: "Region") -> list["Region"]:
        """What is left of it, at most five regions, no two with a connection in common."""
        same_pairs = other.own_node in (None, self.own_node)
        if not (other.exact and same_pairs and self.meets(other)):
            return [self]
        left, common = [], list(self.sides)
        for at, taken in enumerate(other.sides):
            rest = common[at] - taken
            if rest:
                sides = [*common[:at], rest, *common[at + 1 :]]
                left.append(replace(self, sides=tuple(sides)))
            common[at] = common[at] & taken  # in place it would change this region
        return left


def without(regions: Iterable[Region], others: Sequence[Region]) -> list[Region]:
    """What is left of a union of regions when another one is taken away."""
    left = list(regions)
    for other in others:
        left = [part for region in left for part in region.without(other)]
    return left


class Space:
    """Turns the rules of one layer into regions."""

    def __init__(self, layer: RuleLayer) -> None:
        self._layer = layer
        self._snapshot = layer.snapshot
        self._cut_into_atoms()

    def __len__(self) -> int:
        """The number of atoms of addresses."""
        return len(self._first)

    def regions(self, rule: OrderedRule) -> dict[EndRole, list[Region]]:
        """The connections on which the rule decides at an end in each role, if none before does."""
        governed = self._holding(rule.members)
        consumers, providers = self._named(rule.consumer), self._named(rule.provider)
        met = list(self._between(rule, consumers, providers))
        made = {
            EndRole.CONSUMER: [_narrowed(region, 0, governed) for region in met],
            EndRole.PROVIDER: [_narrowed(region, 1, governed) for region in met],
            EndRole.NODE: list(self._received(rule, consumers, governed)),
        }
        return {role: [one for one in regions if one] for role, regions in made.items()}

    def _between(self, rule: OrderedRule, consumers: BitMap, providers: BitMap) -> Iterator[Region]:
        """The regions of the rule as either end of a connection meets it."""
        protocols, ports = _protocols(rule.protocol), _ports(rule.ports)
        consumer, provider = rule.consumer, rule.provider
        dialled = self._all_dialled
        yield Region((consumers, providers, dialled, protocols, ports))
        if consumer.own_node:
            sides = (self._nodes, providers, dialled, protocols, ports)
            yield Region(sides, EndRole.CONSUMER)
        if provider.own_node:
            yield Region((consumers, self._nodes, dialled, protocols, ports), EndRole.PROVIDER)
        for item, port in _ports_of(rule, self._services(provider)):
            callers = consumers & self._callers(item, provider)
            if consumer.own_node:
                callers = self._nodes & self._callers(item, provider)
            pairs = EndRole.CONSUMER if consumer.own_node else None
            asked = protocols & BitMap([port.protocol])
            dialled_it = self._dialled[item.key, port.name, port.port]
            yield Region((callers, self._everywhere, dialled_it, asked, _PORTS), pairs)
            for backend in _backends(item, port):
                at = self._at(backend[0])
                served = protocols & BitMap([backend[1]])
                socket = BitMap([backend[2]])
                yield Region((callers, at, BitMap([_DIRECT]), served, socket), pairs)
                if also := self._dialled_at.get(backend):
                    sides = (callers, at, BitMap([also]), served, socket)
                    yield Region(sides, pairs, exact=False)

    def _received(self, rule: OrderedRule, consumers: BitMap, nodes: BitMap) -> Iterator[Region]:
        """The regions of the rule as the node meets it that receives for a Service."""
        protocols = _protocols(rule.protocol)
        if rule.provider.anyone:
            yield Region(
                (consumers, nodes, self._all_dialled, protocols, _ports(rule.ports))
            )  # fmt: skip
            return
        for item, port in _ports_of(rule, self._services(rule.provider)):
            callers = consumers & self._callers(item, rule.provider)
            dialled = self._dialled[item.key, port.name, port.port]
            yield Region((callers, nodes, dialled, protocols & BitMap([port.protocol]), _PORTS))

    def _named(self, end: ResolvedEnd) -> BitMap:
        if end.anyone:
            return self._everywhere
        return BitMap.union(
            self._holding(end.items), *(self._within(first, last) for first, last in end.ranges)
        )

    def _holding(self, positions: BitMap) -> BitMap:
        """The atoms that the items at the positions hold."""
        at = np.array(positions.to_array(), dtype=np.intp)
        starts = self._starts[at]
        counts = self._starts[at + 1] - starts
        # Each position's stretch of `_by_holder`, one after the other.
        stretches = np.repeat(starts + counts - counts.cumsum(), counts) + np.arange(counts.sum())
        return BitMap(self._by_holder[stretches])

    def _within(self, first: int, last: int) -> BitMap:
        spans = self._first, self._last
        return BitMap(range(bisect_left(spans[0], first), bisect_right(spans[1], last)))

    def _at(self, address: Address) -> BitMap:
        number = int.from_bytes(address)
        return self._within(number, number)

    def _callers(self, service: Item, end: ResolvedEnd) -> BitMap:
        """The atoms from where the end means the Service."""
        if not end.same_cluster:
            return self._everywhere
        return self._everywhere - self._elsewhere[service.cluster]

    def _services(self, end: ResolvedEnd) -> Iterator[Item]:
        return (self._snapshot.items[position] for position in end.services)

    def _cut_into_atoms(self) -> None:
        """Make atoms: each address that is held or served at, and each interval between cuts.

        An address that several Kubernetes clusters hold is one of each.
        """
        singles = {address for item in self._snapshot.items for address in item.addresses}
        for item in self._named_services:
            if item.service:
                singles |= {backend.address for backend in item.service.backends}
        cuts = {0, 1 << 128}
        for rule in self._layer.rules:
            for first, last in (*rule.consumer.ranges, *rule.provider.ranges):
                cuts |= {first, last + 1}
        for address in singles:
            number = int.from_bytes(address)
            cuts |= {number, number + 1}
        bounds = sorted(cuts)
        held = [
            (first, after - 1, holder)
            for first, after in pairwise(bounds)
            for holder in self._snapshot.each_holder(Address(first.to_bytes(16))) or (NOWHERE,)
        ]
        spans = [(first, last) for first, last, _ in held]
        self._first = [first for first, _ in spans]
        self._last = [last for _, last in spans]
        self._everywhere = BitMap(range(len(spans)))
        holders = np.array([holder for _, _, holder in held], dtype=np.int32)
        self._by_holder = np.argsort(holders, kind="stable").astype(np.uint32)
        """The atoms, those of nobody first, then those of each position."""
        positions = np.arange(len(self._snapshot.items) + 1)
        self._starts = np.searchsorted(holders[self._by_holder], positions)

    @cached_property
    def _named_services(self) -> list[Item]:
        positions = BitMap.union(BitMap(), *(rule.provider.services for rule in self._layer.rules))
        return [self._snapshot.items[position] for position in positions]

    @cached_property
    def _nodes(self) -> BitMap:
        kinds = self._snapshot.items
        return self._holding(BitMap(at for at in self._snapshot.subjects
                                    if kinds[at].kind is ItemKind.NODE))  # fmt: skip

    @cached_property
    def _elsewhere(self) -> Mapping[ClusterId, BitMap]:
        """For each Kubernetes cluster the atoms that items of others hold."""
        clusters: dict[ClusterId, BitMap] = {}
        for position, item in enumerate(self._snapshot.items):
            if item.cluster:
                clusters.setdefault(item.cluster, BitMap()).add(position)
        everyone = BitMap.union(BitMap(), *clusters.values())
        return {
            one: self._holding(everyone - clusters.get(one, BitMap()))
            for one in {*clusters, *(item.cluster for item in self._named_services)}
        }

    @cached_property
    def _fronts(self) -> dict[_Socket, list[tuple[str, str, int]]]:
        """The sockets at which named Services are dialled, and whose ports they are."""
        nodes: dict[ClusterId, list[Address]] = {}
        for item in self._snapshot.items:
            if item.kind is ItemKind.NODE:
                nodes.setdefault(item.cluster, []).extend(item.addresses)
        fronts: dict[_Socket, list[tuple[str, str, int]]] = {}
        for item in self._named_services:
            if item.service is None:
                continue
            for port in item.service.ports:
                addresses = (*item.addresses, *item.service.external_addresses)
                sockets = [(address, port.protocol, port.port) for address in addresses]
                if port.node_port:
                    sockets += [
                        (address, port.protocol, port.node_port)
                        for address in nodes.get(item.cluster, ())
                    ]
                for socket in sockets:
                    fronts.setdefault(socket, []).append((item.key, port.name, port.port))
        return fronts

    @cached_property
    def _dialled_at(self) -> dict[_Socket, int]:
        """For each such socket its atom: sockets of the same ports are one."""
        kinds = {frozenset(ports): 0 for ports in self._fronts.values()}
        atoms = {kind: atom for atom, kind in enumerate(kinds, start=_ELSEWHERE + 1)}
        return {socket: atoms[frozenset(ports)] for socket, ports in self._fronts.items()}

    @cached_property
    def _dialled(self) -> dict[tuple[str, str, int], BitMap]:
        """For each port of a named Service the atoms by which it is dialled."""
        found: dict[tuple[str, str, int], BitMap] = {}
        for item in self._named_services:
            for port in item.service.ports if item.service else ():
                found[item.key, port.name, port.port] = BitMap()
        for socket, ports in self._fronts.items():
            for one in ports:
                found[one].add(self._dialled_at[socket])
        return found

    @cached_property
    def _all_dialled(self) -> BitMap:
        return BitMap([_DIRECT, _ELSEWHERE, *self._dialled_at.values()])


def _narrowed(region: Region, at: int, governed: BitMap) -> Region:
    sides = list(region.sides)
    sides[at] = sides[at] & governed
    return replace(region, sides=tuple(sides))


def _protocols(protocol: int | None) -> BitMap:
    return _PROTOCOLS if protocol is None else BitMap([protocol])


def _ports(ports: tuple[PortRange, ...]) -> BitMap:
    if not ports:
        return _PORTS
    return BitMap.union(*(BitMap(range(one.first, one.last + 1)) for one in ports))


def _ports_of(rule: OrderedRule, services: Iterable[Item]) -> Iterator[tuple[Item, ServicePort]]:
    for item in services:
        for port in item.service.ports if item.service else ():
            if not rule.ports or any(port.port in ports for ports in rule.ports):
                yield item, port


def _backends(item: Item, port: ServicePort) -> Iterator[_Socket]:
    for backend in item.service.serving(port) if item.service else ():
        yield backend.address, backend.protocol, backend.port
