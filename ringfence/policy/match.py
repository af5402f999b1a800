"""Which rules speak of a connection, for many connections at once.

Whatever a rule looks at is cut into classes that no rule tells apart: workloads that the same
rules name and govern, stretches of addresses, protocols, ports, sockets of Services. A table has
the rules of each class as a row of bits, so that the rules of a connection are an AND of few rows,
and connections of the same classes meet the same rules.

A connection meets a rule in two ways. Its own ends meet it as (consumer, provider), the consumer
before source NAT and the provider after destination NAT. The node that receives it for a
NodePort or a load balancer meets it as (consumer, Service): only rules whose provider
is that Service, or anyone, reach it, and of those an ALLOW of the Service only from the load
balancer's source ranges. On anything but a Service ports are the provider's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import EndRole
from ringfence.policy import bits
from ringfence.policy.balancers import Balancers
from ringfence.policy.bits import Bits
from ringfence.policy.cells import AddressCells, PortCells
from ringfence.policy.connection import Connections
from ringfence.policy.layer import RuleLayer
from ringfence.policy.sockets import SocketRules, backends, fronts

Numbers = NDArray[np.intp]
_MOST = 1 << 62
_PROTOCOLS = 256


@dataclass(frozen=True)
class Classes:
    """n connections, each as the numbers of the classes that it is of."""

    consumer: Numbers
    provider: Numbers
    node: Numbers
    """Classes of workloads; addresses that no item holds are a class too."""
    consumer_range: Numbers
    provider_range: Numbers
    protocol: Numbers
    port: Numbers
    received_port: Numbers
    """The port dialled at the receiving node, 0 where there is none."""
    front: Numbers
    backend: Numbers
    """Kinds of sockets: the one dialled, and the one reached if there was no translation."""
    kept_out: Numbers
    """1 where the source ranges of the load balancer that is dialled do not hold the consumer."""
    runs: Numbers
    """Bit 0: the consumer is the provider's own node; bit 1: the provider the consumer's."""

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.protocol)

    def take(self, rows: Numbers | slice) -> "Classes":
        """Some of the connections."""
        return Classes(*(column[rows] for column in self._columns))

    def distinct(self) -> tuple["Classes", Numbers]:
        """One connection for each combination of classes, and which of them each row is."""
        keys, room = np.zeros(len(self), dtype=np.int64), 1
        for column in self._columns:
            size = int(column.max(initial=0)) + 1
            if room * size > _MOST:
                distinct, keys = np.unique(keys, return_inverse=True)
                room = len(distinct)
            if size > 1:
                keys = keys * size + column
                room *= size
        distinct, which = np.unique(keys, return_inverse=True)
        rows = np.empty(len(distinct), dtype=np.intp)
        rows[which] = np.arange(len(self))
        return self.take(rows), which

    @property
    def _columns(self) -> list[Numbers]:
        return [getattr(self, field.name) for field in fields(self)]


class Matcher:
    """The tables of one layer's rules."""

    def __init__(self, layer: RuleLayer) -> None:
        self._layer = layer
        self._count = len(layer.rules)
        self.fronts = SocketRules(layer.rules, layer.snapshot, fronts(layer.snapshot))
        self.backends = SocketRules(layer.rules, layer.snapshot, backends)
        self._balancers = Balancers(layer.snapshot)
        self._workloads()
        self._ranges()
        self._destinations()
        self._special()

    def _table(self, rows: int) -> Bits:
        return bits.table(rows, self._count)

    def _workloads(self) -> None:
        """Rows by class of workload: who is governed in a direction, and named at an end."""
        items = self._layer.snapshot.items
        # The last row is that of NOWHERE, -1.
        outbound, inbound, consumer, provider = (self._table(len(items) + 1) for _ in range(4))
        for place, rule in enumerate(self._layer.rules):
            members = rule.members.to_array()
            for table, direction in ((outbound, Direction.OUTBOUND), (inbound, Direction.INBOUND)):
                if rule.decides(direction):
                    bits.mark(table, members, place)
            for table, end in ((consumer, rule.consumer), (provider, rule.provider)):
                bits.mark(table, slice(None) if end.anyone else end.items.to_array(), place)
        clusters = {item.cluster: None for item in items} | {"": None}
        self.clusters = {name: number for number, name in enumerate(clusters)}
        cluster = np.array([self.clusters[item.cluster] for item in items] + [self.clusters[""]])
        told = np.hstack([outbound, inbound, consumer, provider, cluster[:, None].astype("<u8")])
        chosen, self.workload_class = bits.distinct(told)
        """The class of each position, and of NOWHERE."""
        self.cluster = cluster[chosen]
        self.consumer, self.provider = consumer[chosen], provider[chosen]
        self.governed = {
            EndRole.CONSUMER: outbound[chosen],
            EndRole.PROVIDER: inbound[chosen],
            EndRole.NODE: inbound[chosen],
        }

    def _ranges(self) -> None:
        """Rows by class of address: whose ranges hold it."""
        ends = [(rule.consumer.ranges, rule.provider.ranges) for rule in self._layer.rules]
        points = self.fronts.addresses | self.backends.addresses
        spans = [one for pair in ends for ranges in pair for one in ranges]
        self.cells = AddressCells([*spans, *((point, point) for point in points)])
        consumer, provider = (self._table(len(self.cells)) for _ in range(2))
        for place, pair in enumerate(ends):
            for table, ranges in zip((consumer, provider), pair, strict=True):
                for one in ranges:
                    bits.mark(table, self.cells.within(one), place)
        chosen, self.range_class = bits.distinct(np.hstack([consumer, provider]))
        self.consumer_range, self.provider_range = consumer[chosen], provider[chosen]

    def _destinations(self) -> None:
        """Rows by protocol, by cell of ports, and by kind of socket."""
        rules = self._layer.rules
        self._port_cells = PortCells(ports for rule in rules for ports in rule.ports)
        protocols, self._ports = self._table(_PROTOCOLS), self._table(len(self._port_cells))
        for place, rule in enumerate(rules):
            bits.mark(protocols, slice(None) if rule.protocol is None else rule.protocol, place)
            for cells in map(self._port_cells.within, rule.ports):
                bits.mark(self._ports, cells, place)
            if not rule.ports:
                bits.mark(self._ports, slice(None), place)
        chosen, self._protocol_class = bits.distinct(protocols)
        self._protocols = protocols[chosen]
        self._front_sockets = self.fronts.placed(self.cells)
        self._backend_sockets = self.backends.placed(self.cells)
        self._by_front = self.fronts.table(self.clusters, self._count)
        self.by_backend = self.backends.table(self.clusters, self._count)

    def _special(self) -> None:
        """Rows for the node that runs the other end's pod, and for rules towards anyone.

        And for what source ranges keep out: the rules that then do not speak of a Service.
        """
        self.runs, self._anyone, self._mute = self._table(2), self._table(1), self._table(2)
        for place, rule in enumerate(self._layer.rules):
            if rule.action is Action.ALLOW:
                bits.mark(self._mute, 1, place)
            for row, end in enumerate((rule.consumer, rule.provider)):
                if end.own_node:
                    bits.mark(self.runs, row, place)
            if rule.provider.anyone:
                bits.mark(self._anyone, 0, place)

    def classify(self, connections: Connections) -> Classes:
        """The classes that each connection is of."""
        given, own_nodes = connections, self._layer.own_nodes
        consumer_cell = self.cells.of(given.consumer)
        provider_cell = self.cells.of(given.provider)
        front = backend = np.zeros(len(given), dtype=np.intp)
        if self.fronts.addresses or self.backends.addresses:
            dialled_cell = self.cells.of(given.dialled)
            # The cell of a socket's address holds no other address.
            direct = (dialled_cell == provider_cell) & (given.dialled_port == given.provider_port)
            front = self._front_sockets.of(dialled_cell, given.protocol, given.dialled_port)
            backend = self._backend_sockets.of(provider_cell, given.protocol, given.provider_port)
            backend *= direct
        from_own, to_own = (
            (own_nodes[pods] == nodes) & (nodes != NOWHERE)
            for pods, nodes in (
                (given.provider_item, given.consumer_item),
                (given.consumer_item, given.provider_item),
            )
        )
        received = given.node_item != NOWHERE
        return Classes(
            self.workload_class[given.consumer_item],
            self.workload_class[given.provider_item],
            self.workload_class[given.node_item],
            self.range_class[consumer_cell],
            self.range_class[provider_cell],
            self._protocol_class[given.protocol],
            self._port_cells.of[given.provider_port],
            self._port_cells.of[given.dialled_port] * received,
            front,
            backend,
            (self._balancers.keep_out(given) & received).astype(np.intp),
            from_own + 2 * to_own,
        )

    def matching(self, classes: Classes) -> Mapping[EndRole, Bits]:
        """The rules that speak of each connection and decide at the end in each role."""
        one = classes
        named = self.consumer[one.consumer] | self.consumer_range[one.consumer_range]
        provider = self.provider[one.provider] | self.provider_range[one.provider_range]
        runs = one.runs[:, None].astype(np.uint64)
        consumer = named | self.runs[0] * (runs & np.uint64(1))
        provider |= self.runs[1] * (runs >> np.uint64(1))
        provider &= self._ports[one.port]
        clusters = self.cluster[one.consumer]
        front = self._by_front[clusters * len(self.fronts) + one.front]
        provider |= front | self.by_backend[clusters * len(self.backends) + one.backend]
        spoken = self._protocols[one.protocol]
        met = spoken & consumer & provider
        anyone = self._anyone & self._ports[one.received_port]
        received = spoken & named & (anyone | front & ~self._mute[one.kept_out])
        return {
            EndRole.CONSUMER: met & self.governed[EndRole.CONSUMER][one.consumer],
            EndRole.PROVIDER: met & self.governed[EndRole.PROVIDER][one.provider],
            EndRole.NODE: received & self.governed[EndRole.NODE][one.node],
        }
