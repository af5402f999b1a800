"""The inventory's history: every life of every item."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.inventory.timeline import Change
from ringfence.model.ids import ItemKey, RevisionId, TenantId
from ringfence.model.workload import Item
from ringfence.store.relational import tables


async def load_revisions(connection: AsyncConnection, tenant: TenantId) -> list[Change]:
    """Every life of every item, in no order."""
    held = tables.item_revisions
    rows = await connection.execute(
        select(held.c.revision, held.c.key, held.c.from_ns, held.c.to_ns, held.c.document).where(
            held.c.tenant == tenant
        )
    )
    return [
        Change(
            RevisionId(row.revision),
            ItemKey(row.key),
            row.from_ns,
            row.to_ns,
            msgspec.json.decode(row.document, type=Item),
        )
        for row in rows
    ]


async def put_revisions(
    connection: AsyncConnection, tenant: TenantId, changes: Iterable[Change]
) -> None:
    """Write lives down under their revisions, in place of what stood there."""
    rows = [
        {
            "tenant": tenant,
            "revision": change.revision,
            "kubernetes_cluster": change.item.cluster,
            "key": change.key,
            "from_ns": change.from_ns,
            "to_ns": change.to_ns,
            "document": msgspec.json.encode(change.item).decode(),
        }
        for change in changes
    ]
    if not rows:
        return
    held = tables.item_revisions
    old = delete(held).where(held.c.tenant == tenant, held.c.revision == bindparam("old"))
    await connection.execute(old, [{"old": row["revision"]} for row in rows])
    await connection.execute(insert(held), rows)
