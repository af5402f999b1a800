"""The audit trail: who changed what, when and from where."""

from dataclasses import dataclass

from sqlalchemy import func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `source` is the address the request came from.

    `object` is what was changed, as KIND/NAME: `workspace/shop`.
    """

    at_ns: int
    actor: str
    source: str
    object: str
    what: str
    difference: str


@dataclass(frozen=True, slots=True)
class Sought:
    """Which changes: those that fit all that is given. Times are epoch ns, [since, until)."""

    object: str = ""
    """KIND/NAME, or a name of whatever kind."""
    actor: str = ""
    since_ns: int | None = None
    until_ns: int | None = None
    before: int | None = None
    """Older than the change of this number."""


async def add_change(connection: AsyncConnection, tenant: TenantId, change: Change) -> None:
    """Write one change down, in the transaction that makes it."""
    await connection.execute(
        insert(tables.changes).values(
            tenant=tenant,
            at_ns=change.at_ns,
            actor=change.actor,
            source=change.source,
            object=change.object,
            what=change.what,
            difference=change.difference,
        )
    )


async def last_change(connection: AsyncConnection, tenant: TenantId) -> int:
    """The number of the last change, 0 before the first.

    There is one writer at a time, so none with a lower number is committed after it.
    """
    held = tables.changes
    last = select(held.c.id).where(held.c.tenant == tenant).order_by(held.c.id.desc()).limit(1)
    return await connection.scalar(last) or 0


async def find_changes(
    connection: AsyncConnection, tenant: TenantId, sought: Sought, limit: int
) -> list[tuple[int, Change]]:
    """The latest changes that are sought, each with its number, the newest first."""
    held = tables.changes
    wanted = select(held).where(held.c.tenant == tenant)
    if sought.object:
        # LIKE ignores case on SQLite alone.
        end = f"/{sought.object}"
        named = func.substr(held.c.object, func.length(held.c.object) - len(end) + 1) == end
        wanted = wanted.where(or_(held.c.object == sought.object, named))
    if sought.actor:
        wanted = wanted.where(held.c.actor == sought.actor)
    if sought.since_ns is not None:
        wanted = wanted.where(held.c.at_ns >= sought.since_ns)
    if sought.until_ns is not None:
        wanted = wanted.where(held.c.at_ns < sought.until_ns)
    if sought.before is not None:
        wanted = wanted.where(held.c.id < sought.before)
    rows = await connection.execute(wanted.order_by(held.c.id.desc()).limit(limit))
    return [
        (
            row.id,
            Change(row.at_ns, row.actor, row.source, row.object, row.what, row.difference),
        )
        for row in rows
    ]
