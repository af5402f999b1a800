"""Which pods wait for their rules: those of scopes whose enforced workspace says `newPods: closed`.

A node knows of a new pod only its address, until its container runtime and then the control plane
tell more. So where one scope is closed, every new pod of the cluster's nodes waits: for the word
that it is in no namespace of such a scope, that the inventory knows it and no closed workspace
governs it, or that its rules are in force.
"""

from collections import defaultdict
from collections.abc import Iterator

from pyroaring import BitMap

from ringfence.model import labels
from ringfence.model.ids import ClusterId, ScopeName
from ringfence.model.policy import NewPods
from ringfence.model.query import confined
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.ends import members
from ringfence.policy.order import PolicySet
from ringfence.policy.program import Gate


class Gates:
    """The gate of each node."""

    def __init__(self, policy_set: PolicySet) -> None:
        tree, snapshot = policy_set.tree, policy_set.snapshot
        scopes = {w.scope for w, _ in policy_set.enforced if w.new_pods is NewPods.CLOSED}
        self._queries = {scope: tree.full_query(scope) for scope in sorted(scopes)}
        waits = BitMap.union(BitMap(), *(members(tree, snapshot, scope) for scope in scopes))
        self._free: dict[tuple[ClusterId, str], list[str]] = defaultdict(list)
        for at in snapshot.subjects - waits if scopes else ():
            item = snapshot.items[at]
            if item.kind is ItemKind.POD and item.addresses:
                self._free[item.cluster, item.node].append(item.key.rpartition("/")[2])

    @property
    def everywhere(self) -> Iterator[ScopeName]:
        """The closed scopes that may have pods of any namespace."""
        for scope, query in self._queries.items():
            if confined(query, labels.NAMESPACE) is None:
                yield scope

    def wanted(self, node: Item) -> bool:
        """Whether pods of a node may have to wait."""
        clusters = [confined(query, labels.CLUSTER) for query in self._queries.values()]
        some = any(held is None or node.cluster in held for held in clusters)
        return node.kind is ItemKind.NODE and some

    def of(self, node: Item) -> Gate | None:
        """What stands before a node's pods; None too where nobody knows their addresses."""
        if not self.wanted(node) or not node.pod_networks:
            return None
        places = [confined(query, labels.NAMESPACE) for query in self._queries.values()]
        known = [held for held in places if held is not None]
        return Gate(
            networks=node.pod_networks,
            namespaces=tuple(sorted(set().union(*known))) if len(known) == len(places) else None,
            free=tuple(sorted(self._free[node.cluster, node.name])),
        )
