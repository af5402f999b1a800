"""Every edge that was observed, with the evidence for it, and with what each source did of it.

An edge joins two peers on a protocol and a port, through a Service or directly. All is columns:
the number of distinct edges may be a million.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ringfence.discovery.behaviour import Mask, Numbers, distinct, each_slot, slots_of
from ringfence.discovery.peers import (
    Named,
    Outside,
    OwnNode,
    Peer,
    Peers,
    ServiceFront,
    name_of,
)
from ringfence.discovery.sockets import declared, socket_key, sockets
from ringfence.flows import disposition
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.model.address import Address
from ringfence.model.fqdn import host_name
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import TCP, UDP, format_port, format_protocol
from ringfence.model.workload import Item, ItemKind

DIRECT = -1
"""The front of what was dialled at the provider's own address."""
_STEADY = 3
_FEW_BY_NAME = 4
"""A host with more addresses under its name will have others."""
_INTERVALS_EACH = 12
"""So will one that had a new address more often than once in so many intervals."""
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Evidence:
    """What was seen of n things, arrays of shape (n,).

    `conversations` are those that were answered, `failures` the others, `opened` those whose
    first packet was seen; `sources` are distinct consumers, of those that were answered.
    """

    conversations: Numbers
    failures: Numbers
    refused: Numbers
    dropped: Numbers
    opened: Numbers
    intervals: Numbers
    sources: Numbers
    bytes: Numbers
    first_ns: Numbers
    last_ns: Numbers


@dataclass(frozen=True)
class Observed:
    """n edges in a fixed order, arrays of shape (n,), and two tables of parts of them.

    Consumers and providers are numbers of `peers`, `port` is the provider's. A route is an edge as
    it was dialled: through one of `fronts` on `front_port`, or DIRECT. A pair is an edge and the
    party that was its source. The time is [since_ns, until_ns].
    """

    peers: Peers
    fronts: tuple[ServiceFront, ...]
    consumer: Numbers
    provider: Numbers
    protocol: Numbers
    port: Numbers
    seen: Evidence
    early: Evidence
    """What was seen of each edge before the last fifth of the time."""
    held: Mask
    """Whether somebody held the provider's address, or none ever did: else it is a dead one."""

    route: Numbers
    """Of each of the connections the route that it took."""
    route_edge: Numbers
    route_front: Numbers
    route_port: Numbers
    by_route: Evidence

    pair_edge: Numbers
    pair_source: Numbers
    by_source: Evidence

    process_edge: Numbers
    process: Numbers
    """Which of the consumers' processes had each edge, as far as agents told; numbers of names."""

    since_ns: int
    until_ns: int
    tells_openings: bool
    """Whether `opened` is what was seen, and not taken for granted of a file that tells nothing."""

    def __len__(self) -> int:
        """The number of edges."""
        return len(self.consumer)

    def format(self, edge: int) -> str:
        """An edge as people read it."""
        protocol, port = int(self.protocol[edge]), int(self.port[edge])
        consumer, provider = self.peers[self.consumer[edge]], self.peers[self.provider[edge]]
        what = f"{format_protocol(protocol)} {format_port(protocol, port)}"
        return f"{name_of(consumer)} → {name_of(provider)} {what}"

    def through(self, fronts: Mask) -> Mask:
        """For each edge whether any of its routes leads through one of some fronts."""
        chosen = self.route_edge[np.append(fronts, False)[self.route_front]]
        return np.bincount(chosen, minlength=len(self)) > 0

    def lasting(self, peer: Peer) -> Sequence[Address]:
        """The addresses of a host outside with a name, where these seem to be all it ever has."""
        if not isinstance(peer, Named):
            return ()
        addresses, seen = self.peers.named[peer], self._intervals_to[self.peers.number(peer)]
        few = len(addresses) <= _FEW_BY_NAME and seen >= _INTERVALS_EACH * len(addresses)
        return sorted(addresses) if few or not host_name(peer.name) else ()

    @cached_property
    def _intervals_to(self) -> Numbers:
        """For each peer in how many intervals some edge led to it, at most."""
        most = np.zeros(len(self.peers), dtype=np.int64)
        np.maximum.at(most, self.provider, self.seen.intervals)
        return most

    @property
    def edges(self) -> Numbers:
        """For each of the connections its edge."""
        return self.route_edge[self.route]

    @property
    def straight(self) -> Mask:
        """For each edge whether it was dialled at the provider's own address only."""
        return ~self.through(np.ones(len(self.fronts), dtype=np.bool_))


def observe(records: Records, peers: Peers, services: ServiceSockets) -> Observed:
    """The distinct edges among connections."""
    rows = _Rows(records, peers, services)
    keys = (rows.consumer_peer, rows.provider_peer, rows.protocol, rows.port)
    first, edge = distinct(*keys)
    route_first, route = distinct(edge, rows.front, rows.front_port)
    pair_first, pair = distinct(edge, rows.consumer)
    process_edge, process = _processes(records, edge)
    held = np.zeros(len(first), dtype=np.bool_)
    np.logical_or.at(held, edge, ~rows.is_dead(records, peers))
    consumer, provider, protocol, port = (key[first] for key in keys)
    return Observed(
        peers,
        rows.fronts,
        consumer,
        provider,
        protocol,
        port,
        seen=rows.evidence(edge, len(first)),
        early=rows.evidence(edge, len(first), rows.first_ns < rows.last_fifth()),
        held=held,
        route=route,
        route_edge=edge[route_first],
        route_front=rows.front[route_first],
        route_port=rows.front_port[route_first],
        by_route=rows.evidence(route, len(route_first)),
        pair_edge=edge[pair_first],
        pair_source=rows.consumer[pair_first],
        by_source=rows.evidence(pair, len(pair_first)),
        process_edge=process_edge,
        process=process,
        since_ns=int(rows.first_ns.min(initial=np.iinfo(np.int64).max)),
        until_ns=int(rows.last_ns.max(initial=0)),
        tells_openings=_tells_openings(records),
    )


class _Rows:
    """What decides of each connection, as numbers."""

    def __init__(self, records: Records, peers: Peers, services: ServiceSockets) -> None:
        column = records.column
        self.consumer = peers.parties(records, "first_consumer")
        self.provider = peers.parties(records, "provider")
        self.consumer_peer = peers.consumers(self.consumer)
        self.provider_peer = _named(records, peers, peers.providers(self.provider))
        self.consumer_peer[_own_node(peers, self.consumer, self.provider)] = peers.number(OwnNode())
        self.protocol = column("protocol").astype(np.int64)
        self.port = column("provider_port").astype(np.int64)
        self.front, self.front_port, self.fronts = _fronts(records, services)
        self.first_ns = column("first_ns").astype(np.int64)
        self.last_ns = column("last_ns").astype(np.int64)
        self.opened = column("opened").astype(np.int64)
        self.slots = slots_of(records)
        self.count = conversations_of(records)
        self.refused = column("refused").astype(np.int64)
        self.dropped = records.dropped.astype(np.int64)
        self.good = answered(records) | self._one_way(records, peers)
        self.bytes = (column("forward_bytes") + column("reverse_bytes")).astype(np.int64)

    def last_fifth(self) -> int:
        """When the last fifth of the time begins."""
        return last_fifth(self.first_ns.min(initial=_NEVER), self.last_ns.max(initial=0))

    def evidence(self, group: Numbers, count: int, among: Mask | None = None) -> Evidence:
        """What was seen of each group of rows; `group` numbers them from 0 to `count`."""
        if among is not None:
            return self._take(among).evidence(group[among], count)

        def total(values: Numbers) -> Numbers:
            return np.bincount(group, weights=values, minlength=count).astype(np.int64)

        def distinct_of(rows: Numbers, values: Numbers) -> Numbers:
            good = self.good[rows]
            of_good = group[rows[good]]
            row, _ = distinct(of_good, values[good])
            return np.bincount(of_good[row], minlength=count)

        first = np.full(count, np.iinfo(np.int64).max)
        last = np.zeros(count, dtype=np.int64)
        np.minimum.at(first, group, self.first_ns)
        np.maximum.at(last, group, self.last_ns)
        return Evidence(
            conversations=total(np.where(self.good, self.count, 0)),
            failures=total(np.where(self.good, 0, self.count)),
            refused=total(self.refused),
            dropped=total(self.dropped),
            opened=total(self.opened),
            intervals=distinct_of(*each_slot(self.slots)),
            sources=distinct_of(np.arange(len(group)), self.consumer),
            bytes=total(self.bytes),
            first_ns=first,
            last_ns=last,
        )

    def _take(self, among: Mask) -> "_Rows":
        some = copy(self)
        for name in ("consumer", "first_ns", "last_ns", "opened", "good", "count", "refused"):
            setattr(some, name, getattr(self, name)[among])
        some.dropped, some.bytes = self.dropped[among], self.bytes[among]
        some.slots = self.slots.filter(pa.array(among))
        return some

    def _one_way(self, records: Records, peers: Peers) -> Mask:
        """Whether a datagram came to a workload that reads them without a word.

        It does so if it declares the port, or is sent to in interval after interval.
        """
        mute = (self.protocol == UDP) & (records.column("reverse_packets") == 0)
        mute &= (self.provider_peer < len(peers.roles)) & (self.refused == 0) & (self.dropped == 0)
        listening = sockets(declared(peers))
        known = np.isin(socket_key(self.provider_peer, self.protocol, self.port), listening)
        first, edge = distinct(self.consumer_peer, self.provider_peer, self.protocol, self.port)
        row, slot = each_slot(self.slots)
        of_slot = edge[row][mute[row]]
        told, _ = distinct(of_slot, slot[mute[row]])
        intervals = np.bincount(of_slot[told], minlength=len(first))
        return np.asarray(mute & (known | (intervals[edge] >= _STEADY)))

    def is_dead(self, records: Records, peers: Peers) -> Mask:
        """Whether nobody held the provider's address, which somebody held before or after."""
        once = {address for item in peers.snapshot.items for address in item.addresses}
        unheld = self.provider >= len(peers.snapshot.items)
        parties, which = np.unique(self.provider[unheld], return_inverse=True)
        inside = [peers.address(party) in once for party in parties.tolist()]
        dead = np.zeros(len(records), dtype=np.bool_)
        dead[unheld] = np.array(inside, dtype=np.bool_)[which]
        return dead


def last_fifth(since_ns: int, until_ns: int) -> int:
    """When the last fifth of a time begins."""
    return int(until_ns - (until_ns - since_ns) // 5)


def conversations_of(records: Records) -> Numbers:
    """How many conversations each record tells of: one at least."""
    if "conversations" in records.table.column_names:
        return records.column("conversations").astype(np.int64)
    return disposition.conversations_of(records)


def answered(records: Records) -> Mask:
    """Whether the provider answered, other than to refuse."""
    replies = records.column("reverse_packets") > 0
    refused = records.column("refused") > 0
    by_handshake = (records.column("answered") > 0) | (replies & ~refused)
    return np.asarray(np.where(records.column("protocol") == TCP, by_handshake, replies))


def _tells_openings(records: Records) -> bool:
    """Agents always tell; of files the reader says it."""
    told = "openings_told" not in records.table.column_names
    return told or bool(records.column("openings_told").any())


def _own_node(peers: Peers, consumer: Numbers, provider: Numbers) -> Mask:
    """Whether the consumer is the node that runs the provider's pod."""
    items = peers.snapshot.items
    runs = {
        (item.cluster, item.name): at for at, item in enumerate(items) if item.kind is ItemKind.NODE
    }
    nodes = np.array([_node_of(item, runs) for item in items] + [-1], dtype=np.int64)
    within = np.minimum(provider, len(items))
    return np.asarray((nodes[within] == consumer) & (nodes[within] != -1))


def _node_of(item: Item, nodes: dict[tuple[ClusterId, str], int]) -> int:
    of_its_own = item.kind is ItemKind.POD and not item.host_network
    return nodes.get((item.cluster, item.node), -1) if of_its_own else -1


def _named(records: Records, peers: Peers, provider: Numbers) -> Numbers:
    """The providers, hosts outside by the name under which they were found, where that is told."""
    if "provider_dns_name" not in records.table.column_names:
        return provider
    told = records.table["provider_dns_name"].combine_chunks().dictionary_encode()
    names = [peers.number(Named(name)) if name else -1 for name in told.dictionary.to_pylist()]
    which = told.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    named = np.array([*names, -1], dtype=np.int64)[which]
    outside = peers.which(Outside)[provider] & (named >= 0)
    first, _ = distinct(provider[outside], named[outside])
    pairs = zip(provider[outside][first].tolist(), named[outside][first].tolist(), strict=True)
    for at, by_name in pairs:
        host, name = peers[at], peers[by_name]
        if isinstance(host, Outside) and isinstance(name, Named):
            peers.named.setdefault(name, set()).add(host.address)
    return np.where(outside, named, provider)


def _processes(records: Records, edge: Numbers) -> tuple[Numbers, Numbers]:
    """The distinct pairs of an edge and a process of its consumer, where that is told."""
    if "consumer_process" not in records.table.column_names:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    told = records.table["consumer_process"].combine_chunks().dictionary_encode()
    names = [bool(name) for name in told.dictionary.to_pylist()]
    which = told.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = np.array([*names, False], dtype=np.bool_)[which]
    first, _ = distinct(edge[known], which[known])
    return edge[known][first], which[known][first]


def _fronts(
    records: Records, services: ServiceSockets
) -> tuple[Numbers, Numbers, tuple[ServiceFront, ...]]:
    """Each connection's Service as a number, and the Service's own port."""
    dialled, protocols = records.column("dialled"), records.column("protocol").astype(np.int64)
    ports = records.column("dialled_port").astype(np.int64)
    seen_from = records.seen_from
    _, address = np.unique(np.ascontiguousarray(dialled).view("V16").ravel(), return_inverse=True)
    first, which = distinct(address, protocols, ports, seen_from.which.astype(np.int64))
    numbers: dict[ServiceFront, int] = {}
    found = np.full((len(first), 2), DIRECT, dtype=np.int64)
    for at, row in enumerate(first.tolist()):
        protocol, port = int(protocols[row]), int(ports[row])
        home = seen_from.clusters[seen_from.which[row]]
        item = services.at(Address(dialled[row].tobytes()), protocol, port, home)
        own = _service_port(item, protocol, port) if item else None
        if item is not None and own is not None:
            front = ServiceFront(item.cluster, item.namespace, item.name, own != port)
            found[at] = numbers.setdefault(front, len(numbers)), own
    return found[which, 0], found[which, 1], tuple(numbers)


def _service_port(item: Item, protocol: int, dialled: int) -> int | None:
    """The Service's port behind what was dialled, a node port perhaps."""
    for port in item.service.ports if item.service else ():
        if port.protocol == protocol and dialled in (port.port, port.node_port):
            return port.port
    return None
