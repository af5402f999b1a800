"""Writes down what apply and rollback decided, in one transaction with who did it."""

import asyncio
from collections.abc import Iterable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.audit import Author
from ringfence.control.policies import read_workspace
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.policy.difference import Change, ChangeKind, DocumentKind
from ringfence.policy.document import Documents, format_documents
from ringfence.store.relational.address_sets import put_address_sets
from ringfence.store.relational.filters import put_filters
from ringfence.store.relational.scopes import put_scopes
from ringfence.store.relational.workspaces import WorkspaceHead, add_version


def next_versions(
    latest: Mapping[WorkspaceName, Version], changes: Iterable[Change]
) -> dict[WorkspaceName, Version]:
    """The versions that the changes make."""
    return {
        name: Version(latest.get(name, 0) + 1)
        for change in changes
        if change.kind is DocumentKind.WORKSPACE and change.change is not ChangeKind.UNCHANGED
        for name in [WorkspaceName(change.name)]
    }


async def write_changes(
    connection: AsyncConnection,
    now_ns: int,
    given: Documents,
    changes: Iterable[Change],
    versions: Mapping[WorkspaceName, Version],
    author: Author,
    why: str = "",
) -> None:
    """Write what the changes make of the documents given, under their new `versions`.

    `why` is added to what the audit trail says of each.
    """
    tenant, actor = author.principal.tenant, author.principal.actor
    scopes = {scope.name: scope for scope in given.scopes}
    workspaces = {workspace.name: workspace for workspace in given.workspaces}
    for change in changes:
        if change.change is ChangeKind.UNCHANGED:
            continue
        what = f"{change.change} {change.kind} {change.name}"
        if change.kind is DocumentKind.SCOPE:
            scope = scopes[ScopeName(change.name)]
            await put_scopes(connection, tenant, [scope], actor, now_ns)
        elif change.kind is DocumentKind.FILTER:
            filters = [one for one in given.filters if one.name == change.name]
            await put_filters(connection, tenant, filters, actor, now_ns)
        elif change.kind is DocumentKind.ADDRESS_SET:
            sets = [one for one in given.address_sets if one.name == change.name]
            await put_address_sets(connection, tenant, sets, actor, now_ns)
        else:
            one = workspaces[WorkspaceName(change.name)]
            version = versions[one.name]
            await store_workspace(connection, tenant, (one, version), actor, now_ns)
            what += f" (p{version})"
        about = f"{change.kind.lower()}/{change.name}"
        difference = "\n".join(change.lines)
        await author.note(connection, now_ns, what + why, difference, about=about)


async def store_workspace(
    connection: AsyncConnection,
    tenant: TenantId,
    made: tuple[Workspace, Version],
    actor: str,
    now_ns: int,
) -> None:
    """Write a new version down; raises InputError for one that could not be read again.

    Whatever loads the workspaces would stumble over it.
    """
    one, version = made
    text = await asyncio.to_thread(format_documents, Documents(workspaces=(one,)))
    if await read_workspace(text, f"{one.name}@p{version}") != one:
        raise InputError(f"{one.name}@p{version} would be read again as something else")
    head = WorkspaceHead(one.name, one.scope, one.primary, version, actor, now_ns)
    await add_version(connection, tenant, head, text)
