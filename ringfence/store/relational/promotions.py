"""How far a scope is to be led, by which criteria, and what became of that."""

from dataclasses import dataclass, field

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.promotion import Criteria
from ringfence.store.relational.tables import promotions as held


@dataclass(frozen=True, slots=True)
class Promotion:
    """A scope's path. `version` of `workspace` was promoted to be enforced, None for none yet.

    It was taken back at `demoted_ns`, epoch ns, for a reason.
    """

    scope: ScopeName
    criteria: Criteria = field(default_factory=Criteria)
    workspace: WorkspaceName | None = None
    version: Version | None = None
    demoted_ns: int | None = None
    why: str = ""


async def all_promotions(connection: AsyncConnection, tenant: TenantId) -> list[Promotion]:
    """Every one, by scope."""
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.scope)
    )
    return [
        Promotion(
            row.scope,
            msgspec.convert(row.criteria, Criteria),
            row.workspace,
            row.version,
            row.demoted_ns,
            row.why,
        )
        for row in rows
    ]


async def load_promotion(
    connection: AsyncConnection, tenant: TenantId, scope: ScopeName
) -> Promotion:
    """A scope's; with the criteria that hold unless somebody says otherwise, if it has none."""
    found = await all_promotions(connection, tenant)
    return next((one for one in found if one.scope == scope), Promotion(scope))


async def put_promotion(
    connection: AsyncConnection, tenant: TenantId, promotion: Promotion
) -> None:
    """Write a scope's down."""
    await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.scope == promotion.scope)
    )
    told = msgspec.to_builtins(promotion)
    await connection.execute(insert(held).values(tenant=tenant, **told))
