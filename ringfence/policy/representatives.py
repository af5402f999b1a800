"""A few connections that stand for all that a policy speaks of.

Addresses that no rule tells apart make one class, and so do ports; what holds for a member of each
class holds for all. An inventory of many thousand workloads has few classes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, is_v4
from ringfence.model.ids import NO_CLUSTER, ClusterId
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, PortRange
from ringfence.model.ranges import AddressRange
from ringfence.model.workload import ItemKind
from ringfence.policy.connection import Connection
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fronts import MAX_PORT, Front, Fronts, fits
from ringfence.policy.layer import OrderedRule
from ringfence.policy.match import Matcher, Numbers
from ringfence.policy.order import PolicySet

_ADDRESS = "S16"
_UNASSIGNED = 253
"""A protocol number for experiments (RFC 3692): it stands for all that no rule names."""
_EACH = 2
"""Members that stand for a class: two, for a workload and itself are no connection."""

Entity = tuple[int, Address]
"""The position of a workload and one of its addresses; NOWHERE for an address outside."""
Way = tuple[Address, int, Address | None]
"""What is dialled, address and port, and the node that receives it."""


class Representatives:
    """The classes of one policy set."""

    def __init__(self, policy_set: PolicySet) -> None:
        self._policy_set, self._snapshot = policy_set, policy_set.snapshot
        self._fronts = Fronts(self._snapshot)
        items = self._snapshot.items
        self._held = [(at, one) for at in self._snapshot.subjects for one in items[at].addresses]
        self._positions = np.array([at for at, _ in self._held], dtype=np.int32)
        self._packed = np.array([one for _, one in self._held], dtype=_ADDRESS)
        services = (items[at].service for at in self._snapshot.services)
        self._source_ranges = sorted(
            {one for spec in services if spec for one in spec.source_ranges}
        )
        self._classes = self._classify(Matcher(policy_set))
        self._known_ways: dict[int, list[Way]] = {}
        self._receiving: dict[ClusterId, list[Address]] = {}
        named = {rule.protocol for rule in policy_set.rules if rule.protocol is not None}
        self._protocols = sorted(named | {*WITH_PORTS, ICMP, ICMPV6, _UNASSIGNED})
        self._cuts = self._port_cuts()
        self._address_cuts = sorted(
            {
                cut
                for rule in policy_set.rules
                for end in (rule.consumer, rule.provider)
                for first, last in end.ranges
                for cut in (first, last + 1)
            }.union(*((one.first, one.last + 1) for one in self._source_ranges))
        )

    def connections(self, rule: OrderedRule, *, outside: bool, limit: int) -> Iterator[Connection]:
        """Those that the rule of a policy speaks of: of members of its scope, or of anybody.

        At most `limit`, the same ones for the same inputs.
        """
        return islice(self._connections(rule, outside=outside), limit)

    def _connections(self, rule: OrderedRule, *, outside: bool) -> Iterator[Connection]:
        end, subjects = rule.provider, self._snapshot.subjects
        among = subjects if outside else rule.members
        consumers = self._of(rule.consumer, among)
        if outside:
            consumers += self._strangers(rule.consumer.ranges)
        fronts = self._fronts.of_services(end.services, rule.protocol, rule.ports)
        for consumer, front in product(consumers, fronts):
            yield from self._through(consumer, front, direct=True)
        for provider in self._of(end, subjects):
            mine = [one for one in self._own_node(provider) if one[0] in among]
            if not rule.consumer.own_node:
                mine = [*consumers, *(one for one in mine if one[0] in rule.consumer.items)]
            yield from self._to(rule, mine, provider)
        for consumer in consumers if end.own_node else ():
            for provider in self._own_node(consumer):
                yield from self._to(rule, [consumer], provider)

    def _own_node(self, pod: Entity) -> list[Entity]:
        """The node that runs the pod."""
        node = int(self._policy_set.own_nodes[pod[0]])
        held = () if node == NOWHERE else self._snapshot.items[node].addresses
        return [(node, address) for address in held]

    def _to(
        self, rule: OrderedRule, consumers: Iterable[Entity], provider: Entity
    ) -> Iterator[Connection]:
        """To a provider itself, and through every Service in front of it."""
        at, address = provider
        for consumer in consumers:
            if consumer[0] == at or is_v4(consumer[1]) != is_v4(address):
                continue
            home = self._home(consumer[0]) or self._home(at)
            for protocol in self._protocols if rule.protocol is None else [rule.protocol]:
                for port in self._ports(protocol, rule.ports):
                    yield Connection(protocol, consumer[1], address, port, address, port, home=home)
            for front, backend in self._fronts.served_by(at):
                if fits(backend.protocol, backend.port, rule.protocol, rule.ports):
                    yield from self._through(consumer, front, direct=False, only=address)

    def _through(
        self, consumer: Entity, front: Front, *, direct: bool, only: Address | None = None
    ) -> Iterator[Connection]:
        """By every way that leads through a Service: its addresses, its node ports."""
        v4, home = is_v4(consumer[1]), self._home(consumer[0]) or front.service.cluster
        ways = self._ways(front)
        for backend in front.backends:
            reached = backend.address, backend.port
            holder = self._snapshot.at(backend.address, front.service.cluster)
            if only not in (None, backend.address) or holder == consumer[0]:
                continue
            for dialled, port, node in (*ways, (*reached, None)) if direct else ways:
                if v4 == is_v4(dialled) and front.serves(consumer[1], dialled):
                    yield Connection(
                        backend.protocol, consumer[1], *reached, dialled, port, node, home
                    )

    def _home(self, at: int) -> ClusterId:
        return NO_CLUSTER if at == NOWHERE else self._snapshot.items[at].cluster

    def _ways(self, front: Front) -> list[Way]:
        if id(front) not in self._known_ways:
            port, nodes = front.port, self._nodes(front)
            ways: list[Way] = [(address, port.port, None) for address in front.addresses]
            received = product(front.external_addresses, nodes)
            ways += [(address, port.port, node) for address, node in received]
            ways += [(node, port.node_port, node) for node in nodes if port.node_port]
            self._known_ways[id(front)] = ways
        return self._known_ways[id(front)]

    def _nodes(self, front: Front) -> list[Address]:
        """Addresses of the nodes that may receive for a Service, one for each class."""
        if not (front.port.node_port or front.external_addresses):
            return []
        cluster = front.service.cluster
        if cluster not in self._receiving:
            nodes = BitMap(
                at
                for at in self._snapshot.subjects
                if (item := self._snapshot.items[at]).kind is ItemKind.NODE
                and item.cluster == cluster
            )
            found = self._of(ResolvedEnd(items=nodes), nodes)
            self._receiving[cluster] = [address for _, address in found]
        return self._receiving[cluster]

    def _of(self, end: ResolvedEnd, among: BitMap) -> list[Entity]:
        """Members of each class that the end names, among workloads at those positions."""
        rows = np.flatnonzero(self._among(among) & self._named(end))
        rows = rows[np.argsort(self._classes[rows], kind="stable")]
        # A workload's addresses stand together: of those of one class, the first.
        rows = rows[_changes(self._classes[rows]) | _changes(self._positions[rows])]
        first = np.where(_changes(self._classes[rows]), np.arange(len(rows)), 0)
        nth = np.arange(len(rows)) - np.maximum.accumulate(first)
        return [self._held[row] for row in np.sort(rows[nth < _EACH]).tolist()]

    def _strangers(self, ranges: tuple[AddressRange, ...]) -> list[Entity]:
        """Addresses that nobody holds, one for each part of the ranges that rules tell apart."""
        cuts, starts = self._address_cuts, {first for first, _ in ranges}
        for first, last in ranges:
            starts.update(cuts[bisect_right(cuts, first) : bisect_right(cuts, last)])
        addresses = [Address(start.to_bytes(16)) for start in sorted(starts)]
        return [(NOWHERE, one) for one in addresses if not self._snapshot.is_held(one)]

    def _ports(self, protocol: int, ports: tuple[PortRange, ...]) -> list[int]:
        """One port for each part of the ranges that rules tell apart; all ports for none.

        Of ICMP these are types and codes. What has neither has port 0.
        """
        cuts, found = self._cuts.get(protocol, []), set[int]()
        for some in ports or (PortRange(int(protocol in WITH_PORTS), MAX_PORT),):
            within = slice(bisect_left(cuts, some.first), bisect_right(cuts, some.last))
            found.update((some.first, *cuts[within]))
        return sorted(found)

    def _port_cuts(self) -> dict[int, list[int]]:
        """Where, by protocol, a range of a rule or a port of a Service begins or has ended."""
        found: dict[int, set[int]] = {}
        for rule in self._policy_set.rules:
            for ports in rule.ports:
                assert rule.protocol is not None
                found.setdefault(rule.protocol, set()).update((ports.first, ports.last + 1))
        for front in self._fronts.all:
            for backend in front.backends:
                cuts = found.setdefault(backend.protocol, set())
                cuts.update((backend.port, backend.port + 1))
        return {protocol: sorted(cuts) for protocol, cuts in found.items()}

    def _among(self, items: BitMap) -> NDArray[np.bool_]:
        """Which entities are items of these."""
        # One element more than there are items: the last is where NOWHERE, -1, points.
        held = np.zeros(len(self._snapshot.items) + 1, dtype=np.bool_)
        held[np.array(items.to_array(), dtype=np.intp)] = True
        found: NDArray[np.bool_] = held[self._positions]
        return found

    def _named(self, end: ResolvedEnd) -> NDArray[np.bool_]:
        if end.anyone:
            return np.ones(len(self._held), dtype=np.bool_)
        found = self._among(end.items)
        if end.ranges:
            starts = np.array([first.to_bytes(16) for first, _ in end.ranges], dtype=_ADDRESS)
            ends = np.array([last.to_bytes(16) for _, last in end.ranges], dtype=_ADDRESS)
            spot = np.searchsorted(starts, self._packed, side="right") - 1
            found |= (spot >= 0) & (self._packed <= ends[spot])
        return found

    def _classify(self, matcher: Matcher) -> Numbers:
        """A number for each entity, equal where rules tell no difference."""
        packed = np.frombuffer(b"".join(one for _, one in self._held), np.uint8).reshape(-1, 16)
        own = _numbered(
            matcher.workload_class[self._positions],
            matcher.range_class[matcher.cells.of(packed)],
            _distinct(self._serves(*entity) for entity in self._held),
            np.array([is_v4(address) for _, address in self._held], dtype=np.intp),
            _distinct(
                tuple(address in one for one in self._source_ranges) for _, address in self._held
            ),
        )
        by_item: dict[int, list[int]] = {}
        for (at, _), number in zip(self._held, own.tolist(), strict=True):
            by_item.setdefault(at, []).append(number)
        # Rules may name the node that runs a pod: pods are alike if their nodes are, too.
        nodes = self._policy_set.own_nodes[self._positions].tolist()
        return _numbered(own, _distinct(tuple(by_item.get(node, ())) for node in nodes))

    def _serves(self, at: int, address: Address) -> tuple[int, ...]:
        """The fronts behind which an entity stands."""
        served = self._fronts.served_by(at)
        return tuple(id(front) for front, backend in served if backend.address == address)


def _changes(numbers: NDArray[np.signedinteger]) -> NDArray[np.bool_]:
    """Where another number stands than before; at the first one too."""
    found = np.ones(len(numbers), dtype=np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=found[1:])
    return found


def _distinct(things: Iterable[Hashable]) -> Numbers:
    """A number for each thing, equal for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(one, len(numbers)) for one in things], dtype=np.intp)


def _numbered(*columns: Numbers) -> Numbers:
    """A number for each row, equal for equal ones."""
    return np.unique(np.stack(columns), axis=1, return_inverse=True)[1].reshape(-1)
