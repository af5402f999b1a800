"""How long the preview of a scope edit takes, for 10,000 workloads.

    .venv/bin/python -m bench.impact

Two Kubernetes clusters with 50 nodes and 4,950 pods each, in 100 namespaces of 20 teams; a scope
for everything, each cluster, its nodes, each team and each namespace, 4 deep; an enforced workspace
with 20 policies for each namespace. The edit takes a namespace from one team to another, which
moves workloads, changes policies that name the team's scope, and changes places. Overlaps and
divided clusters are looked for as well, as a preview does.
"""

import random
import statistics
import time

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import (
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    Action,
    CatchAll,
    End,
    FilterEnd,
    Policy,
    ScopeEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.impact import Impact, impact
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.scope_checks import divided_clusters, overlaps

WORKLOADS = 10_000
CLUSTERS = ("east", "west")
NODES, NAMESPACES, TEAMS, APPS, POLICIES = 50, 100, 20, 10, 20
TARGET_S = 1.0
RUNS = 5


def main() -> None:
    print(f"{'FIGURE':<60}{'TARGET':>12}  MEASURED")
    old, new, bound = tree(0), tree(1), workspaces(random.Random(1))
    policies = sum(len(workspace.policies) for workspace, _ in bound)
    print(f"{len(old.preorder())} scopes, {len(bound)} workspaces, {policies} policies")
    first: list[float] = []
    later: list[float] = []
    for _ in range(RUNS):
        snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items(), 1))
        for times in (first, later):
            begun = time.perf_counter()
            found = preview(snapshot, old, new, bound)
            times.append(time.perf_counter() - begun)
    for what, times in (("first of an inventory", first), ("again", later)):
        median = statistics.median(times)
        missed = "" if median <= TARGET_S else "  MISSED"
        title = f"preview of a scope edit, {WORKLOADS} workloads, {what}"
        print(f"{title:<60}{f'≤ {TARGET_S:.0f} s':>12}  {median:.2f} s{missed}")
    print(f"{len(found.workloads)} workloads and {len(found.rules)} rules touched")


def preview(snapshot: Snapshot, old: ScopeTree, new: ScopeTree, bound: list[Enforced]) -> Impact:
    found = impact(*(PolicySet(snapshot, one, bound) for one in (old, new)))
    overlaps(snapshot, new)
    divided_clusters(snapshot, new)
    return found


def items() -> list[Item]:
    made = []
    for number in range(WORKLOADS):
        cluster = ClusterId(CLUSTERS[number % 2])
        place = number // 2
        kind = ItemKind.NODE if place < NODES else ItemKind.POD
        namespace = "" if kind is ItemKind.NODE else f"ns{place % NAMESPACES}"
        name = f"{kind}-{place}"
        labels = {"kind": kind, "name": name, "kubernetes.cluster": cluster}
        if namespace:
            labels |= {
                "kubernetes.namespace": namespace,
                "kubernetes.namespace.label.team": f"t{place % NAMESPACES % TEAMS}",
                "kubernetes.label.app": f"app{place // NAMESPACES % APPS}",
            }
        made.append(
            Item(
                item_key(cluster, kind, name),
                kind,
                cluster,
                namespace,
                name,
                (Address(b"\0" * 10 + b"\xff\xff\x0a" + number.to_bytes(3)),),
                make_labels(labels.items()),
                node=f"node-{place % NODES}" if namespace else "",
            )
        )
    return made


def tree(moved: int) -> ScopeTree:
    """The tree, with namespace 0 of `east` under the team after its own if moved."""
    scopes = [Scope(ScopeName("all"), None, parse("everything"))]

    def add(name: str, parent: str, query: str, order: int) -> None:
        scopes.append(Scope(ScopeName(name), ScopeName(parent), parse(query), order))

    for cluster in CLUSTERS:
        add(cluster, "all", f'kubernetes.cluster = "{cluster}"', 0)
        add(f"{cluster}-nodes", cluster, 'kind = "node"', 0)
        taken = 'kubernetes.namespace = "ns0"' if moved and cluster == "east" else "not everything"
        for team in range(TEAMS):
            query = f'kubernetes.namespace.label.team = "t{team}"'
            if team == 0:
                query += f" and not ({taken})"
            elif team == 1:
                query += f" or {taken}"
            add(f"{cluster}-t{team}", cluster, query, team)
        for space in range(NAMESPACES):
            team = 1 if moved and cluster == "east" and space == 0 else space % TEAMS
            name = f"{cluster}-ns{space}"
            add(name, f"{cluster}-t{team}", f'kubernetes.namespace = "ns{space}"', space)
    return ScopeTree(scopes)


def workspaces(chance: random.Random) -> list[Enforced]:
    return [
        (workspace(f"{cluster}-ns{space}", cluster, space, chance), Version(1))
        for cluster in CLUSTERS
        for space in range(NAMESPACES)
    ]


def workspace(scope: str, cluster: str, space: int, chance: random.Random) -> Workspace:
    def app(namespace: int) -> End:
        name = chance.randrange(APPS)
        return FilterEnd(
            parse(
                f'kubernetes.cluster = "{cluster}" and kubernetes.namespace = "ns{namespace}"'
                f' and kubernetes.label.app = "app{name}"'
            )
        )

    def policy(number: int) -> Policy:
        team = ScopeEnd(ScopeName(f"{cluster}-t{chance.randrange(TEAMS)}"))
        consumer = team if number == 0 else app(chance.randrange(NAMESPACES))
        port = PortRange(number + 1, number + 1)
        return Policy(
            PolicyId(f"p{number}"), consumer, app(space), TCP, (port,), Action.ALLOW
        )  # fmt: skip

    policies = tuple(policy(number) for number in range(POLICIES))
    catch_all = CatchAll(Action.DENY, Action.DENY)
    return Workspace(WorkspaceName(scope), ScopeName(scope), True, catch_all, (), policies)


if __name__ == "__main__":
    main()
