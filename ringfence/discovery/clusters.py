"""A name and a readable query for each workload, checked to select exactly its pods."""

import re
from collections.abc import Iterable, Iterator

from pyroaring import BitMap

from ringfence.discovery.edges import Owner
from ringfence.inventory.snapshot import Snapshot
from ringfence.model import labels
from ringfence.model.policy import Cluster
from ringfence.model.query import And, Compare, Operator, Query
from ringfence.model.workload import Item, ItemKind

_PREFERRED = ("name", "app.kubernetes.io/name", "app", "k8s-app", "component")
"""The labels by which people tell workloads apart, the first that does is taken."""
_GENERATED = re.compile(r"hash|revision|generation|statefulset\.kubernetes\.io|controller-uid")


class Clusters:
    """The clusters of every workload among some positions of an inventory."""

    def __init__(self, snapshot: Snapshot, members: Iterable[int]) -> None:
        self._snapshot = snapshot
        self._pods: dict[Owner, BitMap] = {}
        for position in members:
            item = snapshot.items[position]
            if item.kind is not ItemKind.NODE:
                self._pods.setdefault(owner_of(item), BitMap()).add(position)
        plain = [owner.name for owner in self._pods]
        self._names = {
            owner: owner.name
            if plain.count(owner.name) == 1
            else "-".join(part for part in (owner.cluster, owner.namespace, owner.name) if part)
            for owner in self._pods
        }

    def __contains__(self, owner: object) -> bool:
        """Whether the workload is among the members."""
        return owner in self._pods

    def __iter__(self) -> Iterator[Owner]:
        """Every workload, sorted."""
        return iter(sorted(self._pods))

    def name(self, owner: Owner) -> str:
        """The cluster's name: the workload's, made longer where two would share it."""
        return self._names[owner]

    def cluster(self, owner: Owner) -> Cluster:
        """The workload's cluster."""
        return Cluster(self.name(owner), self._query(owner))

    def probe_ports(self, owner: Owner) -> list[tuple[int, int]]:
        """The (protocol, port) pairs that the kubelet dials at the workload's pods, sorted."""
        items = (self._snapshot.items[position] for position in self._pods[owner])
        return sorted({probe for item in items for probe in item.probe_ports})

    def _query(self, owner: Owner) -> Query:
        pods = self._pods[owner]
        first = self._snapshot.items[pods.min()]
        within = _within(owner)
        for key in _candidates(first):
            (value,) = first.labels[key]
            query = And((*within, Compare(key, Operator.EQ, (value,))))
            if self._snapshot.select(query) & self._snapshot.workloads == pods:
                return query
        return owner_query(owner)


def owner_of(item: Item) -> Owner:
    """The workload that a pod or a host is one of."""
    return Owner(item.cluster, item.namespace, item.workload_name or item.name)


def owner_query(owner: Owner) -> Query:
    """A query by the owner's name, or the item's own where it has no owner."""
    owned = Compare(labels.OWNER_NAME, Operator.EQ, (owner.name,))
    return And((*_within(owner), owned))


def _within(owner: Owner) -> tuple[Query, ...]:
    if not owner.namespace:
        return (Compare(labels.NAME, Operator.EQ, (owner.name,)),)
    return (Compare(labels.NAMESPACE, Operator.EQ, (owner.namespace,)),)


def _candidates(item: Item) -> list[str]:
    """The item's own Kubernetes labels, the telling ones first, and its owner's name last."""
    own = [
        key
        for key, values in item.labels.items()
        if key.startswith(labels.LABEL_PREFIX) and len(values) == 1 and not _GENERATED.search(key)
    ]
    preferred = [labels.LABEL_PREFIX + name for name in _PREFERRED]
    last = [key for key in (labels.OWNER_NAME, labels.NAME) if len(item.labels.get(key, ())) == 1]
    return [
        *(key for key in preferred if key in own),
        *sorted(set(own) - set(preferred)),
        *last,
    ]
