"""For whom a core service's policy is: everybody of a scope, and whoever else comes to it there."""

from dataclasses import replace

from pyroaring import BitMap

from ringfence.discovery.behaviour import Numbers
from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import NamedEnd, joined
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Nodes, OwnNode, Peer
from ringfence.discovery.roles import Role
from ringfence.model import labels
from ringfence.model.ids import ClusterId, ScopeName
from ringfence.model.policy import FilterEnd, ScopeEnd
from ringfence.model.query import Compare, Everything, Operator


class Users:
    """Of core services that everybody uses, whose edges these are."""

    def __init__(self, observed: Observed, edges: Numbers) -> None:
        self._snapshot = observed.peers.snapshot
        self._ends: dict[int, tuple[BitMap, BitMap]] = {}
        for edge in edges.tolist():
            consumer, provider = (
                observed.peers[int(end[edge])] for end in (observed.consumer, observed.provider)
            )
            served = self._workloads(provider)
            asked = self._nodes(served) if consumer == OwnNode() else self._workloads(consumer)
            self._ends[edge] = asked, served

    def of(self, draft: Draft, scope: ScopeName, members: BitMap) -> Draft:
        """The draft as a policy of this scope, with the edges that it is for there.

        Where the scope holds the provider and others asked it, it is for the Kubernetes clusters of
        all of them: who has not asked yet may do so tomorrow.
        """
        asked = BitMap.union(BitMap(), *(a for a, at in self._ends.values() if at & members))
        if not asked <= members:
            items = self._snapshot.items
            clusters = {items[at].cluster for at in asked | (members & self._snapshot.subjects)}
            return replace(draft, consumer=_of_clusters(clusters))
        edges = frozenset(edge for edge in draft.edges if self._ends[edge][0] & members)
        return replace(draft, consumer=NamedEnd(scope, ScopeEnd(scope)), edges=edges)

    def _workloads(self, peer: Peer) -> BitMap:
        match peer:
            case Role():
                return peer.members
            case Nodes(cluster):
                return self._of(cluster)
            case _:
                return BitMap()

    def _nodes(self, workloads: BitMap) -> BitMap:
        clusters = {self._snapshot.items[at].cluster for at in workloads}
        return BitMap.union(BitMap(), *map(self._of, clusters))

    def _of(self, cluster: ClusterId) -> BitMap:
        items = self._snapshot.items
        return BitMap(at for at in self._snapshot.nodes if items[at].cluster == cluster)


def _of_clusters(clusters: set[ClusterId]) -> NamedEnd:
    """Everybody in some Kubernetes clusters; everybody at all where somebody is in none."""
    if not all(clusters):
        return NamedEnd("everybody", FilterEnd(Everything()))
    each = [Compare(labels.CLUSTER, Operator.EQ, (one,)) for one in sorted(clusters)]
    return NamedEnd("everybody", FilterEnd(joined(each)))
