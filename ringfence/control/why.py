"""Why a connection that somebody names would pass or not, by the rules that are enforced."""

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.fail_safes import fail_safes
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, Network, format_address, is_v4, parse_address
from ringfence.model.errors import InputError
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import EndRole, EndVerdict
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import DIRECTIONS
from ringfence.policy.explain import explain
from ringfence.policy.order import PolicySet


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is dialled; `port` is 0 for a protocol without ports."""

    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class ExplainedEnd:
    """One end's decision; `fail_safe` names what lets the connection pass whatever it says."""

    verdict: EndVerdict
    workload: str
    fail_safe: str

    @property
    def denies(self) -> bool:
        """Whether this end stops the connection."""
        return self.verdict.denies and not self.fail_safe


@dataclass(frozen=True, slots=True)
class ExplainedConnection:
    """One way that the traffic can take, told by all its ends."""

    text: str
    ends: tuple[ExplainedEnd, ...]

    @property
    def allowed(self) -> bool:
        """Whether it passes."""
        return not any(end.denies for end in self.ends)


@dataclass(frozen=True, slots=True)
class Answer:
    """Every connection that the question may mean, such as one for each backend of a Service."""

    connections: tuple[ExplainedConnection, ...]
    notes: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether all of them pass."""
        return all(connection.allowed for connection in self.connections)


def why(
    policy_set: PolicySet,
    source: str,
    destination: str,
    traffic: Traffic,
    ssh_networks: tuple[Network, ...],
) -> Answer:
    """Explain the traffic from one place to another.

    A place is an address, `namespace/name` of a pod or a Service, or the name of a node or a
    host. Raises NotFoundError, ConflictError for a name that means several, InputError.
    """
    snapshot = policy_set.snapshot
    consumer = _place(snapshot, source)
    provider = _place(snapshot, destination)
    if isinstance(consumer, Item) and consumer.kind is ItemKind.SERVICE:
        raise InputError(f"{source} is a Service, and a Service opens no connections")
    notes = [] if policy_set.enforced else ["no workspace is enforced"]
    candidates = list(_connections(snapshot, consumer, provider, traffic))
    if not candidates:
        raise ConflictError(
            f"{destination} has no serving backend on {_spell(traffic)} "
            f"in the address family of {source}"
        )
    columns = tabulate(snapshot, candidates)
    explained = []
    for row, candidate in enumerate(candidates):
        verdict = explain(policy_set, columns, row)
        ends = tuple(
            ExplainedEnd(
                end,
                _item(snapshot, end).display,
                _fail_safe(snapshot, end, candidate, ssh_networks),
            )
            for end in verdict.ends
        )
        explained.append(ExplainedConnection(_tell(snapshot, candidate), ends))
        outside = [
            format_address(address)
            for address in (candidate.consumer, candidate.provider)
            if snapshot.at(address) == NOWHERE
        ]
        notes += [f"{address} is outside the inventory: that end does not decide"
                  for address in outside]
    return Answer(tuple(explained), tuple(dict.fromkeys(notes)))


def _place(snapshot: Snapshot, text: str) -> Item | Address:
    """The item that a text names, or the address that it is where no Service holds that."""
    try:
        address = parse_address(text)
    except InputError:
        return _named(snapshot, text)
    held = snapshot.at(address)
    if held != NOWHERE and snapshot.items[held].kind is ItemKind.SERVICE:
        return snapshot.items[held]
    return address


def _named(snapshot: Snapshot, text: str) -> Item:
    namespace, _, name = text.rpartition("/")
    found = [
        item
        for item in snapshot.items
        if (item.namespace, item.name) == (namespace, name) and item.kind is not ItemKind.NAMESPACE
    ] or [
        item
        for item in snapshot.items
        if (item.namespace, item.workload_name) == (namespace, name)
        and item.kind is ItemKind.POD
    ]
    kinds = {(item.kind, item.cluster, item.workload_name) for item in found}
    if not found:
        raise NotFoundError(
            f"{text!r} is nothing in the inventory: write an address, namespace/pod, "
            "namespace/service, or the name of a node"
        )
    if len(kinds) > 1:
        several = ", ".join(f"{item.kind} in {item.cluster}" for item in found)
        raise ConflictError(f"{text!r} may mean a {several}: write its address instead")
    return found[0]


def _connections(
    snapshot: Snapshot, consumer: Item | Address, provider: Item | Address, traffic: Traffic
) -> Iterator[Connection]:
    sources = consumer.addresses if isinstance(consumer, Item) else (consumer,)
    for source in sources[:1]:
        if isinstance(provider, Item) and provider.kind is ItemKind.SERVICE:
            yield from _to_service(source, provider, traffic)
            continue
        targets = provider.addresses if isinstance(provider, Item) else (provider,)
        target = next((one for one in targets if is_v4(one) == is_v4(source)), None)
        if target is None:
            continue
        through_node = list(_to_node_port(snapshot, source, target, traffic))
        yield from through_node or [
            Connection(traffic.protocol, source, target, traffic.port, target, traffic.port)
        ]


def _to_service(source: Address, service: Item, traffic: Traffic) -> Iterator[Connection]:
    for port in service.service.ports if service.service else ():
        if (port.protocol, port.port) == (traffic.protocol, traffic.port):
            dialled = next((one for one in service.addresses if is_v4(one) == is_v4(source)), None)
            yield from _to_backends(source, service, port, dialled, None)


def _to_node_port(
    snapshot: Snapshot, source: Address, target: Address, traffic: Traffic
) -> Iterator[Connection]:
    position = snapshot.at(target)
    node = snapshot.items[position] if position != NOWHERE else None
    if node is None or node.kind is not ItemKind.NODE or not traffic.port:
        return
    for place in snapshot.services:
        service = snapshot.items[place]
        if service.cluster != node.cluster or service.service is None:
            continue
        for port in service.service.ports:
            if (port.protocol, port.node_port) == (traffic.protocol, traffic.port):
                yield from _to_backends(source, service, port, target, target)


def _to_backends(
    source: Address,
    service: Item,
    port: ServicePort,
    dialled: Address | None,
    node: Address | None,
) -> Iterator[Connection]:
    """One connection for each serving backend; a headless Service is dialled at those."""
    dialled_port = port.node_port if node is not None else port.port
    for backend in service.service.backends if service.service else ():
        fits = backend.serving and backend.service_port == port.name
        if not fits or is_v4(backend.address) != is_v4(source):
            continue
        target = (backend.address, backend.port)
        front = (dialled, dialled_port) if dialled is not None else target
        yield Connection(port.protocol, source, *target, *front, node)


def _item(snapshot: Snapshot, end: EndVerdict) -> Item:
    return snapshot.items[snapshot.position(end.workload)]


def _fail_safe(
    snapshot: Snapshot, end: EndVerdict, one: Connection, ssh_networks: tuple[Network, ...]
) -> str:
    consumer, provider = snapshot.at(one.consumer), snapshot.at(one.provider)
    if consumer == provider != NOWHERE:
        return "a workload may always reach itself"
    item = _item(snapshot, end)
    if item.kind is not ItemKind.NODE:
        return ""
    peer = one.provider if end.role is EndRole.CONSUMER else one.consumer
    for stated in fail_safes(snapshot, item.cluster, ssh_networks):
        if stated.covers(DIRECTIONS[end.role], one.protocol, peer, one.dialled_port):
            return stated.name
    return ""


def _tell(snapshot: Snapshot, one: Connection) -> str:
    ends = f"{_name(snapshot, one.consumer)} → {_name(snapshot, one.provider)}"
    spelled = _spell(Traffic(one.protocol, one.provider_port))
    if (one.dialled, one.dialled_port) == (one.provider, one.provider_port):
        return f"{ends} {spelled}"
    return f"{ends} {spelled}, dialled as {_name(snapshot, one.dialled)} port {one.dialled_port}"


def _name(snapshot: Snapshot, address: Address) -> str:
    position = snapshot.at(address)
    written = format_address(address)
    return written if position == NOWHERE else f"{snapshot.items[position].display} ({written})"


def _spell(traffic: Traffic) -> str:
    protocol = format_protocol(traffic.protocol)
    return f"{protocol} {traffic.port}" if traffic.port else protocol
