"""A few connections that stand for all that a policy speaks of.

Addresses that no rule tells apart make one class, and so do ports; what holds for a member of each
class holds for all. An inventory of many thousand workloads has few classes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, is_v4
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, PortRange
from ringfence.model.workload import ItemKind
from ringfence.policy.connection import Connection
from ringfence.policy.ends import AddressRange, ResolvedEnd
from ringfence.policy.fronts import MAX_PORT, Front, Fronts, fits
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import PolicySet

_ADDRESS = "S16"
_UNASSIGNED = 253
"""A protocol number for experiments (RFC 3692): it stands for all that no rule names."""
_EACH = 2
"""Members that stand for a class: two, for a workload and itself are no connection."""

Entity = tuple[int, Address]
"""The position of a workload and one of its addresses; NOWHERE for an address outside."""


class Representatives:
    """The classes of one policy set."""

    def __init__(self, policy_set: PolicySet) -> None:
        self._policy_set, self._snapshot = policy_set, policy_set.snapshot
        self._fronts = Fronts(self._snapshot)
        items = self._snapshot.items
        self._held = [(at, one) for at in self._snapshot.subjects for one in items[at].addresses]
        self._positions = np.array([at for at, _ in self._held], dtype=np.int32)
        self._packed = np.array([one for _, one in self._held], dtype=_ADDRESS)
        self._classes = self._classify()
        named = {rule.protocol for rule in policy_set.rules if rule.protocol is not None}
        self._protocols = sorted(named | {*WITH_PORTS, ICMP, ICMPV6, _UNASSIGNED})
        self._cuts = sorted(set(self._port_cuts()))
        self._address_cuts = sorted(
            {
                cut
                for rule in policy_set.rules
                for end in (rule.consumer, rule.provider)
                for first, last in end.ranges
                for cut in (first, last + 1)
            }
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
            for protocol in self._protocols if rule.protocol is None else [rule.protocol]:
                for port in self._ports(rule.ports) if protocol in WITH_PORTS else (0,):
                    yield Connection(protocol, consumer[1], address, port, address, port)
            for front, backend in self._fronts.served_by(at):
                if fits(backend.protocol, backend.port, rule.protocol, rule.ports):
                    yield from self._through(consumer, front, direct=False, only=address)

    def _through(
        self, consumer: Entity, front: Front, *, direct: bool, only: Address | None = None
    ) -> Iterator[Connection]:
        """By every way that leads through a Service: its addresses, its node ports."""
        nodes = self._nodes(front)
        for backend in front.backends:
            reached = backend.address, backend.port
            holder = self._snapshot.at(backend.address)
            if only not in (None, backend.address) or holder == consumer[0]:
                continue
            ways: list[tuple[Address, int, Address | None]] = [
                (address, front.port.port, None) for address in front.addresses
            ]
            ways += [
                (address, front.port.port, node)
                for address, node in product(front.external_addresses, nodes)
            ]
            if front.port.node_port:
                ways += [(node, front.port.node_port, node) for node in nodes]
            if direct:
                ways.append((*reached, None))
            for dialled, port, node in ways:
                if is_v4(consumer[1]) == is_v4(dialled):
                    yield Connection(backend.protocol, consumer[1], *reached, dialled, port, node)

    def _nodes(self, front: Front) -> list[Address]:
        """Addresses of the nodes that may receive for a Service, one for each class."""
        if not (front.port.node_port or front.external_addresses):
            return []
        items = self._snapshot.items
        nodes = BitMap(
            at
            for at in self._snapshot.subjects
            if items[at].kind is ItemKind.NODE and items[at].cluster == front.service.cluster
        )
        return [address for _, address in self._of(ResolvedEnd(items=nodes), nodes)]

    def _of(self, end: ResolvedEnd, among: BitMap) -> list[Entity]:
        """Members of each class that the end names, among workloads at those positions."""
        if not self._held:
            return []
        named = self._among(among) & self._named(end)
        taken: dict[int, set[int]] = {}
        found = []
        for row in np.flatnonzero(named).tolist():
            at = self._held[row][0]
            held = taken.setdefault(int(self._classes[row]), set())
            if len(held) < _EACH and at not in held:
                held.add(at)
                found.append(self._held[row])
        return found

    def _strangers(self, ranges: tuple[AddressRange, ...]) -> list[Entity]:
        """Addresses that nobody holds, one for each part of the ranges that rules tell apart."""
        starts = {first for first, _ in ranges} | {
            cut for cut in self._address_cuts for first, last in ranges if first < cut <= last
        }
        addresses = [Address(start.to_bytes(16)) for start in sorted(starts)]
        return [(NOWHERE, one) for one in addresses if self._snapshot.at(one) == NOWHERE]

    def _ports(self, ports: tuple[PortRange, ...]) -> list[int]:
        """One port for each part of the ranges that rules tell apart; all ports for none."""
        found = set[int]()
        for some in ports or (PortRange(1, MAX_PORT),):
            within = slice(bisect_left(self._cuts, some.first), bisect_right(self._cuts, some.last))
            found.update((some.first, *self._cuts[within]))
        return sorted(found)

    def _port_cuts(self) -> Iterator[int]:
        for rule in self._policy_set.rules:
            for ports in rule.ports:
                yield from (ports.first, ports.last + 1)
        for front in self._fronts.all:
            for backend in front.backends:
                yield from (backend.port, backend.port + 1)

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

    def _classify(self) -> NDArray[np.uint64]:
        """A number for each entity, equal where rules tell no difference.

        Each fact has a random number of 64 bits; those of the facts that hold are folded by XOR.
        """
        numbers = np.random.default_rng(0)

        def fact() -> np.uint64:
            return numbers.integers(2**64, dtype=np.uint64)

        classes = np.zeros(len(self._held), dtype=np.uint64)
        for rule in self._policy_set.rules:
            facts = [self._among(rule.members)]
            facts += [self._named(end) for end in (rule.consumer, rule.provider)]
            for held in facts:
                classes ^= np.where(held, fact(), np.uint64(0))
        v4 = np.array([is_v4(one) for _, one in self._held], dtype=np.bool_)
        classes ^= np.where(v4, fact(), np.uint64(0))
        clusters = sorted({item.cluster for item in self._snapshot.items})
        of_cluster = {cluster: fact() for cluster in clusters}
        of_front = {id(front): fact() for front in self._fronts.all}
        by_item: dict[int, np.uint64] = {}
        for row, (at, _) in enumerate(self._held):
            classes[row] ^= of_cluster[self._snapshot.items[at].cluster]
            for front, backend in self._fronts.served_by(at):
                if backend.address == self._held[row][1]:
                    classes[row] ^= of_front[id(front)]
            by_item[at] = by_item.get(at, np.uint64(0)) ^ classes[row]
        # Rules may name the node that runs a pod: pods are alike if their nodes are, too.
        nodes = self._policy_set.own_nodes[self._positions]
        return np.array(
            [
                hash((int(own), int(by_item.get(node, np.uint64(0))))) & (2**64 - 1)
                for own, node in zip(classes, nodes.tolist(), strict=True)
            ],
            dtype=np.uint64,
        )
