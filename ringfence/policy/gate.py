"""Which pods wait for their rules: those of scopes whose enforced workspace says `newPods: closed`.

A node knows of a new pod only its address, until its container runtime and then the control plane
tell more. So where one scope is closed, every new pod of the cluster's nodes waits: for the word
that it is in no namespace of such a scope, that the inventory knows it and no closed workspace
governs it, or that its rules are in force.
"""

from collections.abc import Iterable, Iterator

from ringfence.model import labels
from ringfence.model.policy import NewPods
from ringfence.model.query import confined, matches
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.order import Enforced
from ringfence.policy.program import Gate


class Gates:
    """The gate of each node, as the enforced workspaces have it."""

    def __init__(self, tree: ScopeTree, enforced: Iterable[Enforced]) -> None:
        scopes = {w.scope for w, _ in enforced if w.new_pods is NewPods.CLOSED}
        self._queries = {scope: tree.full_query(scope) for scope in sorted(scopes)}

    def __bool__(self) -> bool:
        """Whether any scope is closed."""
        return bool(self._queries)

    def of(self, node: Item, pods: Iterable[Item]) -> Gate | None:
        """What stands before a node's pods; None too where nobody knows their addresses."""
        if not self._wanted(node) or not node.pod_networks:
            return None
        places = [confined(query, labels.NAMESPACE) for query in self._queries.values()]
        known = [held for held in places if held is not None]
        free = (
            pod.key.rpartition("/")[2]
            for pod in pods
            if pod.addresses and not pod.host_network and not self._waits(pod)
        )
        return Gate(
            networks=node.pod_networks,
            namespaces=tuple(sorted(set().union(*known))) if len(known) == len(places) else None,
            free=tuple(sorted(free)),
        )

    def notes(self) -> Iterator[str]:
        """One line for each closed scope that may have pods of any namespace."""
        for scope, query in self._queries.items():
            if confined(query, labels.NAMESPACE) is None:
                yield (
                    f"newPods: closed of scope {scope} holds back every new pod until the control"
                    " plane knows it: name the scope's namespaces in its query to spare all others"
                )

    def note(self, node: Item) -> str:
        """Why new pods of a node cannot be told from others; empty if they can, or need not be."""
        if not self._wanted(node) or node.pod_networks:
            return ""
        return (
            f"newPods: closed does not hold on node {node.name}: its Node object has no podCIDRs,"
            " by which packets of its pods are known"
        )

    def _wanted(self, node: Item) -> bool:
        """Whether pods of a node may have to wait."""
        clusters = [confined(query, labels.CLUSTER) for query in self._queries.values()]
        some = any(held is None or node.cluster in held for held in clusters)
        return node.kind is ItemKind.NODE and some

    def _waits(self, pod: Item) -> bool:
        return any(matches(query, pod.labels) for query in self._queries.values())
