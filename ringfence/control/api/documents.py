"""What people decide as YAML documents: apply them, and export them."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.api.numbers import VersionNumber
from ringfence.control.api.requests import RequestResponse, request_response
from ringfence.control.apply import decide, named_in_vain, read_files, tree_with
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.background import attempt
from ringfence.control.effect import take_effect
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.plan import affected, in_force, refusal
from ringfence.control.policies import (
    load_documents,
    load_enforced,
    load_tree,
    load_workspace,
    refuse_imported,
)
from ringfence.control.services import Services, ServicesDep
from ringfence.control.writing import next_versions, write_changes
from ringfence.inventory.contents import sets_with
from ringfence.model.address_set import AddressSet
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.model.policy import Workspace
from ringfence.model.scope import InventoryFilter, Scope, ScopeTree
from ringfence.policy.difference import ChangeKind, DocumentKind
from ringfence.policy.document import Documents, format_documents
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.order import PolicySet
from ringfence.policy.scope_checks import divided_clusters
from ringfence.store.relational.address_sets import all_address_sets
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.requests import HeldRequest
from ringfence.store.relational.workspaces import heads, last_versions

router = APIRouter(tags=["documents"])


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
    warnings: list[str] = Field(
        description="What is odd about the scopes given, what changed policies name in vain, more."
    )
    requests: list[RequestResponse]
    refused: str


class ExportResponse(BaseModel):
    """Documents in the form that apply reads."""

    documents: str


@router.post("/apply")
async def apply(request: ApplyRequest, services: ServicesDep, author: AuthorDep) -> ApplyResponse:
    """Make all as the documents say; a changed workspace gets a new version.

    What is enforced stays the same versions; a changed scope, filter or address set changes at once
    whom they govern and name, and is refused where enforcing that would be.
    """
    given = await read_request(request)
    tenant = author.principal.tenant
    begin = services.database.read if request.dry_run else services.database.write
    async with begin() as connection:
        await refuse_imported(connection, tenant, (one.name for one in given.workspaces))
        held, latest = await load_documents(connection, tenant)
        changes = await asyncio.to_thread(decide, held, given)
        numbers = await last_versions(connection, tenant)
        versions = {**latest, **next_versions(numbers, changes)}
        tree = tree_with(held, given)
        workloads, refused, problem = await _governance(
            connection,
            services,
            tenant,
            (ScopeTree(held.scopes, held.filters), tree),
            given,
            request.override,
        )
        if not request.dry_run:
            if refused:
                raise ConflictError(refused)
            await write_changes(connection, services.clock(), given, changes, versions, author)
    warnings = [problem] if problem else []
    requests: list[HeldRequest] = []

    async def look() -> None:
        warnings.extend(await asyncio.to_thread(_warnings, services, tree, held, given))
        requests.extend(await services.requests.foresee(tree, held, given))

    if not request.dry_run:
        warnings += await take_effect(services)
    if unknown := await attempt(look, lambda: None):
        warnings.append(f"what this names in vain, and needs of others, is not known: {unknown}")
    return ApplyResponse(
        changes=[
            DocumentChangeResponse(
                kind=change.kind,
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
        warnings=warnings,
        requests=[request_response(one) for one in requests],
        refused=refused,
    )


async def read_request(request: ApplyRequest) -> Documents:
    """The documents of the files; others are served meanwhile. Raises InputError."""
    files = [(file.name, file.documents) for file in request.files]
    return await asyncio.to_thread(read_files, files)


def _warnings(services: Services, tree: ScopeTree, held: Documents, given: Documents) -> list[str]:
    snapshot, now = services.inventory.timeline.latest(), services.inventory.now()
    # Before anything expires, as `ringfence lint` judges.
    then = Moment(UNTOLD.at_ns, now.names, sets_with(now.sets, given.address_sets))
    unversioned = [(one, Version(0)) for one in given.workspaces]
    return [
        *(str(one) for one in (divided_clusters(snapshot, tree) if given.scopes else ())),
        *named_in_vain(held, given, PolicySet(snapshot, tree, unversioned, then)),
    ]


async def _governance(
    connection: AsyncConnection,
    services: Services,
    tenant: TenantId,
    trees: tuple[ScopeTree, ScopeTree],
    given: Documents,
    overrides: Collection[Override],
) -> tuple[tuple[str, ...], str, str]:
    """For whom other enforced rules decide with what is given, and why that ought not to be.

    At the end why what is enforced has no meaning, with what is given either.
    """
    enforced = await load_enforced(connection, tenant)
    apart = await load_quarantines(connection, tenant)
    snapshot = services.inventory.timeline.latest()
    now = services.inventory.now()
    moments = now, replace(now, sets=sets_with(now.sets, given.address_sets))

    def work() -> tuple[tuple[str, ...], str, str]:
        before, broken = in_force(snapshot, trees[0], enforced, moments[0], apart)
        after, problem = in_force(snapshot, trees[1], enforced, moments[1], apart)
        if problem and not broken:
            raise InputError(problem)
        workloads = affected(before, after)
        return workloads, refusal(after, overrides) if workloads else "", problem

    return await asyncio.to_thread(work) if enforced else ((), "", "")


@router.get("/export")
async def export(
    services: ServicesDep,
    principal: PrincipalDep,
    kind: DocumentKind | None = None,
    name: str | None = None,
    version: VersionNumber | None = None,
) -> ExportResponse:
    """Give documents as YAML; `version` asks for an older one of a workspace."""
    if version is not None and (kind is not DocumentKind.WORKSPACE or name is None):
        raise InputError("a version belongs to one workspace: give kind=Workspace and its name")
    scopes: list[Scope] = []
    filters: list[InventoryFilter] = []
    address_sets: list[AddressSet] = []
    workspaces: list[Workspace] = []
    async with services.database.read() as connection:
        tree = await load_tree(connection, principal.tenant)
        if kind in (None, DocumentKind.SCOPE):
            scopes = [scope for scope in tree.preorder() if name in (None, scope.name)]
        if kind in (None, DocumentKind.FILTER):
            filters = [one for one in tree.filters.values() if name in (None, one.name)]
        if kind in (None, DocumentKind.ADDRESS_SET):
            sets = [one.address_set for one in await all_address_sets(connection, principal.tenant)]
            address_sets = [one for one in sets if name in (None, one.name)]
        if kind in (None, DocumentKind.WORKSPACE):
            workspaces = [
                await _workspace(connection, principal.tenant, head.name, version)
                for head in await heads(connection, principal.tenant)
                if name == head.name or (name is None and head.kubernetes_cluster is None)
            ]
    held = Documents(tuple(scopes), tuple(workspaces), tuple(filters), tuple(address_sets))
    if name is not None and held == Documents():
        raise NotFoundError(f"there is no {kind or 'document'} {name!r}")
    return ExportResponse(documents=await asyncio.to_thread(format_documents, held))


async def _workspace(
    connection: AsyncConnection, tenant: TenantId, name: WorkspaceName, version: int | None
) -> Workspace:
    wanted = Version(version) if version is not None else None
    return (await load_workspace(connection, tenant, name, wanted))[0]
