"""The scope tree of a tenant."""

from collections.abc import Iterable

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model import query
from ringfence.model.ids import ScopeName, TenantId
from ringfence.model.scope import Scope
from ringfence.store.relational import tables


async def all_scopes(connection: AsyncConnection, tenant: TenantId) -> list[Scope]:
    """Every scope of the tenant, by name."""
    held = tables.scopes
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.name)
    )
    return [
        Scope(
            ScopeName(row.name),
            ScopeName(row.parent) if row.parent is not None else None,
            query.parse(row.query),
            row.position,
        )
        for row in rows
    ]


async def put_scopes(
    connection: AsyncConnection, tenant: TenantId, scopes: Iterable[Scope], actor: str, now_ns: int
) -> None:
    """Create or replace scopes."""
    held = tables.scopes
    for scope in scopes:
        await connection.execute(
            delete(held).where(held.c.tenant == tenant, held.c.name == scope.name)
        )
        await connection.execute(
            insert(held).values(
                tenant=tenant,
                name=scope.name,
                parent=scope.parent,
                query=str(scope.query),
                position=scope.order,
                actor=actor,
                changed_ns=now_ns,
            )
        )
