"""The least set of policies under which everything that was seen to be needed still works.

Each edge between workloads becomes one policy, with the evidence in its description. A workload
is a cluster of the workspace; what is dialled through a Service is allowed through that Service.
Probes come from the inventory, for the kubelet dials them whether they were seen or not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pyroaring import BitMap

from ringfence.discovery.clusters import Clusters, owner_query
from ringfence.discovery.edges import Edge, Nodes, Outside, Owner, OwnNode, Peer, ServiceFront
from ringfence.inventory.snapshot import Snapshot
from ringfence.model import labels
from ringfence.model.address import host_network, parse_network
from ringfence.model.ids import ClusterId, PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, UDP, WITH_PORTS, PortRange, format_protocol
from ringfence.model.query import And, Compare, Operator
from ringfence.model.workload import ItemKind

ANYWHERE = CidrEnd((parse_network("0.0.0.0/0"), parse_network("::/0")))
_DNS = ("kube-system", "kube-dns", 53)
_HOST_SERVICES = frozenset({6443, 10250, 2379, 2380})
"""API server, kubelet and etcd: on nodes these are fail-safes, which need no policy."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A policy without its ports; edges that differ in nothing else share one."""

    consumer: End
    provider: End
    protocol: int
    consumer_name: str
    provider_name: str


@dataclass
class _Evidence:
    ports: set[int]
    connections: int = 0
    first_ns: int = 2**63 - 1
    last_ns: int = 0

    def add(self, edge: Edge) -> None:
        self.connections += edge.connections
        self.first_ns = min(self.first_ns, edge.first_ns)
        self.last_ns = max(self.last_ns, edge.last_ns)

    def __str__(self) -> str:
        first, last = (
            datetime.fromtimestamp(at // 10**9, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for at in (self.first_ns, self.last_ns)
        )
        return f"{self.connections} connections seen from {first} to {last}"


def propose(
    found: Iterable[Edge],
    snapshot: Snapshot,
    scope: ScopeName,
    members: BitMap,
    name: WorkspaceName,
) -> Workspace:
    """A workspace for the scope whose members are at these positions; the same for equal input."""
    proposal = _Proposal(snapshot, scope, members)
    for edge in found:
        proposal.add(edge)
    return proposal.workspace(name)


class _Proposal:
    def __init__(self, snapshot: Snapshot, scope: ScopeName, members: BitMap) -> None:
        self._scope = scope
        self._clusters = Clusters(snapshot, members & snapshot.subjects)
        items = [snapshot.items[position] for position in members]
        self._nodes = {item.cluster for item in items if item.kind is ItemKind.NODE}
        self._only_nodes = bool(items) and all(item.kind is ItemKind.NODE for item in items)
        self._drafts: dict[_Draft, _Evidence] = {}
        self._used: set[Owner] = set()

    def add(self, edge: Edge) -> None:
        """Let the edge pass at those of its ends that are members."""
        front = edge.provider
        if isinstance(front, ServiceFront) and front.from_outside and front.cluster in self._nodes:
            self._note(edge, "any", ANYWHERE)
        provider_inside = self._inside(edge.backend or edge.provider)
        consumer_inside = self._inside(edge.consumer) and not self._only_nodes
        if self._is_probe(edge):
            return  # the inventory tells of these
        if isinstance(edge.backend or edge.provider, Nodes) and edge.port in _HOST_SERVICES:
            provider_inside = False
        if not (provider_inside or consumer_inside):
            return
        if _is_dns(edge) and consumer_inside:
            self._note_dns(edge)
        elif isinstance(front, ServiceFront) and front.from_outside:
            if isinstance(edge.consumer, Outside):
                self._note(edge, "any", ANYWHERE)
            else:
                self._note(edge, *self._end(edge.consumer))
        elif edge.consumer != edge.provider or isinstance(edge.consumer, Owner):
            self._note(edge, *self._end(edge.consumer))

    def workspace(self, name: WorkspaceName) -> Workspace:
        """What has been gathered, sorted."""
        policies = [
            *(self._policy(draft, evidence) for draft, evidence in self._drafts.items()),
            *self._probes(),
        ]
        outbound = Action.ALLOW if self._only_nodes else Action.DENY
        return Workspace(
            name=name,
            scope=self._scope,
            primary=True,
            catch_all=CatchAll(inbound=Action.DENY, outbound=outbound),
            clusters=tuple(self._clusters.cluster(owner) for owner in sorted(self._used)),
            policies=tuple(sorted(policies, key=lambda policy: policy.id)),
        )

    def _is_probe(self, edge: Edge) -> bool:
        return (
            edge.consumer == OwnNode()
            and isinstance(edge.provider, Owner)
            and edge.provider in self._clusters
            and (edge.protocol, edge.port) in self._clusters.probe_ports(edge.provider)
        )

    def _inside(self, peer: Peer) -> bool:
        if isinstance(peer, Nodes):
            return peer.cluster in self._nodes
        return isinstance(peer, Owner) and peer in self._clusters

    def _note(self, edge: Edge, consumer_name: str, consumer: End) -> None:
        provider_name, provider = self._end(edge.provider)
        draft = _Draft(consumer, provider, edge.protocol, consumer_name, provider_name)
        evidence = self._drafts.setdefault(draft, _Evidence(set()))
        evidence.add(edge)
        evidence.ports.add(edge.port)

    def _note_dns(self, edge: Edge) -> None:
        """Resolvers turn to TCP when an answer is too long (RFC 7766), so both are let pass."""
        for protocol in (UDP, TCP):
            at = replace(edge, protocol=protocol)
            if protocol != edge.protocol:
                at = replace(at, connections=0)
            self._note(at, self._scope, ScopeEnd(self._scope))

    def _end(self, peer: Peer) -> tuple[str, End]:
        """A name for policy ids, and the end."""
        match peer:
            case Owner() if peer in self._clusters:
                self._used.add(peer)
                name = self._clusters.name(peer)
                return name, ClusterEnd(name)
            case Owner():
                return peer.name, FilterEnd(owner_query(peer))
            case ServiceFront():
                return peer.name, ServiceEnd(peer.namespace, peer.name)
            case Nodes(cluster):
                return "nodes", FilterEnd(_nodes_query(cluster))
            case Outside(address):
                return str(peer), CidrEnd((host_network(address),))
            case OwnNode():
                return "own-node", OwnNodeEnd()

    def _policy(self, draft: _Draft, evidence: _Evidence) -> Policy:
        numbers = sorted(evidence.ports) if draft.protocol in WITH_PORTS else []
        wanted = f"{draft.consumer_name}-to-{draft.provider_name}"
        return Policy(
            id=PolicyId(self._distinct(wanted, draft)),
            consumer=draft.consumer,
            provider=draft.provider,
            protocol=draft.protocol,
            ports=tuple(PortRange(number, number) for number in numbers),
            action=Action.ALLOW,
            description=str(evidence),
        )

    def _distinct(self, wanted: str, draft: _Draft) -> str:
        """The id, with what tells it apart from others of the same two names."""
        same = [
            other
            for other in self._drafts
            if (other.consumer_name, other.provider_name)
            == (draft.consumer_name, draft.provider_name)
        ]
        if len({other.protocol for other in same}) > 1:
            wanted += f"-{format_protocol(draft.protocol).lower()}"
        if len({(type(other.consumer), type(other.provider)) for other in same}) > 1:
            kinds = {ClusterEnd: "direct", FilterEnd: "direct", ServiceEnd: "service"}
            wanted += f"-{kinds.get(type(draft.provider), 'address')}"
        return wanted

    def _probes(self) -> Iterable[Policy]:
        for owner in self._clusters:
            by_protocol: dict[int, list[int]] = {}
            for protocol, port in self._clusters.probe_ports(owner):
                by_protocol.setdefault(protocol, []).append(port)
            for protocol, ports in by_protocol.items():
                self._used.add(owner)
                name = self._clusters.name(owner)
                suffix = f"-{format_protocol(protocol).lower()}" if len(by_protocol) > 1 else ""
                yield Policy(
                    id=PolicyId(f"probes-to-{name}{suffix}"),
                    consumer=OwnNodeEnd(),
                    provider=ClusterEnd(name),
                    protocol=protocol,
                    ports=tuple(PortRange(port, port) for port in ports),
                    action=Action.ALLOW,
                    description="the kubelet's probes, as the pods declare them",
                )


def _is_dns(edge: Edge) -> bool:
    front = edge.provider
    return isinstance(front, ServiceFront) and (front.namespace, front.name, edge.port) == _DNS


def _nodes_query(cluster: ClusterId) -> And:
    return And(
        (
            Compare(labels.KIND, Operator.EQ, (ItemKind.NODE.value,)),
            Compare(labels.CLUSTER, Operator.EQ, (cluster,)),
        )
    )
