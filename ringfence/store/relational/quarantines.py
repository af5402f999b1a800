"""The quarantines that are in force."""

from collections.abc import Iterable

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model import query
from ringfence.model.ids import ClusterId, TenantId
from ringfence.model.quarantine import Quarantine
from ringfence.store.relational.tables import quarantines as held


async def load_quarantines(connection: AsyncConnection, tenant: TenantId) -> tuple[Quarantine, ...]:
    """Every quarantine, the latest first."""
    wanted = select(held).where(held.c.tenant == tenant)
    rows = await connection.execute(wanted.order_by(held.c.since_ns.desc(), held.c.workload))
    return tuple(
        Quarantine(
            ClusterId(row.kubernetes_cluster),
            row.workload,
            query.parse(row.query),
            tuple(row.allow),
            row.reason,
            row.actor,
            row.since_ns,
            row.expires_ns,
        )
        for row in rows
    )


async def put_quarantine(
    connection: AsyncConnection, tenant: TenantId, quarantine: Quarantine
) -> None:
    """Put a quarantine in the place of the one that its workload was in."""
    await remove_quarantines(connection, tenant, [quarantine])
    await connection.execute(
        insert(held).values(
            tenant=tenant,
            kubernetes_cluster=quarantine.kubernetes_cluster,
            workload=quarantine.workload,
            query=str(quarantine.query),
            allow=list(quarantine.allow),
            reason=quarantine.reason,
            actor=quarantine.actor,
            since_ns=quarantine.since_ns,
            expires_ns=quarantine.expires_ns,
        )
    )


async def remove_quarantines(
    connection: AsyncConnection, tenant: TenantId, quarantines: Iterable[Quarantine]
) -> None:
    """Take quarantines away."""
    for one in quarantines:
        await connection.execute(
            delete(held).where(
                held.c.tenant == tenant,
                held.c.kubernetes_cluster == one.kubernetes_cluster,
                held.c.workload == one.workload,
            )
        )
