"""Why a connection that somebody names would pass or not, by the rules that are enforced."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, format_address
from ringfence.model.ids import NodeName
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import EndRole, EndVerdict
from ringfence.model.workload import ItemKind
from ringfence.policy.compile import Compiled
from ringfence.policy.connection import Connections
from ringfence.policy.explain import explain
from ringfence.policy.hypothetical import hypothetical
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy


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


@dataclass(frozen=True, slots=True)
class Question:
    """Traffic from one place to another, in the words that `hypothetical` takes."""

    source: str
    destination: str
    protocol: int
    port: int


def why(policy_set: PolicySet, compiled: Compiled, question: Question) -> Answer:
    """Explain the traffic by the rules and by the fail-safes that were compiled from them.

    Raises InputError for a place that there is not.
    """
    snapshot = policy_set.snapshot
    connections, assumed = hypothetical(
        snapshot, question.source, question.destination, question.protocol, question.port
    )
    explained = []
    for row in range(len(connections)):
        ends = tuple(
            _end(snapshot, compiled, connections, row, end)
            for end in explain(policy_set, connections, row).ends
        )
<<<<<<< HEAD
        explained.append(ExplainedConnection(_tell(snapshot, candidate), ends))
        outside = [
            format_address(address)
            for address in (candidate.consumer, candidate.provider)
            if snapshot.at(address) == NOWHERE
        ]
        notes += [
            f"{address} is outside the inventory: that end does not decide" for address in outside
        ]
    return Answer(tuple(explained), tuple(dict.fromkeys(notes)))
=======
        explained.append(ExplainedConnection(_tell(snapshot, connections, row), ends))
    idle = () if policy_set.enforced else ("no workspace is enforced",)
    return Answer(tuple(explained), (*idle, *assumed))
>>>>>>> refs/heads/control


def _end(
    snapshot: Snapshot, compiled: Compiled, connections: Connections, row: int, end: EndVerdict
) -> ExplainedEnd:
    item = snapshot.items[snapshot.position(end.workload)]
    fail_safe = ""
    if connections.consumer_item[row] == connections.provider_item[row] != NOWHERE:
        fail_safe = "a workload may reach itself"
    elif item.kind is not ItemKind.POD:
        policy = compiled.policies[item.cluster, NodeName(item.name)]
        fail_safe = _fail_safe(policy, end.role, connections, row)
    return ExplainedEnd(end, item.display, fail_safe)


<<<<<<< HEAD
def _named(snapshot: Snapshot, text: str) -> Item:
    namespace, _, name = text.rpartition("/")
    found = [
        item
        for item in snapshot.items
        if (item.namespace, item.name) == (namespace, name) and item.kind is not ItemKind.NAMESPACE
    ] or [
        item
        for item in snapshot.items
        if (item.namespace, item.workload_name) == (namespace, name) and item.kind is ItemKind.POD
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
=======
def _fail_safe(policy: NodePolicy, role: EndRole, connections: Connections, row: int) -> str:
    """The handle of the node's first fail-safe that speaks of the connection; empty for none."""
    outbound = role is EndRole.CONSUMER
    rules = policy.binding.fail_safes_out if outbound else policy.binding.fail_safes_in
    peer = Address(bytes((connections.provider if outbound else connections.consumer)[row]))
    port = int(connections.dialled_port[row])
    for rule in rules:
        if (
            rule.protocol in (None, int(connections.protocol[row]))
            and (not rule.ports or any(port in ports for ports in rule.ports))
            and (rule.peers is None or any(peer in block for block in policy.sets[rule.peers]))
        ):
            return rule.handle
>>>>>>> refs/heads/control
    return ""


def _tell(snapshot: Snapshot, connections: Connections, row: int) -> str:
    protocol = format_protocol(int(connections.protocol[row]))
    consumer = _name(snapshot, connections.consumer[row])
    provider = _name(snapshot, connections.provider[row])
    port, dialled_port = int(connections.provider_port[row]), int(connections.dialled_port[row])
    text = f"{consumer} → {provider} {protocol}{f' {port}' if port else ''}"
    dialled = _name(snapshot, connections.dialled[row])
    if (dialled, dialled_port) == (provider, port):
        return text
    return f"{text}, dialled as {dialled} {protocol} {dialled_port}"


def _name(snapshot: Snapshot, packed: NDArray[np.uint8]) -> str:
    address = Address(bytes(packed))
    position = snapshot.at(address)
    written = format_address(address)
    return written if position == NOWHERE else f"{snapshot.items[position].display} ({written})"
