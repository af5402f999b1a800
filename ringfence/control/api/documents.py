"""Scopes and workspaces as YAML documents: apply them, and export them."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.api.requests import RequestResponse, request_response
from ringfence.control.apply import decide, read_files, tree_with
from ringfence.control.audit import Author, AuthorDep
from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.plan import affected, refusal
from ringfence.control.policies import load_enforced, load_tree, load_workspace
from ringfence.control.services import Services, ServicesDep
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.model.policy import Workspace
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.difference import Change, ChangeKind
from ringfence.policy.document import Documents, format_documents
from ringfence.policy.order import PolicySet
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.scopes import put_scopes
from ringfence.store.relational.workspaces import WorkspaceHead, add_version, heads

router = APIRouter(tags=["documents"])


class DocumentKind(StrEnum):
    """The kinds of documents."""

    SCOPE = "Scope"
    WORKSPACE = "Workspace"


class File(BaseModel):
    """One file of documents; its name stands in error messages."""

    name: str
    documents: str = Field(description="YAML, one or more documents.")


class ApplyRequest(BaseModel):
    """Files to apply in one transaction: all of them, or none."""

    files: list[File] = Field(min_length=1)
    dry_run: bool = False
    override: list[Override] = Field(default=[], description="Words that refusals name.")


class DocumentChangeResponse(BaseModel):
    """What happens to one document; `version` is a workspace's afterwards."""

    kind: DocumentKind
    name: str
    change: ChangeKind
    diff: list[str]
    version: int | None


class ApplyResponse(BaseModel):
    """A change for each document, and for whom changed scopes change what is enforced.

    `requests` are what the workspaces then need of those of other scopes.
    `refused` is why it ought not to be done, empty for nothing.
    """

    changes: list[DocumentChangeResponse]
    workloads: list[str]
    requests: list[RequestResponse]
    refused: str


class ExportResponse(BaseModel):
    """Documents in the form that apply reads."""

    documents: str


@router.post("/apply")
async def apply(request: ApplyRequest, services: ServicesDep, author: AuthorDep) -> ApplyResponse:
    """Make scopes and workspaces as the documents say; a changed workspace gets a new version.

    What is enforced stays the same versions; a changed scope changes at once whom they govern,
    and is refused where enforcing that would be.
    """
    given = read_files((file.name, file.documents) for file in request.files)
    tenant = author.principal.tenant
    async with services.database.write() as connection:
        held, latest = await _held(connection, tenant)
        changes = decide(held, given)
        versions = {**latest, **_next_versions(latest, changes)}
        workloads, refused = await _governance(
            connection,
            services,
            tenant,
            (ScopeTree(held.scopes), tree_with(held, given)),
            request.override,
        )
        if not request.dry_run:
            if refused:
                raise ConflictError(refused)
            await _write(connection, services.clock(), given, changes, versions, author)
    if not request.dry_run:
        services.enforcement.touch()
        await services.requests.refresh()
    requests = await services.requests.foresee(tree_with(held, given), held, given)
    return ApplyResponse(
        changes=[
            DocumentChangeResponse(
                kind=DocumentKind(change.kind),
                name=change.name,
                change=change.change,
                diff=list(change.lines),
                version=versions.get(WorkspaceName(change.name))
                if change.kind == DocumentKind.WORKSPACE
                else None,
            )
            for change in changes
        ],
        workloads=list(workloads),
        requests=[request_response(one) for one in requests],
        refused=refused,
    )


async def _governance(
    connection: AsyncConnection,
    services: Services,
    tenant: TenantId,
    trees: tuple[ScopeTree, ScopeTree],
    overrides: Collection[Override],
) -> tuple[tuple[str, ...], str]:
    """For whom other enforced rules decide in the second tree, and why that ought not to be."""
    enforced = await load_enforced(connection, tenant)
    apart = await load_quarantines(connection, tenant)
    snapshot = services.inventory.timeline.latest()

    def work() -> tuple[tuple[str, ...], str]:
        before, after = (PolicySet(snapshot, tree, enforced, apart) for tree in trees)
        workloads = affected(before, after)
        return workloads, refusal(after, overrides) if workloads else ""

    return await asyncio.to_thread(work) if enforced else ((), "")


async def _held(
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
    return Documents(tree.preorder(), workspaces), latest


def _next_versions(
    latest: Mapping[WorkspaceName, Version], changes: Iterable[Change]
) -> dict[WorkspaceName, Version]:
    return {
        name: Version(latest.get(name, 0) + 1)
        for change in changes
        if change.kind == DocumentKind.WORKSPACE and change.change is not ChangeKind.UNCHANGED
        for name in [WorkspaceName(change.name)]
    }


async def _write(
    connection: AsyncConnection,
    now_ns: int,
    given: Documents,
    changes: Iterable[Change],
    versions: Mapping[WorkspaceName, Version],
    author: Author,
) -> None:
    tenant, actor = author.principal.tenant, author.principal.actor
    scopes = {scope.name: scope for scope in given.scopes}
    workspaces = {workspace.name: workspace for workspace in given.workspaces}
    for change in changes:
        if change.change is ChangeKind.UNCHANGED:
            continue
        if change.kind == DocumentKind.SCOPE:
            scope = scopes[ScopeName(change.name)]
            await put_scopes(connection, tenant, [scope], actor, now_ns)
        else:
            one = workspaces[WorkspaceName(change.name)]
            version = versions[one.name]
            head = WorkspaceHead(one.name, one.scope, one.primary, version, actor, now_ns)
            text = format_documents(Documents(workspaces=(one,)))
            await add_version(connection, tenant, head, text)
        what = f"{change.change} {change.kind} {change.name}"
        await author.note(connection, now_ns, what, "\n".join(change.lines))


@router.get("/export")
async def export(
    services: ServicesDep,
    principal: PrincipalDep,
    kind: DocumentKind | None = None,
    name: str | None = None,
    version: Annotated[int | None, Query(ge=1)] = None,
) -> ExportResponse:
    """Give scopes and workspaces as YAML; `version` asks for an older one of a workspace."""
    if version is not None and (kind is not DocumentKind.WORKSPACE or name is None):
        raise InputError("a version belongs to one workspace: give kind=Workspace and its name")
    scopes: list[Scope] = []
    workspaces: list[Workspace] = []
    async with services.database.read() as connection:
        if kind is not DocumentKind.WORKSPACE:
            tree = await load_tree(connection, principal.tenant)
            scopes = [scope for scope in tree.preorder() if name in (None, scope.name)]
        if kind is not DocumentKind.SCOPE:
            workspaces = [
                await _workspace(connection, principal.tenant, head.name, version)
                for head in await heads(connection, principal.tenant)
                if name in (None, head.name)
            ]
    if name is not None and not scopes and not workspaces:
        raise NotFoundError(f"there is no {kind or 'scope or workspace'} {name!r}")
    return ExportResponse(documents=format_documents(Documents(tuple(scopes), tuple(workspaces))))


async def _workspace(
    connection: AsyncConnection, tenant: TenantId, name: WorkspaceName, version: int | None
) -> Workspace:
    wanted = Version(version) if version is not None else None
    return (await load_workspace(connection, tenant, name, wanted))[0]
