"""What connections are judged by: the enforced set, with other versions in place of its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pyroaring import BitMap
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.policies import load_enforced, load_tree, load_version
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ClusterId, TenantId, Version, WorkspaceName
from ringfence.model.quarantine import Quarantine
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import ItemKind
from ringfence.policy.ends import members
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.held import held_in
from ringfence.policy.kubernetes.imported import ImportedWorkspace
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.layer import RuleLayer
from ringfence.policy.moment import Moment
from ringfence.policy.order import Enforced, PolicySet
from ringfence.store.relational.kubernetes import enforced_clusters
from ringfence.store.relational.quarantines import load_quarantines

Named = tuple[WorkspaceName, Version | None]
"""A version of a workspace, the latest for None."""


@dataclass(frozen=True, slots=True)
class JudgedBy:
    """Versions of workspaces and the quarantines: all that makes layers of an inventory.

    `live` are the Kubernetes clusters of which the own policies are enforced as they stand there.
    """

    tree: ScopeTree
    workspaces: tuple[Enforced, ...]
    imported: tuple[tuple[ImportedWorkspace, Version], ...] = ()
    quarantines: tuple[Quarantine, ...] = ()
    live: tuple[ClusterId, ...] = ()

    def ringfence(self, snapshot: Snapshot, moment: Moment) -> PolicySet:
        """The Ringfence layer."""
        return PolicySet(snapshot, self.tree, self.workspaces, moment, self.quarantines)

    def kubernetes(self, snapshot: Snapshot) -> Iterator[KubernetesLayer]:
        """A layer for each workspace of imported policies, in place of those that are enforced."""
        for workspace, version in self.imported:
            cluster = LiveCluster(snapshot, workspace.cluster)
            policies = (one.policy for one in workspace.policies)
            yield KubernetesLayer(cluster, policies, (workspace.name, version))
        replaced = {workspace.cluster for workspace, _ in self.imported}
        for name in self.live:
            if name not in replaced:
                yield live_layer(snapshot, name)

    def layers(self, snapshot: Snapshot, moment: Moment) -> list[RuleLayer]:
        """All layers; an end allows only if each of them that governs it does."""
        return [self.ringfence(snapshot, moment), *self.kubernetes(snapshot)]

    def begun(self, at_ns: int) -> "JudgedBy":
        """The same without the quarantines that came later.

        Not for what holds now: those hold whatever the clock says, for it may be set back.
        """
        apart = tuple(one for one in self.quarantines if one.since_ns <= at_ns)
        return replace(self, quarantines=apart)

    def version(self, name: WorkspaceName) -> Version:
        """Which version of a workspace of these it is."""
        versions = {one.name: number for one, number in self.workspaces}
        return (versions | {one.name: number for one, number in self.imported})[name]

    def within(self, snapshot: Snapshot, name: WorkspaceName) -> BitMap:
        """The positions of the workloads that a workspace of these governs."""
        for workspace, _ in self.imported:
            if workspace.name == name:
                return BitMap(
                    at
                    for at in snapshot.subjects
                    if snapshot.items[at].kind is ItemKind.POD
                    and snapshot.items[at].cluster == workspace.cluster
                )
        (scope,) = (one.scope for one, _ in self.workspaces if one.name == name)
        return members(self.tree, snapshot, scope)


def live_layer(snapshot: Snapshot, cluster: ClusterId) -> KubernetesLayer:
    """The policies of a Kubernetes cluster as the inventory has them."""
    policies = (one.policy for one in held_in(snapshot, cluster))
    return KubernetesLayer(LiveCluster(snapshot, cluster), policies)


async def load_judged_by(
    connection: AsyncConnection,
    tenant: TenantId,
    wanted: Iterable[Named] = (),
    *,
    enforced: Iterable[Enforced] | None = None,
) -> JudgedBy:
    """The enforced set, or another one, with these versions in place of their workspaces' own.

    Raises NotFoundError.
    """
    if enforced is None:
        enforced = await load_enforced(connection, tenant)
    workspaces = {one.name: (one, number) for one, number in enforced}
    imported: dict[WorkspaceName, tuple[ImportedWorkspace, Version]] = {}
    for name, version in wanted:
        found, number = await load_version(connection, tenant, name, version)
        if isinstance(found, ImportedWorkspace):
            imported[name] = found, number
        else:
            workspaces[name] = found, number
    return JudgedBy(
        # A quarantine alone needs no scopes, and must not fail for them.
        await load_tree(connection, tenant) if workspaces else ScopeTree(()),
        tuple(workspaces.values()),
        tuple(imported.values()),
        tuple(await load_quarantines(connection, tenant)),
        await enforced_clusters(connection, tenant),
    )
