"""Which change of what is enforced is on trial, if one is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ClusterId, NodeName, TenantId
from ringfence.store.relational.tables import trials as held


@dataclass(frozen=True, slots=True)
class Trial:
    """An enforced set that gives way to the one before unless it is kept, at `until_ns`.

    `revision` and `previous` are the two sets'. A staged one is in force at its `nodes` alone, and
    kept if no more than `threshold` of their conversations are dropped unforeseen, 0.01 for 1 %;
    one of all nodes (None) is kept if somebody confirms it.

    With a `cluster`, it is whether the policies of that Kubernetes cluster are enforced that is on
    trial, of all nodes; both revisions are that of the set as the trial began.
    """

    revision: int
    previous: int
    began_ns: int
    until_ns: int
    nodes: tuple[tuple[ClusterId, NodeName], ...] | None = None
    threshold: float | None = None
    cluster: ClusterId | None = None

    @property
    def what(self) -> str:
        """What is on trial, as people are told."""
        if self.cluster is None:
            return f"revision {self.revision}"
        return f"the change for Kubernetes cluster {self.cluster}"


async def load_trial(connection: AsyncConnection, tenant: TenantId) -> Trial | None:
    """The trial under way."""
    row = (await connection.execute(select(held).where(held.c.tenant == tenant))).one_or_none()
    if row is None:
        return None
    cluster = None if row.kubernetes_cluster is None else ClusterId(row.kubernetes_cluster)
    nodes = _nodes(row.nodes)
    times = row.began_ns, row.until_ns
    return Trial(row.revision, row.previous, *times, nodes, row.threshold, cluster)


def _nodes(stored: Sequence[Sequence[str]] | None) -> tuple[tuple[ClusterId, NodeName], ...] | None:
    if stored is None:
        return None
    return tuple((ClusterId(cluster), NodeName(node)) for cluster, node in stored)


async def begin_trial(connection: AsyncConnection, tenant: TenantId, trial: Trial) -> None:
    """Begin one; fails where another is under way (StaleError)."""
    await connection.execute(
        insert(held).values(
            tenant=tenant,
            revision=trial.revision,
            previous=trial.previous,
            began_ns=trial.began_ns,
            until_ns=trial.until_ns,
            nodes=None if trial.nodes is None else [list(node) for node in trial.nodes],
            threshold=trial.threshold,
            kubernetes_cluster=trial.cluster,
        )
    )


async def end_trial(connection: AsyncConnection, tenant: TenantId) -> None:
    """End the one under way, if one is."""
    await connection.execute(delete(held).where(held.c.tenant == tenant))
