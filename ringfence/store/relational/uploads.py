"""The labels that people uploaded for addresses, as they are now, and who said so."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.inventory.uploaded import Upload
from ringfence.model.address import Network, parse_network
from ringfence.model.ids import TenantId
from ringfence.model.parts import parts
from ringfence.store.relational.tables import uploaded_labels as held


@dataclass(frozen=True, slots=True)
class Uploaded:
    """One upload, who made it, and since when it holds."""

    upload: Upload
    actor: str
    changed_ns: int


async def load_uploads(connection: AsyncConnection, tenant: TenantId) -> dict[Network, Uploaded]:
    """All uploads, by network."""
    rows = await connection.execute(select(held).where(held.c.tenant == tenant))
    found = (
        Uploaded(
            Upload(parse_network(row.network), row.name, row.labels), row.actor, row.changed_ns
        )
        for row in rows
    )
    return {one.upload.network: one for one in found}


async def put_uploads(
    connection: AsyncConnection, tenant: TenantId, uploads: Iterable[Uploaded]
) -> None:
    """Write uploads down, each in the place of what was said of its network before."""
    for some in parts(uploads):
        rows = [
            {
                "tenant": tenant,
                "network": str(one.upload.network),
                "name": one.upload.name,
                "labels": dict(one.upload.labels),
                "actor": one.actor,
                "changed_ns": one.changed_ns,
            }
            for one in some
        ]
        await remove_uploads(connection, tenant, [one.upload.network for one in some])
        await connection.execute(insert(held), rows)


async def remove_uploads(
    connection: AsyncConnection, tenant: TenantId, networks: Iterable[Network]
) -> None:
    """Take away what is said of networks."""
    old = delete(held).where(held.c.tenant == tenant, held.c.network == bindparam("old"))
    for some in parts(networks):
        await connection.execute(old, [{"old": str(network)} for network in some])
