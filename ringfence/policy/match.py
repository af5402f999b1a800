"""Which connections a rule speaks of, for many connections at once.

A connection meets a rule in two ways. Its own ends meet it as (consumer, provider), the consumer
before source NAT and the provider after destination NAT. The node that receives it for a
NodePort, a load balancer or a hostPort meets it as (consumer, Service): only rules whose provider
is that Service, or anyone, reach it.

A policy on a Service speaks of the Service's ports: with port 80 it matches port 80 of each
address of the Service, the node port of port 80 on every node, and the target port of port 80 at
a serving backend that is dialled directly. On anything else ports are the provider's own.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy.connection import Connections
from ringfence.policy.ends import AddressRange, ResolvedEnd
from ringfence.policy.layer import OrderedRule, RuleLayer

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
Positions = NDArray[np.int32]
Keys = NDArray[np.bytes_]

_ADDRESS = "S16"
# Address, protocol and port in one key. numpy ignores trailing zero bytes of such keys; as all
# have one width, distinct ones stay distinct and their order is that of the whole bytes.
_SOCKET = "S19"


class Matcher:
    """The connections as columns that rules are held against, prepared once for all rules."""

    def __init__(self, layer: RuleLayer, connections: Connections) -> None:
        self._own_nodes = layer.own_nodes
        self._snapshot = layer.snapshot
        self._given = connections
        self._consumers = connections.consumer_item
        self._providers = connections.provider_item
        self._consumer = _Column(np.ascontiguousarray(connections.consumer).view(_ADDRESS))
        self._provider = _Column(np.ascontiguousarray(connections.provider).view(_ADDRESS))
        protocol = connections.protocol
        dialled = _sockets(connections.dialled, protocol, connections.dialled_port)
        reached = _sockets(connections.provider, protocol, connections.provider_port)
        self._dialled_socket, self._reached_socket = _Column(dialled), _Column(reached)
        self._direct: Mask = (dialled == reached).ravel()

    def matching(self, rule: OrderedRule, role: EndRole, rows: Rows) -> Rows:
        """Those of the rows that the rule speaks of, as the end in that role meets it."""
        # Each step tests only what the one before it has left.
        if rule.protocol is not None:
            rows = rows[self._given.protocol[rows] == rule.protocol]
        if role is EndRole.NODE:
            rows = rows[self._named(rule.consumer, self._consumer, self._consumers[rows], rows)]
            return rows[self._is_received(rule, rows)]
        rows = rows[self._is_from(rule.consumer, rows)]
        return rows[self._is_to(rule, rows)]

    def _is_from(self, end: ResolvedEnd, rows: Rows) -> Mask:
        consumers = self._consumers[rows]
        found = self._named(end, self._consumer, consumers, rows)
        return found | self._runs_on(self._providers[rows], consumers) if end.own_node else found

    def _is_to(self, rule: OrderedRule, rows: Rows) -> Mask:
        end, providers = rule.provider, self._providers[rows]
        found = self._named(end, self._provider, providers, rows)
        if end.own_node:
            found |= self._runs_on(self._consumers[rows], providers)
        found &= _in_ports(rule.ports, self._given.provider_port[rows])
        if end.services:
            found |= self._service(rule, self._dialled_socket, self._fronts, rows)
            direct = self._service(rule, self._reached_socket, self._backends, rows)
            found |= direct & self._direct[rows]
        return found

    def _is_received(self, rule: OrderedRule, rows: Rows) -> Mask:
        if rule.provider.anyone:
            return _in_ports(rule.ports, self._given.dialled_port[rows])
        return self._service(rule, self._dialled_socket, self._fronts, rows)

    def _named(self, end: ResolvedEnd, column: "_Column", items: Positions, rows: Rows) -> Mask:
        """Where the end names the item at hand, or its address."""
        if end.anyone:
            return np.ones(len(rows), dtype=np.bool_)
        found = holds(self._snapshot, end.items, items)
        return found | column.within(end.ranges)[rows] if end.ranges else found

    def _runs_on(self, pods: Positions, nodes: Positions) -> Mask:
        own = self._own_nodes[pods]
        found: Mask = (own == nodes) & (own != NOWHERE)
        return found

    def _service(
        self,
        rule: OrderedRule,
        column: "_Column",
        sockets: Callable[[Item, ServicePort], Iterator[bytes]],
        rows: Rows,
    ) -> Mask:
        """Where the column holds one of the `sockets` of the Services that the rule provides."""
        by_cluster: dict[ClusterId, set[bytes]] = {}
        for position in rule.provider.services:
            item = self._snapshot.items[position]
            keys = by_cluster.setdefault(item.cluster, set())
            for port in item.service.ports if item.service else ():
                if not rule.ports or any(port.port in ports for ports in rule.ports):
                    keys.update(sockets(item, port))
        found = np.zeros(len(rows), dtype=np.bool_)
        for cluster, keys in by_cluster.items():
            hit = column.among(keys)[rows]
            found |= hit & self._may_mean(cluster)[rows] if rule.provider.same_cluster else hit
        return found

    def _may_mean(self, cluster: ClusterId) -> Mask:
        """Where the consumer is in that Kubernetes cluster or in none."""
        fits = np.array([item.cluster in (cluster, "") for item in self._snapshot.items] + [True])
        found: Mask = fits[self._consumers]
        return found

    def _fronts(self, service: Item, port: ServicePort) -> Iterator[bytes]:
        """The sockets at which the port of a Service is dialled."""
        if service.service is None:
            return
        for address in (*service.addresses, *service.service.external_addresses):
            yield _socket(address, port.protocol, port.port)
        if port.node_port:
            for address in self._node_addresses.get(service.cluster, ()):
                yield _socket(address, port.protocol, port.node_port)

    @staticmethod
    def _backends(service: Item, port: ServicePort) -> Iterator[bytes]:
        """The sockets of the pods that serve the port of a Service."""
        for backend in service.service.backends if service.service else ():
            if backend.serving and backend.service_port == port.name:
                yield _socket(backend.address, backend.protocol, backend.port)

    @cached_property
    def _node_addresses(self) -> dict[ClusterId, list[Address]]:
        held: dict[ClusterId, list[Address]] = {}
        for item in self._snapshot.items:
            if item.kind is ItemKind.NODE:
                held.setdefault(item.cluster, []).extend(item.addresses)
        return held


class _Column:
    """Keys of n connections, tested once per distinct key."""

    def __init__(self, keys: Keys) -> None:
        self._distinct, self._which = np.unique(keys.ravel(), return_inverse=True)

    def among(self, wanted: Iterable[bytes]) -> Mask:
        """Where the key is one of the wanted."""
        found: Mask = np.isin(self._distinct, np.array(list(wanted), dtype=self._distinct.dtype))
        return found[self._which]

    def within(self, ranges: tuple[AddressRange, ...]) -> Mask:
        """Where the key, an address, lies in one of the ranges, disjoint and sorted."""
        starts = np.array([first.to_bytes(16) for first, _ in ranges], dtype=_ADDRESS)
        ends = np.array([last.to_bytes(16) for _, last in ranges], dtype=_ADDRESS)
        spot = np.searchsorted(starts, self._distinct, side="right") - 1
        found: Mask = (spot >= 0) & (self._distinct <= ends[spot])
        return found[self._which]


def holds(snapshot: Snapshot, bitmap: BitMap, positions: Positions) -> Mask:
    """Which of the positions the bitmap holds; NOWHERE is in none."""
    # One element more than there are items: the last is where NOWHERE, -1, points.
    held = np.zeros(len(snapshot.items) + 1, dtype=np.bool_)
    held[np.array(bitmap.to_array(), dtype=np.intp)] = True
    found: Mask = held[positions]
    return found


def _in_ports(ports: tuple[PortRange, ...], port: NDArray[np.uint16]) -> Mask:
    found = np.full(len(port), not ports)
    for allowed in ports:
        found |= (port >= allowed.first) & (port <= allowed.last)
    return found


def _socket(address: Address, protocol: int, port: int) -> bytes:
    return address + protocol.to_bytes(1) + port.to_bytes(2)


def _sockets(
    addresses: NDArray[np.uint8], protocol: NDArray[np.uint8], port: NDArray[np.uint16]
) -> Keys:
    ports = np.ascontiguousarray(port.astype(">u2")[:, None]).view(np.uint8)
    return np.ascontiguousarray(np.hstack([addresses, protocol[:, None], ports])).view(_SOCKET)
