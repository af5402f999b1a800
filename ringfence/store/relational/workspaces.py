"""Workspaces and all their versions, as canonical documents."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ClusterId, ScopeName, TenantId, Version, WorkspaceName
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class WorkspaceVersion:
    """One version of a workspace: its document, and who made it when.

    `kubernetes_cluster` is where its policies were imported from, None for Ringfence's own.
    """

    workspace: WorkspaceName
    version: Version
    document: str
    actor: str
    created_ns: int
    kubernetes_cluster: ClusterId | None = None


@dataclass(frozen=True, slots=True)
class Analysed:
    """Who first held a version against live traffic, and when."""

    actor: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class WorkspaceHead:
    """A workspace as of its latest version."""

    name: WorkspaceName
    scope: ScopeName
    primary: bool
    latest: Version
    actor: str
    changed_ns: int
    kubernetes_cluster: ClusterId | None = None
    """Where its policies were imported from, None for Ringfence's own."""


async def heads(connection: AsyncConnection, tenant: TenantId) -> list[WorkspaceHead]:
    """Every workspace of the tenant, by name."""
    held = tables.workspaces
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant, ~held.c.deleted).order_by(held.c.name)
    )
    return [
        WorkspaceHead(
            row.name,
            row.scope,
            row.is_primary,
            row.latest,
            row.actor,
            row.changed_ns,
            row.kubernetes_cluster,
        )
        for row in rows
    ]


async def find_version(
    connection: AsyncConnection,
    tenant: TenantId,
    workspace: WorkspaceName,
    version: Version | None = None,
    *,
    even_deleted: bool = False,
) -> WorkspaceVersion | None:
    """One version of a workspace, the latest for None; None if there is none, or no more."""
    wanted = _versions(tenant, workspace)
    if not even_deleted:
        wanted = wanted.where(~tables.workspaces.c.deleted)
    if version is not None:
        wanted = wanted.where(tables.workspace_versions.c.version == version)
    row = (await connection.execute(wanted.limit(1))).one_or_none()
    return _version(row) if row is not None else None


async def last_versions(
    connection: AsyncConnection, tenant: TenantId
) -> dict[WorkspaceName, Version]:
    """The newest version of every workspace that there is or was."""
    held = tables.workspaces
    rows = await connection.execute(
        select(held.c.name, held.c.latest).where(held.c.tenant == tenant)
    )
    return {WorkspaceName(row.name): Version(row.latest) for row in rows}


async def delete_workspace(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName
) -> None:
    """Take a workspace away; its versions stay, for one made again to count on from."""
    held = tables.workspaces
    await connection.execute(
        update(held).where(held.c.tenant == tenant, held.c.name == workspace).values(deleted=True)
    )


async def versions(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName
) -> list[WorkspaceVersion]:
    """Every version of a workspace, the newest first."""
    return [_version(row) for row in await connection.execute(_versions(tenant, workspace))]


def _versions(tenant: TenantId, workspace: WorkspaceName) -> Select[Any]:
    held, heads = tables.workspace_versions, tables.workspaces
    return (
        select(held, heads.c.kubernetes_cluster)
        .join(heads)
        .where(held.c.tenant == tenant, held.c.workspace == workspace)
        .order_by(held.c.version.desc())
    )


def _version(row: Row[Any]) -> WorkspaceVersion:
    return WorkspaceVersion(
        row.workspace,
        row.version,
        row.document,
        row.actor,
        row.created_ns,
        row.kubernetes_cluster,
    )


async def add_version(
    connection: AsyncConnection,
    tenant: TenantId,
    head: WorkspaceHead,
    document: str,
) -> None:
    """Make `head.latest` the latest version; fails on a version that exists (StaleError)."""
    held = tables.workspaces
    values = {
        "scope": head.scope,
        "is_primary": head.primary,
        "latest": head.latest,
        "actor": head.actor,
        "changed_ns": head.changed_ns,
        "deleted": False,
        "kubernetes_cluster": head.kubernetes_cluster,
    }
    if head.latest == 1:
        await connection.execute(insert(held).values(tenant=tenant, name=head.name, **values))
    else:
        await connection.execute(
            update(held).where(held.c.tenant == tenant, held.c.name == head.name).values(**values)
        )
    await connection.execute(
        insert(tables.workspace_versions).values(
            tenant=tenant,
            workspace=head.name,
            version=head.latest,
            document=document,
            actor=head.actor,
            created_ns=head.changed_ns,
        )
    )


async def analysed(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName
) -> dict[Version, Analysed]:
    """The versions of a workspace that were analysed."""
    held = tables.analysed_versions
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant, held.c.workspace == workspace)
    )
    return {Version(row.version): Analysed(row.actor, row.at_ns) for row in rows}


async def mark_analysed(
    connection: AsyncConnection,
    tenant: TenantId,
    workspace: WorkspaceName,
    version: Version,
    mark: Analysed,
) -> None:
    """Mark a version that has no such mark; fails on one that has (StaleError)."""
    await connection.execute(
        insert(tables.analysed_versions).values(
            tenant=tenant,
            workspace=workspace,
            version=version,
            actor=mark.actor,
            at_ns=mark.at_ns,
        )
    )
