"""What discovery recommends for watched scopes."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.api.discover import ChangeView, UseView
from ringfence.control.api.documents import ApplyRequest, ApplyResponse, File, apply
from ringfence.control.api.numbers import VersionNumber
from ringfence.control.approved import load_approved
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.policies import load_tree, load_workspace
from ringfence.control.recommendations import read_proposed
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.discovery.changes import ChangeKind, PolicyChange, changed
from ringfence.model.ids import ScopeName, TenantId
from ringfence.model.override import Override
from ringfence.model.policy import Workspace
from ringfence.policy.document import Documents, format_documents
from ringfence.policy.policy_fields import policy_spec
from ringfence.store.relational.recommendations import (
    Recommendation,
    all_recommendations,
    find_recommendation,
    unwatch_scope,
    watch_scope,
)

router = APIRouter(prefix="/recommendations", tags=["discovery"])

_HOUR, _DAY = 3600, 24 * 3600


class WatchRequest(BaseModel):
    """A scope to watch, by the traffic of so much time each time."""

    scope: str
    window_seconds: int = Field(default=_DAY, ge=_HOUR, le=30 * _DAY)


class WatchView(BaseModel):
    """A watched scope, and how much is recommended for it; null times: nobody looked yet."""

    scope: str
    window_seconds: int
    actor: str
    since: str
    looked: str | None
    changed: str | None = Field(description="Since when this is recommended.")
    problem: str = Field(description="Why the last look failed; empty: it did not.")
    counts: dict[ChangeKind, int]


class WatchesResponse(BaseModel):
    """Watched scopes by name."""

    items: list[WatchView]


class RecommendedView(ChangeView):
    """A change, with the policy as documents write it: the proposed one, or the one of no use."""

    document: dict[str, Any]


class RecommendationView(WatchView):
    """What is recommended, against `version` of the scope's workspace; null: it has none.

    `documents` is that workspace with what is new, and all that it had.
    """

    workspace: str
    version: int | None
    changes: list[RecommendedView]
    approved: list[UseView] = Field(description="How often each policy of that version decided.")
    documents: str


class Chosen(BaseModel):
    """One of the changes."""

    change: ChangeKind
    policy: str


class AcceptRequest(BaseModel):
    """Changes to make to the scope's workspace, of which `version` must be the latest."""

    version: VersionNumber | None
    accept: list[Chosen] = Field(min_length=1)
    dry_run: bool = False
    override: list[Override] = []


@router.get("")
async def list_recommendations(services: ServicesDep, principal: PrincipalDep) -> WatchesResponse:
    """List the watched scopes."""
    async with services.database.read() as connection:
        every = await all_recommendations(connection, principal.tenant)
    return WatchesResponse(items=[WatchView(**_watch(one)) for one in every])


@router.post("")
async def start_recommending(
    request: WatchRequest, services: ServicesDep, author: AuthorDep
) -> WatchView:
    """Watch a scope; nothing changes where it is watched already."""
    tenant, now_ns, scope = author.principal.tenant, services.clock(), ScopeName(request.scope)
    async with services.database.write() as connection:
        if scope not in await load_tree(connection, tenant):
            raise NotFoundError(f"there is no scope {scope!r}; see `ringfence scopes list`")
        held = await find_recommendation(connection, tenant, scope)
        one = held or Recommendation(scope, request.window_seconds, author.principal.actor, now_ns)
        if held is None:
            await watch_scope(connection, tenant, one)
            what = f"began to watch scope {scope} for recommendations"
            await author.note(connection, now_ns, what, about=f"scope/{scope}")
    services.recommendations.renew(scope)
    return WatchView(**_watch(one))


@router.delete("")
async def stop_recommending(scope: str, services: ServicesDep, author: AuthorDep) -> None:
    """Watch a scope no more; what was recommended is forgotten."""
    async with services.database.write() as connection:
        if not await unwatch_scope(connection, author.principal.tenant, ScopeName(scope)):
            raise _unwatched(scope)
        what = f"watches scope {scope} no more for recommendations"
        await author.note(connection, services.clock(), what, about=f"scope/{scope}")


@router.get("/{scope}")
async def show_recommendation(
    scope: str, services: ServicesDep, principal: PrincipalDep
) -> RecommendationView:
    """Tell what is recommended for a watched scope."""
    async with services.database.read() as connection:
        one, base, proposed = await _load(connection, principal.tenant, scope)
    differing = _differing(one, base, proposed)
    return RecommendationView(
        **_watch(one),
        workspace=base.name,
        version=one.version,
        changes=[
            RecommendedView(**told, document=policy_spec(change.policy))
            for told, change in zip(one.changes, differing, strict=True)
        ],
        approved=[UseView(**told) for told in one.approved],
        documents=_amended(
            base, proposed, [told for told in differing if told.kind is not ChangeKind.UNUSED]
        ),
    )


@router.post("/{scope}/accept")
async def accept(
    scope: str, request: AcceptRequest, services: ServicesDep, author: AuthorDep
) -> ApplyResponse:
    """Make a version of the scope's workspace with some of the changes."""
    tenant = author.principal.tenant
    async with services.database.read() as connection:
        one, base, proposed = await _load(connection, tenant, scope)
        held = await load_approved(connection, tenant, one.scope, latest=True)
    latest = held[1] if held else None
    if not (request.version == one.version == latest):
        raise ConflictError(
            f"workspace {base.name} has changed since this was recommended: {_again(scope)}"
        )
    wanted = {(told.change, told.policy) for told in request.accept}
    chosen = [
        told for told in _differing(one, base, proposed) if (told.kind, told.policy.id) in wanted
    ]
    if len(chosen) < len(wanted):
        raise ConflictError(f"not all of this is recommended for {scope} any more: {_again(scope)}")
    file = File(name=f"recommended for {scope}", documents=_amended(base, proposed, chosen))
    asked = ApplyRequest(files=[file], dry_run=request.dry_run, override=request.override)
    made = await apply(asked, services, author)
    if not request.dry_run:
        services.recommendations.renew(one.scope)
    return made


async def _load(
    connection: AsyncConnection, tenant: TenantId, scope: str
) -> tuple[Recommendation, Workspace, Workspace]:
    """What is recommended, the workspace that it is for, and the one that was proposed."""
    one = await find_recommendation(connection, tenant, ScopeName(scope))
    if one is None:
        raise _unwatched(scope)
    if not one.proposed:
        why = f": {one.problem}" if one.problem else " yet: it is about to be looked at"
        raise ConflictError(f"nothing is recommended for {scope}{why}")
    proposed = read_proposed(one)
    if one.version is None:
        return one, replace(proposed, clusters=(), policies=()), proposed
    args = connection, tenant, proposed.name, one.version
    return one, (await load_workspace(*args, even_deleted=True))[0], proposed


def _again(scope: str) -> str:
    """How to have what is recommended for a watched scope found anew."""
    return (
        f"have it looked at anew by `ringfence recommendations start {scope}`, and see "
        f"`ringfence recommendations show {scope}`"
    )


def _unwatched(scope: str) -> NotFoundError:
    return NotFoundError(
        f"scope {scope!r} is not watched; see `ringfence recommendations start {scope}`"
    )


def _differing(one: Recommendation, base: Workspace, proposed: Workspace) -> list[PolicyChange]:
    new = {policy.id: policy for policy in proposed.policies}
    old = {policy.id: policy for policy in base.policies}
    kinds = ((ChangeKind(told["change"]), told["policy"]) for told in one.changes)
    return [
        PolicyChange(kind, (old if kind is ChangeKind.UNUSED else new)[policy])
        for kind, policy in kinds
    ]


def _amended(base: Workspace, proposed: Workspace, chosen: list[PolicyChange]) -> str:
    return format_documents(Documents(workspaces=(changed(base, proposed, chosen),)))


def _watch(one: Recommendation) -> dict[str, Any]:
    kinds = [told["change"] for told in one.changes]
    return {
        "scope": one.scope,
        "window_seconds": one.window_seconds,
        "actor": one.actor,
        "since": format_time(one.since_ns),
        "looked": None if one.looked_ns is None else format_time(one.looked_ns),
        "changed": None if one.changed_ns is None else format_time(one.changed_ns),
        "problem": one.problem,
        "counts": {kind: kinds.count(kind) for kind in ChangeKind},
    }
