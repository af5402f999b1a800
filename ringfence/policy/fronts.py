"""The fronts of an inventory: each port of each Service, and the workloads that serve it."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, PortRange
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, TrafficPolicy

MAX_PORT = 65535
Socket = tuple[Address, int, int]
"""Address, protocol, port."""


@dataclass(frozen=True)
class Front:
    """One port of a Service; `backends` are those that serve it."""

    service: Item
    port: ServicePort
    backends: tuple[Backend, ...]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the port is dialled under its own number."""
        external = self.service.service.external_addresses if self.service.service else ()
        return (*self.service.addresses, *external)

    @property
    def external_addresses(self) -> tuple[Address, ...]:
        """Of these, the ones that nodes receive for a load balancer."""
        return self.service.service.external_addresses if self.service.service else ()

    @property
    def masquerades(self) -> bool:
        """Whether a node that receives a connection from outside puts its own address on it."""
        spec = self.service.service
        received = self.port.node_port or self.external_addresses
        return bool(spec and received and spec.external_traffic_policy is TrafficPolicy.CLUSTER)


class Fronts:
    """All fronts, found by Service, by serving workload and by serving socket."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.all: list[Front] = []
        self._by_service: dict[int, list[Front]] = {}
        self._by_workload: dict[int, list[tuple[Front, Backend]]] = {}
        self._by_socket: dict[Socket, set[int]] = {}
        for position in snapshot.services:
            item = snapshot.items[position]
            fronts = _fronts(item)
            self.all += fronts
            self._by_service[position] = fronts
            for front in fronts:
                for backend in front.backends:
                    holder = snapshot.at(backend.address)
                    if holder != NOWHERE:
                        self._by_workload.setdefault(holder, []).append((front, backend))
                    self._by_socket.setdefault(socket_of(backend), set()).add(id(front))
        self.node_ports: dict[ClusterId, dict[int, set[int]]] = {}
        for front in self.all:
            if front.port.node_port:
                held = self.node_ports.setdefault(front.service.cluster, {})
                held.setdefault(front.port.protocol, set()).add(front.port.node_port)
        self.node_addresses: dict[ClusterId, list[Address]] = {}
        for item in snapshot.items:
            if item.kind is ItemKind.NODE:
                self.node_addresses.setdefault(item.cluster, []).extend(item.addresses)

    def of_services(
        self, services: BitMap, protocol: int | None, ports: tuple[PortRange, ...]
    ) -> list[Front]:
        """The fronts of those Services that have the protocol and one of the ports."""
        return [
            front
            for service in services
            for front in self._by_service[service]
            if fits(front.port.protocol, front.port.port, protocol, ports)
        ]

    def before(self, workloads: Iterable[int]) -> list[Front]:
        """The fronts that any of the workloads serves, each once."""
        found = {id(front): front for at in workloads for front, _ in self.served_by(at)}
        return list(found.values())

    def served_by(self, workload: int) -> list[tuple[Front, Backend]]:
        """The fronts that the workload serves, each with the workload as its backend."""
        return self._by_workload.get(workload, [])

    def taken(
        self, cluster: ClusterId, protocol: int | None, ports: tuple[PortRange, ...]
    ) -> dict[int, list[int]]:
        """A cluster's node ports among a rule's destinations, by protocol, sorted."""
        found: dict[int, list[int]] = {}
        for number, held in sorted(self.node_ports[cluster].items()):
            meant = sorted(port for port in held if fits(number, port, protocol, ports))
            if meant:
                found[number] = meant
        return found

    def shared(self, backend: Backend, meant: Set[int]) -> bool:
        """Whether a front leads to the backend's socket that is none of those meant, by `id`."""
        return not self._by_socket[socket_of(backend)] <= meant


def socket_of(backend: Backend) -> Socket:
    """Where the backend is dialled directly."""
    return backend.address, backend.protocol, backend.port


def fits(protocol: int, port: int, wanted: int | None, ports: tuple[PortRange, ...]) -> bool:
    """Whether a destination has the wanted protocol and one of the ports, if any are given."""
    return wanted in (None, protocol) and (not ports or any(port in some for some in ports))


def but_ports(
    protocol: int | None, ports: tuple[PortRange, ...], taken: Mapping[int, list[int]]
) -> list[tuple[int, tuple[PortRange, ...]]]:
    """A rule's destinations without the taken ports.

    `any` is spelled out as the protocols that have ports, and ICMP.
    """
    named = [*sorted(WITH_PORTS), ICMP, ICMPV6] if protocol is None else [protocol]
    found = []
    for number in named:
        kept = list(ports or (PortRange(0, MAX_PORT),)) if number in WITH_PORTS else []
        for port in taken.get(number, ()):
            kept = [
                PortRange(first, last)
                for some in kept
                for first, last in (
                    (some.first, min(some.last, port - 1)),
                    (max(some.first, port + 1), some.last),
                )
                if first <= last
            ]
        if kept or number not in WITH_PORTS:
            found.append((number, tuple(kept)))
    return found


def _fronts(item: Item) -> list[Front]:
    spec = item.service
    if spec is None:
        return []
    return [
        Front(
            item,
            port,
            tuple(b for b in spec.backends if b.serving and b.service_port == port.name),
        )
        for port in spec.ports
    ]
