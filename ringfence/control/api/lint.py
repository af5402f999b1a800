"""What is odd about the policies that the control plane holds."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window
from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.identity import Principal
from ringfence.control.policies import load_documents
from ringfence.control.services import Services, ServicesDep
from ringfence.control.usage import usage
from ringfence.flows.connections import records
from ringfence.inventory.as_known import FOREVER, AsKnown
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.duration import parse_duration
from ringfence.model.ids import RevisionId, WorkspaceName
from ringfence.model.scope import ScopeTree
from ringfence.policy.finding import Finding, Oddity
from ringfence.policy.lint import expiring, lint, lint_sets, unused
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.order import Enforced, PolicySet
from ringfence.store.flows.queries import HOPS

router = APIRouter(tags=["policies"])


class FindingResponse(BaseModel):
    """Something odd about a policy; `others`, as WORKSPACE/POLICY, make it so."""

    kind: Oddity
    workspace: str
    policy: str
    why: str
    others: list[str]


class LintQuery(BaseModel):
    """Which workspaces, and how far to look for policies that nothing used, or that expire."""

    workspace: list[str] = Field(default=[], description="These only; all if left out.")
    unused: str | None = Field(default=None, description="A duration back from now, such as 30d.")
    expiring: str | None = Field(default=None, description="A duration from now, such as 14d.")


class LintResponse(BaseModel):
    """Findings by workspace, in the order in which each lists its policies."""

    items: list[FindingResponse]


@router.get("/lint")
async def lint_policies(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[LintQuery, Query()]
) -> LintResponse:
    """Judge the latest version of each workspace among those that stand beside it."""
    async with services.database.read() as connection:
        held, latest = await load_documents(connection, principal.tenant)
    for name in asked.workspace:
        if name not in latest:
            raise NotFoundError(f"there is no workspace {name!r}")
    about = {WorkspaceName(name) for name in asked.workspace} or set(latest)
    tree = ScopeTree(held.scopes, held.filters)
    # Before anything expires: what is odd about a policy is so as long as it counts.
    moment = replace(services.inventory.now(), at_ns=UNTOLD.at_ns)
    known = services.inventory.timeline.as_known()
    snapshot = await asyncio.to_thread(_expected, known)
    found: list[Finding] = []
    for bound, judged in lint_sets(held.workspaces, latest, about):
        found += await asyncio.to_thread(_lint, snapshot, tree, bound, judged, moment)
        if asked.unused is not None:
            found += await _unused(services, principal, asked.unused, tree, moment, bound, judged)
    within_ns = parse_duration(asked.expiring) * 10**9 if asked.expiring else 0
    judged_ones = [one for one in held.workspaces if one.name in about]
    found += expiring(judged_ones, services.clock(), within_ns)
    return LintResponse(
        items=[
            FindingResponse(
                kind=one.kind,
                workspace=one.workspace,
                policy=one.policy,
                why=one.why,
                others=list(one.others),
            )
            for one in sorted(found, key=lambda one: one.workspace)
        ]
    )


def _expected(known: AsKnown) -> Snapshot:
    return Snapshot((RevisionId(at), one) for at, one in enumerate(known.expected(FOREVER - 1), 1))


def _lint(
    snapshot: Snapshot,
    tree: ScopeTree,
    bound: list[Enforced],
    judged: set[WorkspaceName],
    moment: Moment,
) -> list[Finding]:
    named = [workspace for workspace, _ in bound if workspace.name in judged]
    return lint(PolicySet(snapshot, tree, bound, moment), named)


async def _unused(
    services: Services,
    principal: Principal,
    since: str,
    tree: ScopeTree,
    moment: Moment,
    bound: list[Enforced],
    judged: set[WorkspaceName],
) -> list[Finding]:
    window = read_window(services, since, None)
    hops = await services.flow_store.query(HOPS, {"tenant": principal.tenant, **window})
    seen = await asyncio.to_thread(records, hops)
    counts = await usage(seen, services.inventory.timeline, window["until"], tree, bound, moment)
    return [one for one in unused(bound, counts, since) if one.workspace in judged]
