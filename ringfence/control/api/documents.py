"""Scopes and workspaces as YAML documents: apply them, and export them."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.apply import ChangeKind, DocumentChange, decide
from ringfence.control.audit import Author, AuthorDep
from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.policies import load_tree, load_workspace
from ringfence.control.services import ServicesDep
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import Scope
from ringfence.policy.document import format_documents, parse_documents
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


class DocumentChangeResponse(BaseModel):
    """What happens to one document; `version` is a workspace's afterwards."""

    kind: DocumentKind
    name: str
    change: ChangeKind
    diff: list[str]
    version: int | None


class ApplyResponse(BaseModel):
    """A change for each document, in the order given."""

    changes: list[DocumentChangeResponse]


class ExportResponse(BaseModel):
    """Documents in the form that apply reads."""

    documents: str


@router.post("/apply")
async def apply(request: ApplyRequest, services: ServicesDep, author: AuthorDep) -> ApplyResponse:
    """Make scopes and workspaces as the documents say; a changed workspace gets a new version.

    What is enforced stays the same versions; a changed scope changes at once whom they govern.
    """
    documents = [
        document
        for file in request.files
        for document in parse_documents(file.documents, file.name)
    ]
    tenant = author.principal.tenant
    async with services.database.write() as connection:
        tree = await load_tree(connection, tenant)
        held = {
            head.name: await load_workspace(connection, tenant, head.name)
            for head in await heads(connection, tenant)
        }
        changes = decide(tree, held, documents)
        if not request.dry_run:
            for change in changes:
                if change.change is not ChangeKind.UNCHANGED:
                    await _write(connection, services.clock(), change, author)
    if not request.dry_run:
        services.enforcement.touch()
    return ApplyResponse(changes=[_response(change) for change in changes])


async def _write(
    connection: AsyncConnection, now_ns: int, change: DocumentChange, author: Author
) -> None:
    document, principal = change.document, author.principal
    if isinstance(document, Scope):
        await put_scopes(connection, principal.tenant, [document], principal.actor, now_ns)
    elif change.version is not None:
        head = WorkspaceHead(
            document.name,
            document.scope,
            document.primary,
            change.version,
            principal.actor,
            now_ns,
        )
        await add_version(connection, principal.tenant, head, format_documents([document]))
    what = f"{change.change} {change.kind} {document.name}"
    await author.note(connection, now_ns, what, "\n".join(change.diff))


def _response(change: DocumentChange) -> DocumentChangeResponse:
    return DocumentChangeResponse(
        kind=DocumentKind(change.kind),
        name=change.document.name,
        change=change.change,
        diff=list(change.diff),
        version=change.version,
    )


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
    async with services.database.read() as connection:
        found: list[Scope | Workspace] = []
        if kind is not DocumentKind.WORKSPACE:
            tree = await load_tree(connection, principal.tenant)
            found += [scope for scope in tree.preorder() if name in (None, scope.name)]
        if kind is not DocumentKind.SCOPE:
            found += [
                (await _workspace(connection, principal.tenant, head.name, version))
                for head in await heads(connection, principal.tenant)
                if name in (None, head.name)
            ]
    if name is not None and not found:
        raise NotFoundError(f"there is no {kind or 'scope or workspace'} {name!r}")
    return ExportResponse(documents=format_documents(found))


async def _workspace(
    connection: AsyncConnection, tenant: TenantId, name: WorkspaceName, version: int | None
) -> Workspace:
    wanted = Version(version) if version is not None else None
    return (await load_workspace(connection, tenant, name, wanted))[0]
