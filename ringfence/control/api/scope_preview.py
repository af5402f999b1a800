"""What an edit of the scopes would do, in detail, before anybody applies it."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from fastapi import APIRouter
from pydantic import BaseModel, Field
from pyroaring import BitMap

from ringfence.control.api.documents import ApplyRequest, read_request
from ringfence.control.apply import decide, tree_with
from ringfence.control.auth import PrincipalDep
from ringfence.control.plan import refusal
from ringfence.control.policies import load_documents, load_enforced
from ringfence.control.services import ServicesDep
from ringfence.inventory.contents import sets_with
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ScopeName
from ringfence.model.override import Override
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Stage
from ringfence.policy.ends import members
from ringfence.policy.impact import impact
from ringfence.policy.order import PolicySet
from ringfence.policy.scope_checks import divided_clusters, overlaps
from ringfence.store.relational.quarantines import load_quarantines

router = APIRouter(tags=["scopes"])

_NAMED = 10


class Workloads(BaseModel):
    """Some workloads."""

    count: int
    names: list[str] = Field(description="The first ten, by name.")


class ScopeSizeResponse(BaseModel):
    """How many workloads a scope has and would have; null where there is no such scope."""

    name: str
    before: int | None
    after: int | None


class MoveResponse(BaseModel):
    """Workloads that leave the same scopes and join the same ones."""

    left: list[str]
    joined: list[str]
    workloads: Workloads


class RuleChangeResponse(BaseModel):
    """A policy, or for null the catch-all, of an enforced workspace that would change.

    `gained` and `lost` are where it begins and ceases to decide; `altered` are where it goes on to,
    but names other peers.
    """

    workspace: str
    version: int
    policy: str | None
    stage: Stage
    gained: Workloads
    lost: Workloads
    altered: Workloads


class SwapResponse(BaseModel):
    """Two enforced workspaces in their new order, which is not that of now."""

    first: str
    second: str
    workloads: Workloads = Field(description="Those that both govern.")


class OverlapResponse(BaseModel):
    """Two siblings that share workloads.

    Of absolute policies those of `first` are read first, of default ones and catch-alls those of
    `second`.
    """

    first: str
    second: str
    workloads: int


class PreviewResponse(BaseModel):
    """What the files would do through the scopes in them; `refused` is why apply would not."""

    scopes: list[ScopeSizeResponse]
    moves: list[MoveResponse]
    workspaces: list[str] = Field(description="The enforced workspaces that are touched.")
    workloads: Workloads = Field(description="Those at which what is enforced changes.")
    rules: list[RuleChangeResponse]
    swaps: list[SwapResponse]
    overlaps: list[OverlapResponse] = Field(description="Siblings that would share workloads.")
    warnings: list[str]
    refused: str


@router.post("/scopes/preview")
async def preview_scopes(
    request: ApplyRequest, services: ServicesDep, principal: PrincipalDep
) -> PreviewResponse:
    """Tell what the scopes in the files would do to workloads and enforced policies."""
    given = await read_request(request)
    async with services.database.read() as connection:
        held, _ = await load_documents(connection, principal.tenant)
        enforced = await load_enforced(connection, principal.tenant)
        apart = await load_quarantines(connection, principal.tenant)
    snapshot, now = services.inventory.timeline.latest(), services.inventory.now()
    then = replace(now, sets=sets_with(now.sets, given.address_sets))

    def work() -> PreviewResponse:
        decide(held, given)
        sides = (ScopeTree(held.scopes, held.filters), now), (tree_with(held, given), then)
        before, after = (
            PolicySet(snapshot, tree, enforced, moment, apart) for tree, moment in sides
        )
        return _preview(before, after, request.override)

    return await asyncio.to_thread(work)


def _preview(
    before: PolicySet, after: PolicySet, override: Collection[Override]
) -> PreviewResponse:
    snapshot, old, new = after.snapshot, before.tree, after.tree
    found = impact(before, after)
    refused = refusal(after, override) if found.workloads else ""

    def named(positions: BitMap) -> Workloads:
        names = sorted(snapshot.items[position].display for position in positions)
        return Workloads(count=len(names), names=names[:_NAMED])

    return PreviewResponse(
        scopes=[
            ScopeSizeResponse(
                name=scope.name,
                before=_size(snapshot, old, scope.name),
                after=_size(snapshot, new, scope.name),
            )
            for scope in new.preorder()
        ],
        moves=[
            MoveResponse(
                left=list(move.left), joined=list(move.joined), workloads=named(move.workloads)
            )
            for move in found.moves
        ],
        workspaces=list(found.workspaces),
        workloads=named(found.workloads),
        rules=[
            RuleChangeResponse(
                workspace=change.decision.workspace,
                version=change.decision.version,
                policy=change.decision.policy,
                stage=change.decision.stage,
                gained=named(change.gained),
                lost=named(change.lost),
                altered=named(change.altered),
            )
            for change in found.rules
        ],
        swaps=[
            SwapResponse(first=swap.first, second=swap.second, workloads=named(swap.workloads))
            for swap in found.swaps
        ],
        overlaps=[
            OverlapResponse(first=one.first, second=one.second, workloads=len(one.workloads))
            for one in overlaps(snapshot, new)
        ],
        warnings=[str(one) for one in divided_clusters(snapshot, new)],
        refused=refused,
    )


def _size(snapshot: Snapshot, tree: ScopeTree, scope: ScopeName) -> int | None:
    return len(members(tree, snapshot, scope)) if scope in tree else None
