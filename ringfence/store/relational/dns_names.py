"""The addresses that DNS told for names, so that a restart withdraws none."""

from collections.abc import Collection

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.inventory.resolutions import Resolution
from ringfence.model.address import format_address, parse_address
from ringfence.model.ids import TenantId
from ringfence.store.relational.tables import dns_names as held


async def load_names(connection: AsyncConnection, tenant: TenantId) -> list[Resolution]:
    """Every pair of name and address."""
    rows = await connection.execute(select(held).where(held.c.tenant == tenant))
    return [
        Resolution(row.name, parse_address(row.address), row.from_ns, row.until_ns, row.teller)
        for row in rows
    ]


async def put_names(
    connection: AsyncConnection, tenant: TenantId, names: Collection[Resolution]
) -> None:
    """Write pairs down in place of what stood there."""
    await remove_names(connection, tenant, names)
    rows = [
        {
            "tenant": tenant,
            "name": one.name,
            "address": format_address(one.address),
            "from_ns": one.from_ns,
            "until_ns": one.until_ns,
            "teller": one.teller,
        }
        for one in names
    ]
    if rows:
        await connection.execute(insert(held), rows)


async def remove_names(
    connection: AsyncConnection, tenant: TenantId, names: Collection[Resolution]
) -> None:
    """Forget pairs."""
    pairs = [{"of": one.name, "at": format_address(one.address)} for one in names]
    same = (held.c.name == bindparam("of"), held.c.address == bindparam("at"))
    if pairs:
        await connection.execute(delete(held).where(held.c.tenant == tenant, *same), pairs)
