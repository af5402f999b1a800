"""Takes documents away."""

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId, WorkspaceName
from ringfence.policy.difference import DocumentKind
from ringfence.store.relational import tables
from ringfence.store.relational.workspaces import delete_workspace

_TABLES = {
    DocumentKind.SCOPE: (tables.scopes,),
    DocumentKind.FILTER: (tables.filters,),
    DocumentKind.ADDRESS_SET: (tables.address_sets, tables.address_set_contents),
}


async def remove_document(
    connection: AsyncConnection, tenant: TenantId, kind: DocumentKind, name: str
) -> None:
    """Remove a document of the tenant; the versions of a workspace stay."""
    if kind is DocumentKind.WORKSPACE:
        await delete_workspace(connection, tenant, WorkspaceName(name))
        return
    for table in _TABLES[kind]:
        await connection.execute(
            delete(table).where(table.c.tenant == tenant, table.c.name == name)
        )
