"""Which change of the enforced set is on trial, if one is."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ClusterId, NodeName, TenantId
from ringfence.store.relational.tables import trials as held


@dataclass(frozen=True, slots=True)
class Trial:
    """An enforced set that gives way to the one before unless it is kept, at `until_ns`.

    `revision` and `previous` are the two sets'; it began when the former was enforced. A staged one
    is in force at its `nodes` alone, and kept if no more than `threshold` of their conversations
    are dropped unforeseen, 0.01 for 1 %; one of all nodes (None) is kept if somebody confirms it.
    """

    revision: int
    previous: int
    until_ns: int
    nodes: tuple[tuple[ClusterId, NodeName], ...] | None = None
    threshold: float | None = None


async def load_trial(connection: AsyncConnection, tenant: TenantId) -> Trial | None:
    """The trial under way."""
    row = (await connection.execute(select(held).where(held.c.tenant == tenant))).one_or_none()
    if row is None:
        return None
    return Trial(row.revision, row.previous, row.until_ns, _nodes(row.nodes), row.threshold)


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
            until_ns=trial.until_ns,
            nodes=None if trial.nodes is None else [list(node) for node in trial.nodes],
            threshold=trial.threshold,
        )
    )


async def end_trial(connection: AsyncConnection, tenant: TenantId) -> None:
    """End the one under way, if one is."""
    await connection.execute(delete(held).where(held.c.tenant == tenant))
