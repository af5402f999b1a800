"""The audit trail: who changed what, when and from where."""

from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `source` is the address the request came from."""

    at_ns: int
    actor: str
    source: str
    what: str
    difference: str


async def add_change(connection: AsyncConnection, tenant: TenantId, change: Change) -> None:
    """Write one change down, in the transaction that makes it."""
    await connection.execute(
        insert(tables.changes).values(
            tenant=tenant,
            at_ns=change.at_ns,
            actor=change.actor,
            source=change.source,
            what=change.what,
            difference=change.difference,
        )
    )


async def recent_changes(connection: AsyncConnection, tenant: TenantId, limit: int) -> list[Change]:
    """The latest changes, the newest first."""
    held = tables.changes
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.id.desc()).limit(limit)
    )
    return [Change(row.at_ns, row.actor, row.source, row.what, row.difference) for row in rows]
