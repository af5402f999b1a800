"""The named filters of a tenant."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model import query
from ringfence.model.ids import FilterName, ScopeName, TenantId
from ringfence.model.scope import InventoryFilter, PublicPorts
from ringfence.store.relational.tables import filters as held


async def all_filters(connection: AsyncConnection, tenant: TenantId) -> list[InventoryFilter]:
    """Every filter of the tenant, by name."""
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.name)
    )
    return [
        InventoryFilter(
            FilterName(row.name),
            ScopeName(row.scope),
            query.parse(row.query),
            row.restricted,
            msgspec.convert(row.public, tuple[PublicPorts, ...]),
        )
        for row in rows
    ]


async def put_filters(
    connection: AsyncConnection,
    tenant: TenantId,
    filters: Iterable[InventoryFilter],
    actor: str,
    now_ns: int,
) -> None:
    """Create or replace filters."""
    for one in filters:
        await connection.execute(
            delete(held).where(held.c.tenant == tenant, held.c.name == one.name)
        )
        await connection.execute(
            insert(held).values(
                tenant=tenant,
                name=one.name,
                scope=one.scope,
                query=str(one.query),
                restricted=one.restricted,
                public=msgspec.to_builtins(one.public),
                actor=actor,
                changed_ns=now_ns,
            )
        )
