"""Who talks to whom, at the granularity of workloads: replicas and ports of clients are one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.connections import Records, ServiceSockets
from ringfence.model.address import Address, format_address
from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item, ItemKind

ItemOf = Callable[[int], Item | None]
"""The item of an inventory revision; None for 0, nobody."""


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Every pod of one topmost owner (a Deployment, a DaemonSet, …), or one host."""

    cluster: ClusterId
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Nodes:
    """The nodes of one Kubernetes cluster."""

    cluster: ClusterId


@dataclass(frozen=True, slots=True, order=True)
class OwnNode:
    """The node that runs the other end."""


@dataclass(frozen=True, slots=True, order=True)
class Outside:
    """One address that no item of Kubernetes holds."""

    address: Address

    def __str__(self) -> str:
        """The address as people write it."""
        return format_address(self.address)


@dataclass(frozen=True, slots=True, order=True)
class ServiceFront:
    """A Service, by any of its addresses; `from_outside` where a node received for it."""

    cluster: ClusterId
    namespace: str
    name: str
    from_outside: bool


Peer = Owner | Nodes | OwnNode | Outside | ServiceFront


@dataclass(frozen=True, slots=True)
class Edge:
    """Connections of one kind between two peers, with the evidence for them."""

    consumer: Peer
    provider: Peer
    """What was dialled: the Service where there is one."""
    backend: Peer | None
    """Who answered behind the Service."""
    protocol: int
    port: int
    """As dialled at a Service: the Service's own port."""
    connections: int
    first_ns: int
    last_ns: int


def edges(records: Records, item_of: ItemOf, services: ServiceSockets) -> list[Edge]:
    """The distinct edges among connections, in a fixed order."""
    if not len(records):
        return []
    peers = _Peers(records, item_of)
    fronts, ports = _fronts(records, services)
    columns = np.stack(
        [peers.consumer, peers.provider, fronts.which, records.column("protocol"), ports]
    ).astype(np.int64)
    distinct, which = np.unique(columns, axis=1, return_inverse=True)
    count = distinct.shape[1]
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, which, records.column("opened").astype(np.int64))
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.zeros(count, dtype=np.int64)
    np.minimum.at(first, which, records.column("first_ns"))
    np.maximum.at(last, which, records.column("last_ns"))
    found = []
    for at, (consumer, provider, front, protocol, port) in enumerate(distinct.T.tolist()):
        reached = peers.known[provider]
        service = fronts.known[front]
        found.append(
            Edge(
                peers.known[consumer],
                service or reached,
                reached if service else None,
                protocol,
                port,
                int(total[at]),
                int(first[at]),
                int(last[at]),
            )
        )
    return sorted(found, key=lambda edge: (repr(edge.consumer), repr(edge.provider), edge.port))


class _Numbering:
    """Gives each distinct value a number, so that columns of values become columns of numbers."""

    def __init__(self) -> None:
        self._numbers: dict[Peer | None, int] = {}

    def of(self, value: Peer | None) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Peer | None]:
        return list(self._numbers)


class _Peers:
    """Each connection's consumer and provider, as numbers of `known` peers."""

    def __init__(self, records: Records, item_of: ItemOf) -> None:
        numbering = _Numbering()
        items = {
            revision: item_of(revision)
            for end in ("first_consumer", "provider")
            for revision in np.unique(records.column(f"{end}_revision")).tolist()
        }
        self.consumer, self.provider = (
            _number(records, end, items, numbering) for end in ("first_consumer", "provider")
        )
        own = numbering.of(OwnNode())
        self.consumer[_from_own_node(records, items)] = own
        self.known: list[Peer] = [peer for peer in numbering.values if peer is not None]


def _number(
    records: Records, end: str, items: dict[int, Item | None], numbering: _Numbering
) -> NDArray[np.int64]:
    """Number the peers at one end, asking once for each distinct (address, revision)."""
    revisions, addresses = records.column(f"{end}_revision"), records.column(end)
    packed = revisions.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys = np.ascontiguousarray(np.concatenate([addresses, packed], axis=1)).view("S24").ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    numbers = [
        numbering.of(_peer(items[int(revisions[row])], Address(addresses[row].tobytes())))
        for row in first
    ]
    return np.array(numbers, dtype=np.int64)[which]


def _peer(item: Item | None, address: Address) -> Peer:
    match item:
        case None | Item(kind=ItemKind.NETWORK):
            return Outside(address)
        case Item(kind=ItemKind.NODE):
            return Nodes(item.cluster)
        case Item(kind=ItemKind.SERVICE):
            return ServiceFront(item.cluster, item.namespace, item.name, from_outside=False)
        case _:
            return Owner(item.cluster, item.namespace, item.workload_name or item.name)


def _from_own_node(records: Records, items: dict[int, Item | None]) -> NDArray[np.bool_]:
    nodes = [rev for rev, item in items.items() if item is not None and item.kind is ItemKind.NODE]
    same = records.column("consumer_node") == records.column("provider_node")
    from_node = np.isin(records.column("first_consumer_revision"), np.array(nodes, dtype="u8"))
    to_node = np.isin(records.column("provider_revision"), np.array(nodes, dtype="u8"))
    there = records.column("provider_node") != ""
    return np.asarray(same & from_node & ~to_node & there)


@dataclass(frozen=True)
class _Fronts:
    which: NDArray[np.int64]
    known: list[Peer | None]


def _fronts(records: Records, services: ServiceSockets) -> tuple[_Fronts, NDArray[np.int64]]:
    """Each connection's Service as a number, and the port: the Service's own where there is one."""
    numbering = _Numbering()
    dialled, protocols = records.column("dialled"), records.column("protocol")
    dialled_ports = records.column("dialled_port")
    keys = np.concatenate(
        [
            dialled,
            protocols[:, None],
            dialled_ports.astype(">u2").view(np.uint8).reshape(-1, 2),
        ],
        axis=1,
    )
    packed = np.ascontiguousarray(keys).view("S19").ravel()
    _, first, which = np.unique(packed, return_index=True, return_inverse=True)
    numbers, ports = [], []
    for row in first:
        protocol, port = int(protocols[row]), int(dialled_ports[row])
        item = services.at(dialled[row].tobytes(), protocol, port)
        own = _service_port(item, protocol, port) if item else None
        outside = own is not None and own != port
        front = (
            ServiceFront(item.cluster, item.namespace, item.name, outside)
            if item is not None and own is not None
            else None
        )
        numbers.append(numbering.of(front))
        ports.append(own if own is not None else -1)
    chosen = np.array(ports, dtype=np.int64)[which]
    port_column = np.where(chosen < 0, records.column("provider_port"), chosen)
    return _Fronts(np.array(numbers, dtype=np.int64)[which], numbering.values), port_column


def _service_port(item: Item, protocol: int, dialled: int) -> int | None:
    """The Service's port behind what was dialled, a node port perhaps."""
    for port in item.service.ports if item.service else ():
        if port.protocol == protocol and dialled in (port.port, port.node_port):
            return port.port
    return None
