"""What is worth knowing about a scope tree over an inventory: overlaps and divided clusters.

Neither is an error. Who belongs to a scope is decided by labels, which change without anybody
editing the tree, and the order of policies stays well defined; so both are told, and not refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ClusterId, ScopeName
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.ends import members


@dataclass(frozen=True)
class Overlap:
    """Two siblings with workloads in common, in the order of the tree; positions.

    Of absolute policies those of `first` are read first, of default ones and catch-alls those of
    `second`.
    """

    first: ScopeName
    second: ScopeName
    workloads: BitMap


@dataclass(frozen=True, slots=True)
class DividedCluster:
    """A Kubernetes cluster of which unrelated scopes hold parts.

    `home` is the scope that holds all of it, None where there is none; each of `scopes` holds
    some, and is neither above nor below `home`, or without one, the others.
    """

    cluster: ClusterId
    home: ScopeName | None
    scopes: tuple[ScopeName, ...]

    def __str__(self) -> str:
        """What is wrong and what to do."""
        parts = ", ".join(self.scopes)
        if self.home is None:
            return (
                f"Kubernetes cluster {self.cluster!r} is divided among unrelated scopes ({parts}): "
                "give it one scope, of its own or shared with other Kubernetes clusters, and put "
                "these below it"
            )
        return (
            f"Kubernetes cluster {self.cluster!r} belongs to scope {self.home!r}, but {parts} "
            f"beside it holds a part: put it below {self.home!r}"
        )


def overlaps(snapshot: Snapshot, tree: ScopeTree) -> list[Overlap]:
    """Every two siblings that share workloads, in pre-order."""
    siblings: dict[ScopeName | None, list[tuple[ScopeName, BitMap]]] = {}
    for scope in tree.preorder():
        held = members(tree, snapshot, scope.name)
        siblings.setdefault(scope.parent, []).append((scope.name, held))
    return [
        Overlap(first, second, ours & theirs)
        for family in siblings.values()
        for (first, ours), (second, theirs) in combinations(family, 2)
        if ours.intersect(theirs)
    ]


def divided_clusters(snapshot: Snapshot, tree: ScopeTree) -> list[DividedCluster]:
    """The Kubernetes clusters that unrelated scopes hold parts of, by id.

    Applications of one Kubernetes cluster may have scopes of their own below the one that holds
    all of it, which several Kubernetes clusters may share. A root that matches everything is no
    such scope, unless there is nothing but this Kubernetes cluster.
    """
    clusters: dict[ClusterId, BitMap] = {}
    for position in snapshot.subjects:
        clusters.setdefault(snapshot.items[position].cluster, BitMap()).add(position)
    held = {scope.name: members(tree, snapshot, scope.name) for scope in tree.preorder()}
    alone = len(clusters) == 1
    found = []
    for cluster, workloads in sorted(clusters.items()):
        if not cluster:
            continue
        homes = (
            scope
            for scope in tree.preorder()
            if workloads <= held[scope.name] and (alone or not _is_all(scope))
        )
        home = next(homes, None)
        parts = [
            scope
            for scope in tree.preorder()
            if not _is_all(scope) and held[scope.name].intersect(workloads)
        ]
        apart = tuple(_apart(tree, home, parts))
        if apart:
            found.append(DividedCluster(cluster, home.name if home else None, apart))
    return found


def _is_all(scope: Scope) -> bool:
    return scope.parent is None and isinstance(scope.query, Everything)


def _apart(tree: ScopeTree, home: Scope | None, parts: list[Scope]) -> Iterator[ScopeName]:
    """The topmost parts that are neither above nor below home; without one, if there are two."""
    above = set(tree.path(home.name)) if home else set()
    apart = [
        part
        for part in parts
        if part not in above and (home is None or home not in tree.path(part.name))
    ]
    topmost = [part.name for part in apart if not set(tree.path(part.name)[:-1]) & set(apart)]
    if home or len(topmost) > 1:
        yield from topmost
