"""In which mode each agent reports, where somebody chose."""

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.flow import Mode
from ringfence.model.ids import ClusterId, NodeName, TenantId
from ringfence.store.relational.tables import agent_modes as held


async def agent_modes(
    connection: AsyncConnection, tenant: TenantId
) -> dict[tuple[ClusterId, NodeName], Mode]:
    """Every choice, by Kubernetes cluster and node."""
    rows = await connection.execute(select(held).where(held.c.tenant == tenant))
    return {(ClusterId(row.kubernetes_cluster), NodeName(row.node)): Mode(row.mode) for row in rows}


async def set_agent_mode(
    connection: AsyncConnection,
    tenant: TenantId,
    agent: tuple[ClusterId, NodeName],
    mode: Mode,
    actor: str,
    now_ns: int,
) -> None:
    """Put a choice in the place of the one before."""
    cluster, node = agent
    same = (held.c.tenant == tenant, held.c.kubernetes_cluster == cluster, held.c.node == node)
    await connection.execute(delete(held).where(*same))
    await connection.execute(
        insert(held).values(
            tenant=tenant,
            kubernetes_cluster=cluster,
            node=node,
            mode=mode.value,
            actor=actor,
            changed_ns=now_ns,
        )
    )
