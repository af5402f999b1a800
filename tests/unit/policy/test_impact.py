"""What an edit of the scope tree does, and what there is to know about a tree."""

from dataclasses import replace

import pytest
from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, RevisionId, ScopeName, Version, item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import ContainerPort, Item, ItemKind
from ringfence.policy.document import parse_documents
from ringfence.policy.impact import Impact, impact
from ringfence.policy.order import PolicySet
from ringfence.policy.scope_checks import divided_clusters, overlaps

DOCUMENTS = """
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: carts}
spec:
  scope: carts
  catchAll: {inbound: DENY, outbound: ALLOW}
  policies:
  - {id: from-web, action: ALLOW, consumer: {filter: 'kubernetes.label.app = "web"'},
     provider: {scope: carts}, protocol: TCP, ports: [80]}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: web}
spec:
  scope: web
  catchAll: {inbound: ALLOW, outbound: ALLOW}
"""
ENFORCED = [(one, Version(1)) for one in parse_documents(DOCUMENTS, "test").workspaces]


def pod(cluster: str, app: str, number: int) -> Item:
    labels = [("kubernetes.cluster", cluster), ("kubernetes.label.app", app)]
    name = f"{app}-{cluster}"
    key = item_key(ClusterId(cluster), ItemKind.POD, name)
    address = parse_address(f"10.0.0.{number}")
    return Item(
        key, ItemKind.POD, ClusterId(cluster), "", name, (address,), make_labels(labels)
    )  # fmt: skip


PODS = [pod("east", "carts", 1), pod("east", "web", 2), pod("west", "carts", 3)]
SNAPSHOT = Snapshot((RevisionId(number), one) for number, one in enumerate(PODS, 1))


def tree(*scopes: tuple[str, str | None, str]) -> ScopeTree:
    return ScopeTree(
        Scope(ScopeName(name), ScopeName(parent) if parent else None, parse(query), order)
        for order, (name, parent, query) in enumerate(scopes)
    )


ALL = ("all", None, "everything")
CARTS, WEB = (
    ("carts", "all", 'kubernetes.label.app = "carts"'),
    ("web", "all", 'kubernetes.label.app = "web"'),
)


def names(positions: BitMap) -> list[str]:
    return [SNAPSHOT.items[position].name for position in positions]


def edit(old: ScopeTree, new: ScopeTree) -> Impact:
    return impact(*(PolicySet(SNAPSHOT, one, ENFORCED) for one in (old, new)))


def test_moves_rules_and_workloads_of_an_edit() -> None:
    both = ("web", "all", 'kubernetes.cluster = "east"')
    found = edit(tree(ALL, CARTS, WEB), tree(ALL, CARTS, both))
    (move,) = found.moves
    assert (move.left, move.joined, names(move.workloads)) == ((), ("web",), ["carts-east"])
    assert found.workspaces == ("web",)
    assert names(found.workloads) == ["carts-east"]
    assert {change.decision.policy for change in found.rules} == {None}

    fewer = ("carts", "all", 'kubernetes.label.app = "carts" and kubernetes.cluster = "east"')
    found = edit(tree(ALL, CARTS, WEB), tree(ALL, fewer, WEB))
    (change,) = [one for one in found.rules if one.decision.policy]
    assert change.decision.policy == "from-web"
    assert [names(one) for one in (change.gained, change.lost, change.altered)] == [
        [], ["carts-west"], ["carts-east"]
    ]  # fmt: skip
    assert found.moves[0].left == ("carts",)


def test_each_part_of_a_policy_counts() -> None:
    """A port's name is one part of a policy for each number that it has."""
    text = DOCUMENTS.replace("ports: [80]", "ports: [http]")
    enforced = [(one, Version(1)) for one in parse_documents(text, "test").workspaces]
    http = {"carts-east": 80, "carts-west": 8080}
    items = [
        replace(one, containers=(ContainerPort("http", TCP, http[one.name]),))
        if one.name in http else one for one in PODS
    ]  # fmt: skip
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    west = ("carts", "all", 'kubernetes.label.app = "carts" and kubernetes.cluster = "west"')
    wide, narrow = (PolicySet(snapshot, tree(ALL, carts, WEB), enforced) for carts in (CARTS, west))
    for before, after in ((wide, narrow), (narrow, wide)):
        (change,) = [one for one in impact(before, after).rules if one.decision.policy]
        gone, here = (
            (change.lost, change.gained) if before is wide else (change.gained, change.lost)
        )
        assert (names(gone), names(here)) == (["carts-east"], [])


def test_siblings_that_change_places() -> None:
    both = ("web", "all", 'kubernetes.cluster = "east"')
    found = edit(tree(ALL, CARTS, both), tree(ALL, both, CARTS))
    assert not found.moves
    assert not found.rules
    (swap,) = found.swaps
    assert (swap.first, swap.second, names(swap.workloads)) == ("web", "carts", ["carts-east"])
    assert found.workspaces == ("carts", "web")
    # Without a workload in common nobody can tell which one comes first.
    apart = edit(tree(ALL, CARTS, WEB), tree(ALL, WEB, CARTS))
    assert not apart.swaps


def test_overlaps_are_told_in_the_order_of_the_tree() -> None:
    east = ("east", "all", 'kubernetes.cluster = "east"')
    (one,) = overlaps(SNAPSHOT, tree(ALL, east, CARTS))
    assert (one.first, one.second, names(one.workloads)) == ("east", "carts", ["carts-east"])
    assert overlaps(SNAPSHOT, tree(ALL, CARTS, WEB)) == []


EAST = ("east", "all", 'kubernetes.cluster = "east"')
WEST = ("west", "all", 'kubernetes.cluster = "west"')
KUBERNETES = ("kubernetes", "all", "kubernetes.cluster exists")


@pytest.mark.parametrize(
    ("scopes", "divided"),
    [
        ((ALL, EAST, WEST), []),
        ((ALL, KUBERNETES), []),
        ((("kubernetes", None, KUBERNETES[2]),), []),
        ((ALL, EAST, ("shop", "east", 'kubernetes.label.app = "carts"')), []),
        ((ALL, KUBERNETES, ("carts", "kubernetes", CARTS[2]), ("web", "kubernetes", WEB[2])), []),
        ((ALL, CARTS, WEB), [("east", None, ("carts", "web"))]),
        ((ALL, EAST, CARTS), [("east", "east", ("carts",))]),
        ((ALL, EAST, CARTS, ("more", "carts", "everything")), [("east", "east", ("carts",))]),
    ],
)
def test_kubernetes_clusters_that_unrelated_scopes_divide(
    scopes: tuple[tuple[str, str | None, str], ...], divided: list[object]
) -> None:
    found = divided_clusters(SNAPSHOT, tree(*scopes))
    assert [(one.cluster, one.home, one.scopes) for one in found] == divided


def test_a_root_is_the_scope_of_the_only_kubernetes_cluster() -> None:
    east = Snapshot((RevisionId(number), one) for number, one in enumerate(PODS[:2], 1))
    assert divided_clusters(east, tree(ALL, CARTS, WEB)) == []
