"""The Kubernetes clusters of which the own policies are enforced."""

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ClusterId, TenantId
from ringfence.store.relational import tables


async def enforced_clusters(connection: AsyncConnection, tenant: TenantId) -> tuple[ClusterId, ...]:
    """Those clusters, by name."""
    held = tables.enforced_kubernetes_clusters
    wanted = select(held.c.kubernetes_cluster).where(held.c.tenant == tenant)
    rows = await connection.execute(wanted.order_by(held.c.kubernetes_cluster))
    return tuple(ClusterId(row.kubernetes_cluster) for row in rows)


async def switch_enforced_cluster(
    connection: AsyncConnection, tenant: TenantId, cluster: ClusterId, actor: str, since_ns: int
) -> bool:
    """Enforce a cluster's policies if they are not, else no more; whether they are from now on."""
    if cluster in await enforced_clusters(connection, tenant):
        await remove_enforced_cluster(connection, tenant, cluster)
        return False
    await add_enforced_cluster(connection, tenant, cluster, actor, since_ns)
    return True


async def add_enforced_cluster(
    connection: AsyncConnection, tenant: TenantId, cluster: ClusterId, actor: str, since_ns: int
) -> None:
    """Enforce a cluster's policies; fails where they are enforced (StaleError)."""
    held = tables.enforced_kubernetes_clusters
    await connection.execute(
        insert(held).values(
            tenant=tenant, kubernetes_cluster=cluster, actor=actor, since_ns=since_ns
        )
    )


async def remove_enforced_cluster(
    connection: AsyncConnection, tenant: TenantId, cluster: ClusterId
) -> None:
    """Enforce them no more."""
    held = tables.enforced_kubernetes_clusters
    await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.kubernetes_cluster == cluster)
    )
