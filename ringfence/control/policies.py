"""Scopes and workspaces as the store keeps them, read back into the words of the domain."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.judged import JudgedBy, Named
from ringfence.model.ids import ClusterId, TenantId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.kubernetes.imported import ImportedWorkspace, read_imported
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.store.relational.address_sets import all_address_sets
from ringfence.store.relational.enforcement import Enforced, enforced_now
from ringfence.store.relational.filters import all_filters
from ringfence.store.relational.kubernetes import enforced_clusters
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.scopes import all_scopes
from ringfence.store.relational.workspaces import WorkspaceVersion, find_version, heads


async def load_tree(connection: AsyncConnection, tenant: TenantId) -> ScopeTree:
    """The tenant's scopes and named filters."""
    return ScopeTree(await all_scopes(connection, tenant), await all_filters(connection, tenant))


async def load_version(
    connection: AsyncConnection,
    tenant: TenantId,
    name: WorkspaceName,
    version: Version | None = None,
    *,
    even_deleted: bool = False,
) -> tuple[Workspace | ImportedWorkspace, Version]:
    """A workspace of either sort and which version it is, the latest for None.

    Raises NotFoundError.
    """
    found = await find_version(connection, tenant, name, version, even_deleted=even_deleted)
    if found is None:
        which = f"version p{version} of workspace {name!r}" if version else f"workspace {name!r}"
        if await find_version(connection, tenant, name, version, even_deleted=True) is not None:
            raise NotFoundError(f"workspace {name!r} was deleted: apply it again to have {which}")
        held = version and await find_version(connection, tenant, name)
        where = f"versions {name}" if held else "workspaces"
        raise NotFoundError(f"there is no {which}; see `ringfence get {where}`")
    return await read_version(found), found.version


async def load_workspace(
    connection: AsyncConnection,
    tenant: TenantId,
    name: WorkspaceName,
    version: Version | None = None,
    *,
    even_deleted: bool = False,
) -> EnforcedVersion:
    """A workspace and which version it is, the latest for None.

    Raises NotFoundError, and ConflictError for one of imported policies, which is read-only.
    """
    found, number = await load_version(connection, tenant, name, version, even_deleted=even_deleted)
    if isinstance(found, ImportedWorkspace):
        raise read_only(name, found.cluster)
    return found, number


async def refuse_imported(
    connection: AsyncConnection, tenant: TenantId, names: Iterable[WorkspaceName]
) -> None:
    """Raise ConflictError if one of the workspaces is one of imported policies."""
    wanted = set(names)
    for head in await heads(connection, tenant):
        if head.name in wanted and head.kubernetes_cluster is not None:
            raise read_only(head.name, head.kubernetes_cluster)


def read_only(name: WorkspaceName, cluster: ClusterId) -> ConflictError:
    """Why a workspace of imported policies stays as it is, and what to do instead."""
    return ConflictError(
        f"workspace {name!r} holds the policies of Kubernetes cluster {cluster!r} and is "
        "read-only: change them where they come from, and run `ringfence netpol import` again; "
        "`ringfence netpol enforce` enforces a cluster's policies as they stand there"
    )


async def load_enforced(
    connection: AsyncConnection, tenant: TenantId
) -> tuple[EnforcedVersion, ...]:
    """The workspace versions that are enforced, whatever became of their workspaces."""
    return await load_set(connection, tenant, await enforced_now(connection, tenant))


async def load_set(
    connection: AsyncConnection, tenant: TenantId, enforced: Enforced
) -> tuple[EnforcedVersion, ...]:
    """The workspace versions of a set that is or was enforced."""
    return tuple(
        [
            await load_workspace(connection, tenant, name, version, even_deleted=True)
            for name, version in enforced.workspaces
        ]
    )


async def load_shared(connection: AsyncConnection, tenant: TenantId) -> Documents:
    """What workspaces name: the scopes, named filters and address sets."""
    tree = await load_tree(connection, tenant)
    sets = tuple(one.address_set for one in await all_address_sets(connection, tenant))
    return Documents(tree.preorder(), (), tuple(tree.filters.values()), sets)


async def load_documents(
    connection: AsyncConnection, tenant: TenantId
) -> tuple[Documents, dict[WorkspaceName, Version]]:
    """Everything as of its latest version, imported policies aside, and which those are."""
    shared = await load_shared(connection, tenant)
    found = [
        await load_workspace(connection, tenant, head.name)
        for head in await heads(connection, tenant)
        if head.kubernetes_cluster is None
    ]
    workspaces = tuple(workspace for workspace, _ in found)
    latest = {workspace.name: version for workspace, version in found}
    return replace(shared, workspaces=workspaces), latest


async def read_version(stored: WorkspaceVersion) -> Workspace | ImportedWorkspace:
    """A workspace from what is stored of it; others are served meanwhile."""
    name, cluster = stored.workspace, stored.kubernetes_cluster
    if cluster is not None:
        return await asyncio.to_thread(read_imported, name, cluster, stored.document)
    return await read_workspace(stored.document, f"{name}@p{stored.version}")


async def read_workspace(document: str, name: str) -> Workspace:
    """A workspace from its document; others are served meanwhile."""
    return await asyncio.to_thread(_read_workspace, document, name)


@lru_cache(maxsize=256)
def _read_workspace(document: str, name: str) -> Workspace:
    (workspace,) = parse_documents(document, name).workspaces
    return workspace


async def load_judged_by(
    connection: AsyncConnection,
    tenant: TenantId,
    wanted: Iterable[Named] = (),
    *,
    enforced: Iterable[EnforcedVersion] | None = None,
) -> JudgedBy:
    """The enforced set, or another one, with these versions in place of their workspaces' own.

    Raises NotFoundError.
    """
    if enforced is None:
        enforced = await load_enforced(connection, tenant)
    workspaces = {one.name: (one, number) for one, number in enforced}
    imported: dict[WorkspaceName, tuple[ImportedWorkspace, Version]] = {}
    for name, version in wanted:
        found, number = await load_version(connection, tenant, name, version)
        if isinstance(found, ImportedWorkspace):
            imported[name] = found, number
        else:
            workspaces[name] = found, number
    return JudgedBy(
        # A quarantine alone needs no scopes, and must not fail for them.
        await load_tree(connection, tenant) if workspaces else ScopeTree(()),
        tuple(workspaces.values()),
        tuple(imported.values()),
        tuple(await load_quarantines(connection, tenant)),
        await enforced_clusters(connection, tenant),
    )
