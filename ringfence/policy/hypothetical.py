"""Connections that nobody has made yet, from the words of a person who asks why."""

from collections.abc import Callable, Iterable, Sequence

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, is_v4, parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import NO_CLUSTER, ClusterId
from ringfence.model.protocol import WITH_PORTS, format_protocol
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, TrafficPolicy
from ringfence.policy.connection import Connection, Connections, tabulate

_MOST_NODES = 20
"""How many nodes are asked of one that any of them may receive."""


def hypothetical(
    snapshot: Snapshot, source: str, destination: str, protocol: int, port: int
) -> tuple[Connections, tuple[str, ...]]:
    """The connections that `source` would make to `destination`, and notes on what was assumed.

    Both are an address, the name of a node or host, or `namespace/name` of a pod or of what owns
    pods; the destination may also be a Service, by name or by an address of it, which gives one
    connection for each serving backend. `port` is the one dialled. Raises InputError for a name
    that is none, or a port that the Service does not have.
    """
    notes: list[str] = []
    fronts, provider = _find(snapshot, destination, notes, services=True)
    consumers, consumer = _find(snapshot, source, notes, services=False)
    service = provider if provider and provider.kind is ItemKind.SERVICE else None
    home = _home(snapshot, ((source, consumers, consumer), (destination, fronts, provider)))
    if service and not fronts:
        notes.append(f"Service {service.display} is headless: each backend is dialled directly")
        fronts = _backend_addresses(service)
    mine = {is_v4(address): address for address in reversed(consumers)}
    pairs = [(mine[is_v4(its)], its) for its in fronts if is_v4(its) in mine]
    if not pairs:
        raise InputError(f"{source!r} and {destination!r} have no addresses of one family")
    if service and not service.addresses:
        found = [Connection(protocol, one, its, port, its, port, home=home) for one, its in pairs]
    else:
        found = _dial(snapshot, home, *pairs[0], protocol, port, notes)
    return tabulate(snapshot, found), tuple(notes)


def find_workload(snapshot: Snapshot, text: str) -> tuple[int, tuple[str, ...]]:
    """The position of the workload that an end of `hypothetical` names, and notes.

    Raises InputError for a name that is none, and for an address that no workload holds.
    """
    notes: list[str] = []
    addresses, item = _find(snapshot, text, notes, services=False)
    home = _home(snapshot, [(text, addresses, item)])
    position = snapshot.at(addresses[0], home) if addresses else NOWHERE
    if position == NOWHERE or position not in snapshot.subjects:
        raise InputError(f"{text!r} is no workload with an address of its own")
    return position, tuple(notes)


def _find(
    snapshot: Snapshot, text: str, notes: list[str], *, services: bool
) -> tuple[tuple[Address, ...], Item | None]:
    """The addresses that the text stands for, and the item if it names one."""
    try:
        return (parse_address(text),), None
    except InputError:
        namespace, _, name = text.rpartition("/")

    def called(kind: ItemKind, wanted: Callable[[Item], bool]) -> list[Item]:
        same_kind = (item for item in snapshot.items if item.kind is kind)
        return [item for item in same_kind if item.namespace == namespace and wanted(item)]

    outside = [*called(ItemKind.NODE, _named(name)), *called(ItemKind.HOST, _named(name))]
    pods = called(ItemKind.POD, _named(name))
    fronts = called(ItemKind.SERVICE, _named(name)) if services else []
    replicas = called(ItemKind.POD, lambda item: item.workload_name == name)
    found = next((some for some in (outside, pods, fronts, replicas) if some), [])
    if not found:
        kinds = "pod, Service, node or host" if services else "pod, node or host"
        raise InputError(
            f"{text!r} is no {kinds} that the inventory knows; write an address, "
            "namespace/name, or the name of a node"
        )
    chosen = next((item for item in found if item.addresses), found[0])
    if len(found) > 1:
        notes.append(f"{text} is {len(found)} items; {chosen.display} stands for them")
    return chosen.addresses, chosen


def _home(
    snapshot: Snapshot, ends: Iterable[tuple[str, tuple[Address, ...], Item | None]]
) -> ClusterId:
    """The Kubernetes cluster in which ends, each with its words, are meant.

    That of the first that is in one; raises InputError for an address that only a cluster tells.
    """
    said = [
        (text, [item] if item else _held(snapshot, addresses)) for text, addresses, item in ends
    ]
    told = [{item.cluster for item in items} - {""} for _, items in said]
    home = next((ClusterId(*one) for one in told if len(one) == 1), NO_CLUSTER)
    for (text, items), clusters in zip(said, told, strict=True):
        if len(clusters) > 1 and home not in clusters:
            names = " and ".join(f"{one.display} in {one.cluster}" for one in items)
            raise InputError(f"{text!r} is {names}: name the one that you mean, not its address")
    return home


def _held(snapshot: Snapshot, addresses: tuple[Address, ...]) -> list[Item]:
    return [snapshot.items[at] for one in addresses for at in snapshot.each_holder(one)]


def _named(name: str) -> Callable[[Item], bool]:
    return lambda item: item.name == name


def _dial(
    snapshot: Snapshot,
    home: ClusterId,
    consumer: Address,
    dialled: Address,
    protocol: int,
    port: int,
    notes: list[str],
) -> list[Connection]:
    """The connections that dialling the address comes to, after destination NAT."""
    direct = Connection(protocol, consumer, dialled, port, dialled, port, home=home)
    holder = snapshot.at(dialled, home)
    at = snapshot.items[holder] if holder != NOWHERE else None
    service = _service_at(snapshot, home, at, dialled, protocol, port)
    if service is None:
        if at and at.kind is ItemKind.SERVICE:
            number = f" {port}" if protocol in WITH_PORTS else ""
            raise InputError(
                f"Service {at.display} has no port {format_protocol(protocol)}{number}; it has "
                f"{_ports(at)}. To ask of one of its pods, name that"
            )
        return [direct]
    chosen = _chosen(service, protocol, port, notes)
    backends = [one for one in chosen if is_v4(one.address) == is_v4(dialled)]
    nodes_of = _receivers(snapshot, consumer, at, service, dialled, notes)
    # Each end decides for itself: one backend shows what every node says.
    found = [
        Connection(protocol, consumer, one.address, one.port, dialled, port, node, home)
        for place, one in enumerate(backends)
        for node in nodes_of(one)[: None if place == 0 else 1]
    ]
    if not found:
        notes.append(f"Service {service.display} has no backend: judged as dialled")
    return found or [direct]


def _service_at(
    snapshot: Snapshot,
    home: ClusterId,
    at: Item | None,
    dialled: Address,
    protocol: int,
    port: int,
) -> Item | None:
    """The Service that answers at the address and port, one of the own cluster first."""
    for position in sorted(snapshot.services, key=lambda one: snapshot.items[one].cluster != home):
        item = snapshot.items[position]
        spec = item.service
        if spec is None:
            continue
        own = dialled in (*item.addresses, *spec.external_addresses)
        at_node = at is not None and at.kind is ItemKind.NODE and at.cluster == item.cluster
        for one in spec.ports:
            dialled_port = one.port if own else one.node_port if at_node else 0
            if (one.protocol, dialled_port) == (protocol, port):
                return item
    return None


def _receivers(
    snapshot: Snapshot,
    consumer: Address,
    at: Item | None,
    service: Item,
    dialled: Address,
    notes: list[str],
) -> Callable[[Backend], Sequence[Address | None]]:
    """Which nodes may receive the connection to a backend, by an address: for a ClusterIP, none.

    What a pod dials is received by its own node, whatever the load balancer would do.
    """
    if at is not None and at.kind is ItemKind.NODE:
        return lambda _: [dialled]
    if dialled in service.addresses:
        return lambda _: [None]
    nodes = {
        item.name: item.addresses[0]
        for item in snapshot.items
        if item.kind is ItemKind.NODE and item.cluster == service.cluster and item.addresses
    }

    def home(address: Address) -> Address | None:
        holder = snapshot.at(address, service.cluster)
        item = snapshot.items[holder] if holder != NOWHERE else None
        here = item is not None and item.cluster == service.cluster
        return nodes.get(item.node or item.name) if item and here else None

    if own := home(consumer):
        return lambda _: [own]
    if service.service and service.service.external_traffic_policy is TrafficPolicy.LOCAL:
        return lambda backend: [home(backend.address)]
    left = f"; {_MOST_NODES} of {len(nodes)} are judged" if len(nodes) > _MOST_NODES else ""
    notes.append(f"the load balancer may choose any node{left}")
    some = [*nodes.values()][:_MOST_NODES]
    return lambda _: some or [None]


def _chosen(service: Item, protocol: int, port: int, notes: list[str]) -> list[Backend]:
    """The serving backends of the Service's port, dialled as its own or as its node port.

    Where none serves, all: a policy or a quarantine may be what keeps them from it.
    """
    if service.service is None:
        return []
    names = {
        one.name
        for one in service.service.ports
        if one.protocol == protocol and port in (one.port, one.node_port)
    }
    backends = [
        one
        for one in service.service.backends
        if one.service_port in names and one.protocol == protocol
    ]
    serving = [one for one in backends if one.serving]
    if backends and not serving:
        notes.append(f"Service {service.display} has no serving backend: judged as if all served")
    return serving or backends


def _backend_addresses(service: Item) -> tuple[Address, ...]:
    backends = service.service.backends if service.service else ()
    found = dict.fromkeys(one.address for one in backends if one.serving)
    if not found:
        raise InputError(f"Service {service.display} is headless and has no serving backend")
    return tuple(found)


def _ports(service: Item) -> str:
    ports: Iterable[ServicePort] = service.service.ports if service.service else ()
    return ", ".join(f"{format_protocol(one.protocol)} {one.port}" for one in ports) or "none"
