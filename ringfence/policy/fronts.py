"""The fronts of an inventory: each port of each Service, and the workloads that serve it."""

from bisect import insort
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, View
from ringfence.model.address import Address, host_network
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, PortRange
from ringfence.model.ranges import AddressRange, spans
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, TrafficPolicy

MAX_PORT = 65535


@dataclass(frozen=True)
class Front:
    """One port of a Service; `backends` are those that serve it."""

    service: Item
    number: int
    """Which port of its Service it is, from 0."""
    port: ServicePort
    backends: tuple[Backend, ...]

    @property
    def place(self) -> tuple[ItemKey, int]:
        """Where it stands among all fronts."""
        return self.service.key, self.number

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the port is dialled under its own number."""
        external = self.service.service.external_addresses if self.service.service else ()
        return (*self.service.addresses, *external)

    @property
    def external_addresses(self) -> tuple[Address, ...]:
        """Of these, the ones that nodes receive for a load balancer."""
        return self.service.service.external_addresses if self.service.service else ()

    def dialled_from(self, cluster: ClusterId) -> tuple[Address, ...]:
        """Of these, the ones by which workloads of a Kubernetes cluster, "" for none, come to it.

        Its own cluster's nodes translate whatever their pods dial. Others reach it where routes
        lead to those nodes: at a load balancer's addresses, but not at `externalIPs`, for anybody
        may claim any address by them; and hosts at its ClusterIPs, which each cluster has its own.
        """
        if cluster == self.service.cluster:
            return self.addresses
        balancers = self.service.service.balancer_addresses if self.service.service else ()
        return balancers if cluster else (*self.service.addresses, *balancers)

    def serves(self, consumer: Address, dialled: Address) -> bool:
        """Whether it is served to the consumer at one of its addresses, as source ranges go."""
        networks = self.service.service.served_from(dialled) if self.service.service else ()
        return not networks or any(consumer in one for one in networks)

    @property
    def masquerades(self) -> bool:
        """Whether a node that receives a connection from outside puts its own address on it."""
        spec = self.service.service
        received = self.port.node_port or self.external_addresses
        return bool(spec and received and spec.external_traffic_policy is TrafficPolicy.CLUSTER)


@dataclass(frozen=True, order=True, slots=True)
class _Served:
    """A front and a backend of it, in the order of Services and as they stand in each."""

    service: ItemKey
    number: int
    place: int
    front: Front = field(compare=False)
    backend: Backend = field(compare=False)


@dataclass(frozen=True, slots=True)
class Translated:
    """Addresses of Services behind which others answer.

    `whole` are ClusterIPs, which are nobody else's. An external address may be somebody's, so that
    only its ports count that lead to backends.
    """

    whole: tuple[AddressRange, ...]
    ports: tuple[tuple[tuple[AddressRange, ...], dict[int, list[int]]], ...]
    """Addresses that have the same ports, and these by protocol, sorted."""


class Fronts:
    """All fronts, found by Service, by serving workload and by serving socket."""

    def __init__(self, snapshot: View) -> None:
        self._snapshot = snapshot
        self._by_service: dict[int, list[Front]] = {}
        self._by_address: dict[Address, list[_Served]] = {}
        self._translated: dict[ClusterId, Translated] = {}
        for position in snapshot.services:
            self._add(position, snapshot.items[position])
        self.node_addresses: dict[ClusterId, list[Address]] = {}
        for node in snapshot.nodes:
            item = snapshot.items[node]
            self.node_addresses.setdefault(item.cluster, []).extend(item.addresses)

    @cached_property
    def all(self) -> list[Front]:
        """Every front, by Service."""
        fronts = (front for some in self._by_service.values() for front in some)
        return sorted(fronts, key=lambda front: front.place)

    @cached_property
    def node_ports(self) -> dict[ClusterId, dict[int, set[int]]]:
        """By Kubernetes cluster and protocol."""
        found: dict[ClusterId, dict[int, set[int]]] = {}
        for front in self.all:
            if front.port.node_port:
                held = found.setdefault(front.service.cluster, {})
                held.setdefault(front.port.protocol, set()).add(front.port.node_port)
        return found

    def translated(self, cluster: ClusterId) -> "Translated":
        """What workloads of a Kubernetes cluster, "" for none, dial and are answered elsewhere."""
        if cluster not in self._translated:
            self._translated[cluster] = _translated(self.all, cluster)
        return self._translated[cluster]

    def replace(self, position: int, service: Item | None) -> None:
        """Have another Service at a position, or none."""
        for front in self._by_service.pop(position, ()):
            for address in {backend.address for backend in front.backends}:
                held = [one for one in self._by_address.pop(address) if one.front is not front]
                if held:
                    self._by_address[address] = held
        for told in ("all", "node_ports"):
            self.__dict__.pop(told, None)
        self._translated.clear()
        if service is not None:
            self._add(position, service)

    def _add(self, position: int, service: Item) -> None:
        self._by_service[position] = fronts = _fronts(service)
        for front in fronts:
            for place, backend in enumerate(front.backends):
                served = _Served(*front.place, place, front, backend)
                insort(self._by_address.setdefault(backend.address, []), served)

    def behind(self, address: Address) -> list[Front]:
        """The fronts that have a backend at the address."""
        return [one.front for one in self._by_address.get(address, ())]

    def of_services(
        self, services: BitMap, protocol: int | None, ports: tuple[PortRange, ...]
    ) -> list[Front]:
        """The fronts of those Services that have the protocol and one of the ports."""
        return [
            front
            for service in sorted(services, key=lambda at: self._snapshot.items[at].key)
            for front in self._by_service[service]
            if fits(front.port.protocol, front.port.port, protocol, ports)
        ]

    def before(self, workloads: Iterable[int]) -> list[Front]:
        """The fronts that any of the workloads serves, each once, by Service."""
        found = {front.place: front for at in workloads for front, _ in self.served_by(at)}
        return [found[place] for place in sorted(found)]

    def served_by(self, workload: int) -> list[tuple[Front, Backend]]:
        """The fronts that the workload serves, each with the workload as its backend."""
        addresses = self._snapshot.items[workload].addresses
        held = [one for address in addresses for one in self._by_address.get(address, ())]
        if len(addresses) > 1:
            held.sort()
        return [(one.front, one.backend) for one in held if self._holds(workload, one)]

    def is_at_home(self, front: Front, backend: Backend) -> bool:
        """Whether the backend is a pod of the Service's own namespace.

        Only an EndpointSlice that is written by hand leads to others'.
        """
        service, items = front.service, self._snapshot.items
        told = self._snapshot.position(backend.item) if backend.item else NOWHERE
        return any(
            at != NOWHERE
            and items[at].kind is ItemKind.POD
            and (items[at].cluster, items[at].namespace) == (service.cluster, service.namespace)
            and backend.address in items[at].addresses
            for at in (self._snapshot.holder(backend.address, service.cluster), told)
        )

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
        return any(
            id(one.front) not in meant
            for one in self._by_address[backend.address]
            if (one.backend.protocol, one.backend.port) == (backend.protocol, backend.port)
        )

    def _holds(self, workload: int, served: _Served) -> bool:
        home = served.front.service.cluster
        return self._snapshot.holder(served.backend.address, home) == workload


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


def _translated(fronts: Iterable[Front], cluster: ClusterId) -> Translated:
    whole, sockets = set[Address](), dict[Address, set[tuple[int, int]]]()
    for front in fronts:
        for address in front.dialled_from(cluster):
            if address in front.service.addresses:
                whole.add(address)
            elif front.backends:
                sockets.setdefault(address, set()).add((front.port.protocol, front.port.port))
    alike: dict[tuple[tuple[int, int], ...], set[Address]] = {}
    for address, found in sockets.items():
        alike.setdefault(tuple(sorted(found)), set()).add(address)
    ports = []
    for held, addresses in sorted(alike.items()):
        by_protocol: dict[int, list[int]] = {}
        for protocol, port in held:
            by_protocol.setdefault(protocol, []).append(port)
        ports.append((spans(map(host_network, addresses)), by_protocol))
    return Translated(spans(map(host_network, whole)), tuple(ports))


def _fronts(item: Item) -> list[Front]:
    spec = item.service
    if spec is None:
        return []
    return [Front(item, number, port, spec.serving(port)) for number, port in enumerate(spec.ports)]
