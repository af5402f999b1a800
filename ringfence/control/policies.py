"""Scopes and workspaces as the store keeps them, read back into the words of the domain."""

import asyncio
from functools import lru_cache

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.errors import NotFoundError
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.store.relational.address_sets import all_address_sets
from ringfence.store.relational.enforcement import enforced_now
from ringfence.store.relational.filters import all_filters
from ringfence.store.relational.scopes import all_scopes
from ringfence.store.relational.workspaces import find_version, heads


async def load_tree(connection: AsyncConnection, tenant: TenantId) -> ScopeTree:
    """The tenant's scopes and named filters."""
    return ScopeTree(await all_scopes(connection, tenant), await all_filters(connection, tenant))


async def load_workspace(
    connection: AsyncConnection,
    tenant: TenantId,
    name: WorkspaceName,
    version: Version | None = None,
) -> EnforcedVersion:
    """A workspace and which version it is, the latest for None; raises NotFoundError."""
    found = await find_version(connection, tenant, name, version)
    if found is None:
        which = f"version p{version} of workspace {name!r}" if version else f"workspace {name!r}"
        raise NotFoundError(f"there is no {which}")
    return await read_workspace(found.document, f"{name}@p{found.version}"), found.version


async def load_enforced(
    connection: AsyncConnection, tenant: TenantId
) -> tuple[EnforcedVersion, ...]:
    """The workspace versions that are enforced."""
    enforced = await enforced_now(connection, tenant)
    return tuple(
        [
            await load_workspace(connection, tenant, name, version)
            for name, version in enforced.workspaces
        ]
    )


async def load_documents(
    connection: AsyncConnection, tenant: TenantId
) -> tuple[Documents, dict[WorkspaceName, Version]]:
    """Everything as of its latest version, and which those are."""
    tree = await load_tree(connection, tenant)
    found = [
        await load_workspace(connection, tenant, head.name)
        for head in await heads(connection, tenant)
    ]
    workspaces = tuple(workspace for workspace, _ in found)
    latest = {workspace.name: version for workspace, version in found}
    sets = tuple(one.address_set for one in await all_address_sets(connection, tenant))
    return Documents(tree.preorder(), workspaces, tuple(tree.filters.values()), sets), latest


async def read_workspace(document: str, name: str) -> Workspace:
    """A workspace from its stored document; others are served meanwhile."""
    return await asyncio.to_thread(_read_workspace, document, name)


@lru_cache(maxsize=256)
def _read_workspace(document: str, name: str) -> Workspace:
    (workspace,) = parse_documents(document, name).workspaces
    return workspace
