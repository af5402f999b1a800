"""Versions of workspaces: what became of each, how two differ, and the way back to one."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.numbers import VersionNumber
from ringfence.control.apply import decide
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.effect import take_effect
from ringfence.control.errors import NotFoundError
from ringfence.control.policies import (
    load_documents,
    load_version,
    load_workspace,
    read_version,
)
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.control.writing import next_versions, write_changes
from ringfence.model.errors import InputError
from ringfence.model.ids import Version, WorkspaceName, parse_version
from ringfence.policy.difference import PartChange, workspace_difference
from ringfence.policy.document import Documents
from ringfence.policy.kubernetes.imported import ImportedWorkspace, imported_difference
from ringfence.store.relational.enforcement import Period, last_enforced
from ringfence.store.relational.workspaces import Analysed, analysed, versions

router = APIRouter(tags=["workspaces"])


class MarkResponse(BaseModel):
    """Who did something to a version, and when."""

    actor: str
    at: str


class EnforcedResponse(MarkResponse):
    """When a version was enforced last; `until` is null while it is."""

    until: str | None


class VersionResponse(BaseModel):
    """A version of a workspace and its marks, null where it has not come to that."""

    version: int
    scope: str
    primary: bool
    policies: int = Field(description="How many there are.")
    proposed: MarkResponse
    analysed: MarkResponse | None = Field(description="The first time.")
    enforced: EnforcedResponse | None


class VersionsResponse(BaseModel):
    """Versions, the newest first."""

    items: list[VersionResponse]


class PartResponse(BaseModel):
    """One thing that differs: a policy, a cluster, a catch-all, or a field of one.

    `old` and `new` are as documents write them; of a policy that moved, its places in the list.
    """

    part: str
    field: str
    change: PartChange
    old: Any
    new: Any
    text: str


class VersionDifferenceResponse(BaseModel):
    """What leads from one version to another."""

    old: str
    new: str
    differences: list[PartResponse]


class RollbackRequest(BaseModel):
    """The version whose content is to be the latest again."""

    version: VersionNumber
    dry_run: bool = False


class RollbackResponse(BaseModel):
    """The latest version then; `differences` are against the one before, none if it stays."""

    version: int
    differences: list[str]


@router.get("/workspaces/{name}/versions")
async def list_versions(
    name: str, services: ServicesDep, principal: PrincipalDep
) -> VersionsResponse:
    """List the versions of a workspace with their marks, the newest first."""
    workspace, tenant = WorkspaceName(name), principal.tenant
    async with services.database.read() as connection:
        found = await versions(connection, tenant, workspace)
        seen = await analysed(connection, tenant, workspace)
        enforced = await last_enforced(connection, tenant, workspace)
    if not found:
        raise NotFoundError(f"there is no workspace {name!r}")
    items = []
    for one in found:
        content = await read_version(one)
        analysis, period = seen.get(one.version), enforced.get(one.version)
        items.append(
            VersionResponse(
                version=one.version,
                scope=content.scope,
                primary=content.primary,
                policies=len(content.policies),
                proposed=MarkResponse(actor=one.actor, at=format_time(one.created_ns)),
                analysed=_analysed(analysis) if analysis else None,
                enforced=_enforced(period) if period else None,
            )
        )
    return VersionsResponse(items=items)


@router.get("/versions/difference")
async def compare_versions(
    old: str, new: str, services: ServicesDep, principal: PrincipalDep
) -> VersionDifferenceResponse:
    """Tell what differs between two versions, each WORKSPACE, or WORKSPACE@p2 for an older one."""
    async with services.database.read() as connection:
        (before, first), (after, second) = [
            await load_version(connection, principal.tenant, *parse_version(text))
            for text in (old, new)
        ]
    if isinstance(before, ImportedWorkspace) and isinstance(after, ImportedWorkspace):
        differences = imported_difference(before, after)
    elif isinstance(before, ImportedWorkspace) or isinstance(after, ImportedWorkspace):
        raise InputError(
            "policies of Kubernetes and of Ringfence have no parts in common: compare what they "
            f"let through, with `ringfence diff --reach {old} {new}`"
        )
    else:
        differences = workspace_difference(before, after)
    return VersionDifferenceResponse(
        old=f"{before.name}@p{first}",
        new=f"{after.name}@p{second}",
        differences=[
            PartResponse(
                part=one.part,
                field=one.field,
                change=one.change,
                old=one.old,
                new=one.new,
                text=str(one),
            )
            for one in differences
        ],
    )


@router.post("/workspaces/{name}/rollback")
async def roll_back(
    name: str, request: RollbackRequest, services: ServicesDep, author: AuthorDep
) -> RollbackResponse:
    """Make a new version with the content of an older one; what is enforced stays as it is."""
    tenant = author.principal.tenant
    begin = services.database.read if request.dry_run else services.database.write
    async with begin() as connection:
        content, number = await load_workspace(
            connection, tenant, WorkspaceName(name), Version(request.version)
        )
        held, latest = await load_documents(connection, tenant)
        given = Documents(workspaces=(content,))
        changes = await asyncio.to_thread(decide, held, given)
        made = {**latest, **next_versions(latest, changes)}
        if not request.dry_run:
            why = f", back to p{number}"
            await write_changes(connection, services.clock(), given, changes, made, author, why)
    if not request.dry_run:
        await take_effect(services)
    (change,) = changes
    return RollbackResponse(version=made[content.name], differences=list(change.lines))


def _analysed(mark: Analysed) -> MarkResponse:
    return MarkResponse(actor=mark.actor, at=format_time(mark.at_ns))


def _enforced(period: Period) -> EnforcedResponse:
    until = None if period.until_ns is None else format_time(period.until_ns)
    return EnforcedResponse(actor=period.actor, at=format_time(period.since_ns), until=until)
