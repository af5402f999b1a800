"""Which rules on Services speak of a socket: an address, a protocol and a port.

A policy on a Service speaks of the Service's ports: with port 80 it matches port 80 of each
address of the Service, the node port of port 80 on every node (its *fronts*), and the target port
of port 80 at a serving backend that is dialled directly. Where the policy names no Kubernetes
cluster, only a consumer of the Service's own one, or of none, is meant.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy import bits
from ringfence.policy.cells import AddressCells
from ringfence.policy.layer import OrderedRule

Socket = tuple[Address, int, int]
"""Address, protocol, port."""
Sockets = Callable[[Item, ServicePort], Iterator[Socket]]


class _Naming(NamedTuple):
    """A rule that speaks of a socket, and whose consumers it means: None for all."""

    rule: int
    cluster: ClusterId | None


class SocketRules:
    """The rules that name sockets. Sockets that the same rules name are of one kind, from 1 on;
    kind 0 is every socket that no rule names.
    """

    def __init__(self, rules: tuple[OrderedRule, ...], snapshot: Snapshot, found: Sockets) -> None:
        named: dict[Socket, dict[_Naming, None]] = {}
        for place, rule in enumerate(rules):
            for position in rule.provider.services:
                item = snapshot.items[position]
                naming = _Naming(place, item.cluster if rule.provider.same_cluster else None)
                for port in item.service.ports if item.service else ():
                    if not rule.ports or any(port.port in ports for ports in rule.ports):
                        for socket in found(item, port):
                            named.setdefault(socket, {})[naming] = None
        kinds: dict[tuple[_Naming, ...], int] = {(): 0}
        self.kinds = {
            socket: kinds.setdefault(tuple(namings), len(kinds))
            for socket, namings in named.items()
        }
        self.addresses = {int.from_bytes(address) for address, _, _ in named}
        self._namings = list(kinds)

    def table(self, clusters: Iterable[str], rules: int) -> bits.Bits:
        """The rules of each (cluster of the consumer, kind), as rows in that order.

        The cluster "" is no cluster.
        """
        clusters = list(clusters)
        found = bits.table(len(clusters) * len(self._namings), rules)
        for row, (cluster, namings) in enumerate(
            (cluster, namings) for cluster in clusters for namings in self._namings
        ):
            for rule, meant in namings:
                if meant is None or cluster in (meant, ""):
                    bits.mark(found, row, rule)
        return found

    def __len__(self) -> int:
        """The number of kinds."""
        return len(self._namings)

    def placed(self, cells: AddressCells) -> "PlacedSockets":
        """The sockets by the cells of their addresses, of which each is a cell of its own."""
        keys = {
            _key(cells.within((number, number)).start, protocol, port): kind
            for (address, protocol, port), kind in self.kinds.items()
            for number in [int.from_bytes(address)]
        }
        ordered = sorted(keys)
        return PlacedSockets(
            np.array(ordered, dtype=np.int64),
            np.array([0, *(keys[key] for key in ordered)], dtype=np.intp),
            np.isin(np.arange(len(cells)), np.array(ordered, dtype=np.int64) >> _CELL),
        )


class PlacedSockets(NamedTuple):
    """Sockets as sorted numbers, with their kinds, 0 before them; and the cells that hold any."""

    keys: NDArray[np.int64]
    kinds: NDArray[np.intp]
    held: NDArray[np.bool_]

    def of(
        self, cells: NDArray[np.intp], protocol: NDArray[np.uint8], port: NDArray[np.uint16]
    ) -> NDArray[np.intp]:
        """The kind of each socket."""
        found = np.zeros(len(cells), dtype=np.intp)
        rows = np.flatnonzero(self.held[cells])
        wanted = _key(cells[rows], protocol[rows].astype(np.int64), port[rows].astype(np.int64))
        at = np.searchsorted(self.keys, wanted, side="right")
        found[rows] = np.where(self.keys[at - 1] == wanted, self.kinds[at], 0)
        return found


_PORT, _CELL = 16, 24


def _key(cell: Any, protocol: Any, port: Any) -> Any:
    """A socket as one number, or many as many."""
    return cell << _CELL | protocol << _PORT | port


def fronts(snapshot: Snapshot) -> Sockets:
    """The sockets at which a port of a Service is dialled."""
    nodes: dict[ClusterId, list[Address]] = {}
    for item in snapshot.items:
        if item.kind is ItemKind.NODE:
            nodes.setdefault(item.cluster, []).extend(item.addresses)

    def found(service: Item, port: ServicePort) -> Iterator[Socket]:
        external = service.service.external_addresses if service.service else ()
        for address in (*service.addresses, *external):
            yield address, port.protocol, port.port
        if port.node_port:
            for address in nodes.get(service.cluster, ()):
                yield address, port.protocol, port.node_port

    return found


def backends(service: Item, port: ServicePort) -> Iterator[Socket]:
    """The sockets of the pods that serve a port of a Service."""
    for backend in service.service.serving(port) if service.service else ():
        yield backend.address, backend.protocol, backend.port
