"""Which workspace versions are enforced; earlier sets are kept."""

from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class Enforced:
    """The set of enforced versions since a time; `revision` counts from 1, 0 before the first."""

    revision: int
    workspaces: tuple[tuple[WorkspaceName, Version], ...]
    actor: str
    since_ns: int


NEVER = Enforced(0, (), "", 0)


async def enforced_now(connection: AsyncConnection, tenant: TenantId) -> Enforced:
    """What is enforced."""
    held = tables.enforcement
    wanted = select(held).where(held.c.tenant == tenant)
    found = await connection.execute(wanted.order_by(held.c.revision.desc()).limit(1))
    row = found.one_or_none()
    return _enforced(row) if row else NEVER


async def enforce(connection: AsyncConnection, tenant: TenantId, enforced: Enforced) -> None:
    """Make a set the enforced one; fails on a revision that exists (StaleError)."""
    await connection.execute(
        insert(tables.enforcement).values(
            tenant=tenant,
            revision=enforced.revision,
            workspaces=[list(pair) for pair in enforced.workspaces],
            actor=enforced.actor,
            since_ns=enforced.since_ns,
        )
    )


def _enforced(row: object) -> Enforced:
    pairs = tuple(
        (WorkspaceName(name), Version(version))
        for name, version in row.workspaces  # type: ignore[attr-defined]
    )
    return Enforced(row.revision, pairs, row.actor, row.since_ns)  # type: ignore[attr-defined]
