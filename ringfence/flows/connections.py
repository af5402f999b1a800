"""From hops to connections: each told once, from its first hop to its last.

A hop is one tuple on the wire. The hops of a connection share `connection`; translation makes
one hop into the next. A connection through a Service fans out to as many last hops as there are
backends, and each of these is judged on its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.inventory.seen_from import SeenFrom, meant
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import NO_CLUSTER, ClusterId
from ringfence.model.protocol import ICMP, ICMPV6
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch

# Messages about other packets (RFC 792, RFC 4443) and neighbour discovery (RFC 4861).
_ICMP_ERRORS = (3, 4, 5, 11, 12)
_ICMPV6_ERRORS = (1, 2, 3, 4, 133, 134, 135, 136, 137)


@dataclass(frozen=True)
class Records:
    """n connections; `table` has the columns of a hop, the last one's. Built by `records`."""

    table: pa.Table
    dropped: NDArray[np.uint64]
    """Packets that were reported dropped, at the first hop or at the last."""
    translated: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.table)

    def column(self, name: str) -> NDArray[Any]:
        """A column as an array, addresses in shape (n, 16)."""
        return column(self.table, name)

    @property
    def seen_from(self) -> SeenFrom:
        """The Kubernetes clusters whose agents saw them, none where nothing tells."""
        if "kubernetes_cluster" not in self.table.column_names:
            return SeenFrom.one(NO_CLUSTER, len(self))
        return clusters_of(self.table["kubernetes_cluster"])

    def only(self, names: Iterable[str]) -> "Records":
        """The same with those of some columns that there are."""
        held = set(self.table.column_names)
        table = self.table.select([name for name in names if name in held])
        return Records(table, self.dropped, self.translated)

    def with_column(self, name: str, values: NDArray[Any]) -> "Records":
        """The same with other values in one of the columns."""
        at = self.table.schema.get_field_index(name)
        field = self.table.schema.field(at)
        table = self.table.set_column(at, field, pa.array(values, field.type))
        return Records(table, self.dropped, self.translated)

    def take(self, rows: NDArray[Any]) -> "Records":
        """Some of the connections, by position or by mask; without a copy where it is all."""
        if rows.dtype == np.bool_ and rows.all():
            return self
        at = np.nonzero(rows)[0] if rows.dtype == np.bool_ else rows
        return Records(self.table.take(pa.array(at)), self.dropped[at], self.translated[at])


def records(hops: pa.Table, *, attendant: bool = False) -> Records:
    """The connections among hops (`store.flows.queries.HOPS`).

    `attendant`: also those that only attend others, which are tunnels and ICMP errors.
    """
    translated = np.asarray(
        (column(hops, "consumer") != column(hops, "first_consumer")).any(1)
        | (column(hops, "provider") != column(hops, "dialled")).any(1)
        | (column(hops, "provider_port") != column(hops, "dialled_port"))
    )
    _, which = np.unique(column(hops, "connection"), return_inverse=True)
    count = int(which.max(initial=-1)) + 1
    goes_on = np.zeros(count, dtype=np.bool_)
    goes_on[which[translated]] = True
    dropped = column(hops, "dropped")
    at_first = np.zeros(count, dtype=np.uint64)
    at_first[which[~translated]] = dropped[~translated]
    last = np.nonzero(translated | ~goes_on[which])[0]
    # Source NAT to several addresses makes several last hops to one provider: the fullest counts.
    fullest = last[np.argsort(-column(hops, "forward_packets")[last].astype(np.int64))]
    _, item = np.unique(column(hops, "provider_item").astype(np.str_), return_inverse=True)
    numbers = [which, item, column(hops, "provider_port")]
    reached = np.concatenate(
        [_octets(values[fullest]) for values in numbers] + [column(hops, "provider")[fullest]],
        axis=1,
    )
    _, first = np.unique(np.ascontiguousarray(reached).view("S40").ravel(), return_index=True)
    rows = np.sort(fullest[first])
    if not attendant:
        rows = rows[~(about_others(hops) | (column(hops, "carries") > 0))[rows]]
    total = dropped[rows] + np.where(translated[rows], at_first[which[rows]], 0).astype(np.uint64)
    return Records(hops.take(pa.array(rows)), total, translated[rows])


def conversations(rows: pa.Table) -> Records:
    """As `records`, of rows that the store made of hops (`store.flows.conversations`)."""
    translated = column(rows, "translated").astype(np.bool_)
    return Records(rows, column(rows, "dropped"), translated).take(~about_others(rows))


def _octets(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(numbers.astype(">u8")).view(np.uint8).reshape(-1, 8)


def about_others(hops: pa.Table) -> NDArray[np.bool_]:
    """Which hops are ICMP errors and the like, that attend what they tell of."""
    protocol, kind = column(hops, "protocol"), column(hops, "provider_port") >> 8
    return np.asarray(
        (protocol == ICMP) & np.isin(kind, _ICMP_ERRORS)
        | (protocol == ICMPV6) & np.isin(kind, _ICMPV6_ERRORS)
    )


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """A column as an array, addresses in shape (n, 16)."""
    values = table[name]
    if values.type == pa.binary(16):
        return batch.addresses(values) if len(table) else np.empty((0, 16), dtype=np.uint8)
    return np.asarray(values.to_numpy())


def clusters_of(words: pa.Array | pa.ChunkedArray) -> SeenFrom:
    """What a column of Kubernetes clusters says of its rows; null is none."""
    whole = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
    coded = whole.cast(pa.string()).fill_null("").dictionary_encode()
    clusters = tuple(map(ClusterId, coded.dictionary.to_pylist()))
    return SeenFrom(clusters, np.asarray(coded.indices))


class ServiceSockets:
    """Which Service is dialled at an address and port: its own, an external one, a node port."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._services: dict[tuple[bytes, int, int], dict[ClusterId, Item]] = {}
        self._node_ports: dict[tuple[ClusterId, int, int], Item] = {}
        self._clusters: dict[bytes, set[ClusterId]] = {}
        """Of the nodes that hold an address."""
        for item in snapshot.items:
            for address in item.addresses if item.kind is ItemKind.NODE else ():
                self._clusters.setdefault(address, set()).add(item.cluster)
        for position in snapshot.services:
            item = snapshot.items[position]
            if item.service is None:
                continue
            for port in item.service.ports:
                for address in (*item.addresses, *item.service.external_addresses):
                    held = self._services.setdefault((address, port.protocol, port.port), {})
                    held[item.cluster] = item
                if port.node_port:
                    self._node_ports[item.cluster, port.protocol, port.node_port] = item

    def at(self, address: bytes, protocol: int, port: int, home: ClusterId) -> Item | None:
        """The Service that is dialled so from a Kubernetes cluster, None where none is."""
        held = self._services.get((Address(address), protocol, port), {})
        for cluster in meant(held, home):
            return held[cluster]
        clusters = meant(self._clusters.get(Address(address), ()), home)
        found = (self._node_ports.get((one, protocol, port)) for one in clusters)
        return next(found, None)
