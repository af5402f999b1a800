"""Scopes for which discovery recommends policies unasked, and its newest recommendation of each."""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ScopeName, TenantId, Version
from ringfence.store.relational.tables import recommendations as held


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is recommended for a scope, from so much traffic; times in epoch ns.

    `changes` and `approved` are as `ringfence discover -o json` has them, against `version` of the
    scope's workspace, None where it has none. `proposed` is the whole proposal in YAML. All of it
    is since `changed_ns`, and was seen again at `looked_ns`; None: nobody looked yet.
    """

    scope: ScopeName
    window_seconds: int
    actor: str
    since_ns: int
    looked_ns: int | None = None
    changed_ns: int | None = None
    problem: str = ""
    version: Version | None = None
    proposed: str = ""
    changes: tuple[dict[str, Any], ...] = ()
    approved: tuple[dict[str, Any], ...] = ()


async def all_recommendations(
    connection: AsyncConnection, tenant: TenantId
) -> list[Recommendation]:
    """Those of all watched scopes, by scope."""
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.scope)
    )
    return [msgspec.convert(row, Recommendation) for row in rows.mappings().all()]


async def find_recommendation(
    connection: AsyncConnection, tenant: TenantId, scope: ScopeName
) -> Recommendation | None:
    """A watched scope's; None of one that is not watched."""
    found = await all_recommendations(connection, tenant)
    return next((one for one in found if one.scope == scope), None)


async def watch_scope(connection: AsyncConnection, tenant: TenantId, one: Recommendation) -> None:
    """Watch a scope; fails where it is watched (StaleError)."""
    await connection.execute(insert(held).values(tenant=tenant, **msgspec.to_builtins(one)))


async def put_recommendation(
    connection: AsyncConnection, tenant: TenantId, one: Recommendation
) -> None:
    """Write down what is recommended for a scope; nothing where it is watched no more."""
    await connection.execute(
        update(held)
        .where(held.c.tenant == tenant, held.c.scope == one.scope)
        .values(**msgspec.to_builtins(one))
    )


async def unwatch_scope(connection: AsyncConnection, tenant: TenantId, scope: ScopeName) -> bool:
    """Watch a scope no more, and forget what was recommended; whether it was watched."""
    found = await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.scope == scope)
    )
    return bool(found.rowcount)
