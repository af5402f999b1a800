"""What connections are judged by: the enforced set, with other versions in place of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ClusterId, Version, WorkspaceName
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
