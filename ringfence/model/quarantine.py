"""Quarantines: workloads cut off at once, ahead of every policy, until somebody lifts it."""

from dataclasses import dataclass

from ringfence.model.ids import ClusterId, WorkspaceName
from ringfence.model.query import Query

QUARANTINE = WorkspaceName("quarantine")
"""The workspace that decisions of quarantines name. People's workspaces are called otherwise."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Nothing passes to or from the workloads of `query` but what `allow` says.

    `workload` is as people name it: `namespace/name` of a pod or of what owns pods, the name of a
    node or host. `allow` has words of `policy.quarantine`. Times are epoch ns; `expires_ns` None
    means never.
    """

    kubernetes_cluster: ClusterId
    workload: str
    query: Query
    allow: tuple[str, ...]
    reason: str
    actor: str
    since_ns: int
    expires_ns: int | None = None

    @property
    def name(self) -> str:
        """The workload with its Kubernetes cluster, if it is in one."""
        cluster = self.kubernetes_cluster
        return f"{cluster}/{self.workload}" if cluster else self.workload
