"""Peers as ends of policies: who is meant, and what to call it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.discovery.peers import Anybody, Named, Nodes, Outside, OwnNode, Peer, ServiceFront
from ringfence.discovery.roles import Role
from ringfence.inventory.snapshot import Snapshot
from ringfence.model import labels
from ringfence.model.address import Address, host_network
from ringfence.model.fqdn import host_name
from ringfence.model.ids import ClusterId
from ringfence.model.policy import (
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    OutsideEnd,
    OwnNodeEnd,
    ServiceEnd,
)
from ringfence.model.query import And, Compare, Operator, Or, Query
from ringfence.model.workload import ItemKind

FEW_ADDRESSES = 2
"""So many hosts outside are named one by one; of more, any host outside is meant."""


@dataclass(frozen=True, slots=True)
class NamedEnd:
    """An end, and the name that it has in ids of policies.

    `place` is its namespace, of nodes their Kubernetes cluster; empty if it has none, or several.
    """

    name: str
    end: End
    place: str = ""


class Ends:
    """Ends of a workspace whose scope's members are at these positions."""

    def __init__(self, snapshot: Snapshot, members: BitMap) -> None:
        self._snapshot, self._members = snapshot, members
        self.only_nodes = bool(members) and members <= snapshot.nodes
        """Whether the scope is one of nodes, which may open what they like."""
        self.everybody = snapshot.subjects <= members
        """Whether there is no workload besides."""
        self._nodes = {snapshot.items[at].cluster for at in members & snapshot.nodes}

    def inside(self, peer: Peer) -> bool:
        """Whether the workspace decides over a peer."""
        if isinstance(peer, Nodes):
            return peer.cluster in self._nodes
        return isinstance(peer, Role) and peer.members.intersect(self._members)

    def receives(self, front: ServiceFront) -> bool:
        """Whether nodes of the scope take in what hosts outside send to a Service."""
        return front.from_outside and front.cluster in self._nodes

    def holds(self, query: Query) -> bool:
        """Whether all whom a query means are workloads of the scope."""
        return self._snapshot.select(query) & self._snapshot.subjects <= self._members

    def of(self, peer: Peer, addresses: Sequence[Address] = (), *, each: bool = False) -> NamedEnd:
        """The end that a peer is; `addresses` are those of hosts outside that are to be meant.

        `each`: however many they are, each is named.
        """
        match peer:
            case Role(cluster):
                inside = self.inside(peer)
                end = ClusterEnd(cluster.name) if inside else FilterEnd(cluster.query)
                return NamedEnd(cluster.name, end, peer.place)
            case ServiceFront():
                front = ServiceEnd(peer.namespace, peer.name)
                return NamedEnd(peer.name, front, peer.namespace)
            case Nodes(cluster_id):
                return NamedEnd("nodes", FilterEnd(_nodes_query(cluster_id)), cluster_id)
            case OwnNode():
                return NamedEnd("own-node", OwnNodeEnd())
            case Outside() | Named() | Anybody():
                return _outside(peer, sorted(addresses), each=each)


def _outside(
    peer: Outside | Named | Anybody, addresses: Sequence[Address], *, each: bool
) -> NamedEnd:
    blocks = tuple(map(host_network, addresses))
    match peer:
        case Outside(address):
            return NamedEnd(str(peer), CidrEnd((host_network(address),)))
        case Named(name):
            said = host_name(name)
            if not said:  # flows may tell anything
                return NamedEnd(str(Outside(addresses[0])), CidrEnd(blocks))
            return NamedEnd(said, CidrEnd(blocks) if blocks else FqdnEnd(said))
        case Anybody() if blocks and (each or len(blocks) <= FEW_ADDRESSES):
            return NamedEnd(str(Outside(addresses[0])), CidrEnd(blocks))
        case Anybody():
            return NamedEnd("outside", OutsideEnd())


_Listed = tuple[tuple[str, frozenset[str]], ...]
"""A query as labels, each with the values of which it has to have one."""


def joined(queries: Sequence[Query]) -> Query:
    """One query for whoever satisfies any: those that differ in one label's values become one."""
    listed, others = list[_Listed](), list[Query]()
    for query in queries:
        parts = query.queries if isinstance(query, And) else (query,)
        told = tuple(
            (one.key, frozenset(one.values))
            for one in parts
            if isinstance(one, Compare) and one.operator in (Operator.EQ, Operator.IN)
        )
        if len(told) == len(parts):
            listed.append(told)
        else:
            others.append(query)
    for back in range(max(map(len, listed), default=0)):
        listed = _merged(listed, back + 1)
    everything = sorted((*map(_query, listed), *others), key=str)
    return everything[0] if len(everything) == 1 else Or(tuple(everything))


def _merged(listed: Sequence[_Listed], back: int) -> list[_Listed]:
    """Those that differ in nothing but the values of a label, so far from the end, as one."""
    found: dict[_Listed, frozenset[str]] = {}
    for one in listed:
        place = len(one) - back
        values = one[place][1] if place >= 0 else frozenset[str]()
        rest = tuple(
            (key, frozenset[str]() if at == place else its) for at, (key, its) in enumerate(one)
        )
        found[rest] = found.get(rest, frozenset()) | values
    return [tuple((key, its or some) for key, its in rest) for rest, some in found.items()]


def _query(listed: _Listed) -> Query:
    each = [
        Compare(key, Operator.EQ if len(values) == 1 else Operator.IN, tuple(sorted(values)))
        for key, values in listed
    ]
    return each[0] if len(each) == 1 else And(tuple(each))


def query_of(peer: Peer) -> Query | None:
    """What is true of a peer's workloads alone; None of hosts outside and Services."""
    match peer:
        case Role(cluster):
            return cluster.query
        case Nodes(cluster_id):
            return _nodes_query(cluster_id)
        case _:
            return None


def namespace_query(cluster: ClusterId, namespace: str) -> Query:
    """What is true of everybody in a namespace of a Kubernetes cluster."""
    within = [Compare(labels.NAMESPACE, Operator.EQ, (namespace,))]
    if cluster:
        within.insert(0, Compare(labels.CLUSTER, Operator.EQ, (cluster,)))
    return And(tuple(within))


def _nodes_query(cluster: ClusterId) -> Query:
    kind = Compare(labels.KIND, Operator.EQ, (ItemKind.NODE.value,))
    if not cluster:
        return kind
    return And((kind, Compare(labels.CLUSTER, Operator.EQ, (cluster,))))
