"""The least policy that lets one edge pass: its own two ends, its own protocol and port."""

from pyroaring import BitMap

from ringfence.discovery.edges import Edge, Nodes, Outside, Owner, OwnNode, Peer, ServiceFront
from ringfence.inventory.snapshot import Snapshot
from ringfence.model import labels
from ringfence.model.address import host_network, parse_network
from ringfence.model.icmp import NAMES as ICMP_NAMES
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import PolicyId
from ringfence.model.policy import (
    Action,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, PortRange, format_port, format_protocol
from ringfence.model.query import And, Compare, Operator, Query
from ringfence.model.workload import Item, ItemKind

_ANYWHERE = CidrEnd((parse_network("0.0.0.0/0"), parse_network("::/0")))


class LeastPolicies:
    """Makes policies for a workspace whose scope's members are at these positions.

    A workload is one of the workspace's clusters where that is just its pods, else a filter; what
    was dialled through a Service is allowed through that Service. No two have the same id, nor an
    id of the workspace's own.
    """

    def __init__(self, snapshot: Snapshot, workspace: Workspace, members: BitMap) -> None:
        self._made: dict[tuple[End, End, int, int], Policy] = {}
        self._ids: set[str] = {policy.id for policy in workspace.policies}
        self._clusters = {
            frozenset(snapshot.select(one.query) & members & snapshot.subjects): one.name
            for one in workspace.clusters
        }
        pods: dict[Owner, set[int]] = {}
        for position in members & snapshot.subjects:
            pods.setdefault(_owner_of(snapshot.items[position]), set()).add(position)
        self._pods = {owner: frozenset(its) for owner, its in pods.items()}

    def __contains__(self, peer: object) -> bool:
        """Whether it is a workload of the scope."""
        return peer in self._pods

    def of(self, edge: Edge) -> Policy:
        """The policy for an edge; the same for edges that need the same one."""
        front = edge.provider
        from_outside = isinstance(front, ServiceFront) and front.from_outside
        anybody = from_outside and isinstance(edge.consumer, Outside)
        consumer = _ANYWHERE if anybody else self._end(edge.consumer)
        provider = self._end(edge.provider)
        key = consumer, provider, edge.protocol, edge.port
        if key not in self._made:
            name = f"{'any' if anybody else _name(edge.consumer)}-to-{_name(edge.provider)}"
            self._made[key] = self._policy(name, consumer, provider, edge)
        return self._made[key]

    def _policy(self, name: str, consumer: End, provider: End, edge: Edge) -> Policy:
        protocol, port = edge.protocol, edge.port
        if protocol in WITH_PORTS | {*ICMP_NAMES}:
            told = format_port(protocol, port).replace("/", "-")
            name += f"-{format_protocol(protocol).lower()}-{told}"
        return Policy(
            id=self._distinct(name),
            consumer=consumer,
            provider=provider,
            protocol=protocol,
            ports=(PortRange(port, port),) if protocol in WITH_PORTS else (),
            action=Action.ALLOW,
            icmp=(IcmpType(port >> 8, port & 0xFF),) if protocol in ICMP_NAMES else (),
        )

    def _distinct(self, wanted: str) -> PolicyId:
        found, number = wanted, 2
        while found in self._ids:
            found, number = f"{wanted}-{number}", number + 1
        self._ids.add(found)
        return PolicyId(found)

    def _end(self, peer: Peer) -> End:
        match peer:
            case Owner():
                cluster = self._clusters.get(self._pods.get(peer, frozenset()))
                return ClusterEnd(cluster) if cluster else FilterEnd(_owner_query(peer))
            case ServiceFront(cluster, namespace, name):
                return ServiceEnd(namespace, name)
            case Nodes(cluster):
                kind = Compare(labels.KIND, Operator.EQ, (ItemKind.NODE.value,))
                return FilterEnd(And((kind, Compare(labels.CLUSTER, Operator.EQ, (cluster,)))))
            case Outside(address):
                return CidrEnd((host_network(address),))
            case OwnNode():
                return OwnNodeEnd()


def _name(peer: Peer) -> str:
    """As it stands in a policy's id."""
    match peer:
        case Owner() | ServiceFront():
            return peer.name
        case Nodes():
            return "nodes"
        case OwnNode():
            return "own-node"
        case Outside():
            return str(peer)


def _owner_of(item: Item) -> Owner:
    """The workload that a pod or a host is one of."""
    return Owner(item.cluster, item.namespace, item.workload_name or item.name)


def _owner_query(owner: Owner) -> Query:
    """A query by the owner's name, or the item's own where it has no owner."""
    owned = Compare(labels.OWNER_NAME, Operator.EQ, (owner.name,))
    return And((*_within(owner), owned))


def _within(owner: Owner) -> tuple[Query, ...]:
    if not owner.namespace:
        return (Compare(labels.NAME, Operator.EQ, (owner.name,)),)
    return (Compare(labels.NAMESPACE, Operator.EQ, (owner.namespace,)),)


def describe(peer: Peer) -> str:
    """As people are told."""
    match peer:
        case Owner(_, namespace, name):
            return f"{namespace}/{name}" if namespace else name
        case ServiceFront(_, namespace, name):
            return f"Service {namespace}/{name}"
        case Nodes(cluster):
            return f"nodes of {cluster}" if cluster else "nodes"
        case OwnNode():
            return "own node"
        case Outside():
            return str(peer)
