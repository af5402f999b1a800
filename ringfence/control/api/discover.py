"""Policies proposed from what was seen."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.admitted import admitted
from ringfence.control.analysis import history_of
from ringfence.control.api.flow_search import read_window
from ringfence.control.approved import known_of, load_above, load_approved
from ringfence.control.auth import PrincipalDep
from ringfence.control.comparison import discover_beside
from ringfence.control.discovered import answer, coverage_of, wanted_of
from ringfence.control.errors import NotFoundError
from ringfence.control.observed import observed
from ringfence.control.policies import load_tree
from ringfence.control.services import ServicesDep
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.changes import ChangeKind
from ringfence.model.ids import ScopeName, TenantId
from ringfence.model.scope import ScopeTree
from ringfence.store.relational.workspaces import heads

router = APIRouter(tags=["discovery"])


Level = Annotated[int, Field(ge=1, le=5)]


class DiscoverRequest(BaseModel):
    """Where and when to look; the scope names the workspace too."""

    scope: str
    since: str = "24h"
    until: str | None = None
    boundary: Boundary = Boundary.FINE
    ports: Level = 2
    compress: Level = 3
    exclude: Annotated[str | None, Field(description="A filter over workloads.")] = None
    approved: Annotated[
        str | None,
        Field(description="A workspace in YAML; null: the scope's own, as enforced or its latest."),
    ] = None
    anew: Annotated[bool, Field(description="Compare with nothing, and keep no clusters.")] = False
    own: Annotated[bool, Field(description="Whether to add nothing to ancestors' workspaces.")] = (
        False
    )
    begin: Annotated[
        bool,
        Field(description="Whether the nearest scope above gets a workspace where none has one."),
    ] = False
    every_edge: Annotated[bool, Field(description="Whether to tell of every observed edge.")] = (
        False
    )


class NoiseView(BaseModel):
    """Connections that were left out of the proposal, and why."""

    reason: str
    count: int
    example: str


class UseView(BaseModel):
    """How many conversations of the time a policy decided, and when it last decided any.

    `note` says of one without any for how long that is so.
    """

    policy: str
    conversations: int
    last: str | None
    note: str


class ChangeView(UseView):
    """A policy that differs; of one that is not approved yet, what was seen that it is for."""

    change: ChangeKind


class Summary(BaseModel):
    """What the proposal comes from."""

    edges: int = Field(description="Distinct edges that were seen, core services' too.")
    policies: int
    served: bool = Field(description="Whether a policy lets any of them pass, proposed or above.")
    brief: bool = Field(
        description="Whether less than two hours were seen: nothing is known to be rare then, and "
        "what was answered is allowed but for scans."
    )
    noise: list[NoiseView]
    changes: list[ChangeView] = Field(description="Against the approved workspace.")
    warnings: list[str]


class DiscoverResponse(BaseModel):
    """The proposal as a YAML document, to be read, kept and applied."""

    documents: str
    summary: Summary
    report: dict[str, Any] | None = Field(description="As `ringfence discover -o json` has it.")


class CoverageResponse(BaseModel):
    """What was seen of a scope's workloads, and estimates of what was not; shares are from 0 to 1.

    `would_block`: of the conversations of the last fifth of the time, those that a discovery from
    what came before would have blocked. Neither it nor `edges` has core services in it.
    """

    workloads: int = Field(description="Roles.")
    observed_a_day: int
    silent: int
    share: float = Field(description="Of the workloads, those observed for a day.")
    span_seconds: int
    edges: int
    core: int = Field(description="Edges of core services.")
    allowed: int
    noise: int = Field(description="Edges of scans, of what was refused and the like.")
    unseen_edges: float | None = Field(
        description="Null where the time is too short for an estimate."
    )
    unseen_next_conversation: float
    would_block: float | None = Field(description="Null where the last fifth has nothing allowed.")
    sentences: list[str]


@router.post("/discover")
async def propose_policies(
    request: DiscoverRequest, services: ServicesDep, principal: PrincipalDep
) -> DiscoverResponse:
    """Propose the least set of policies that what was seen needs. Changes nothing."""
    how = wanted_of(
        request.scope,
        request.boundary,
        request.ports,
        request.compress,
        request.exclude,
        request.approved,
        own=request.own,
    )
    window, tenant = read_window(services, request.since, request.until), principal.tenant
    async with services.database.read() as connection:
        tree = await _tree(connection, tenant, request.scope)
        name, known = ScopeName(request.scope), {}
        if how.approved is None and not request.anew:
            held = await load_approved(connection, tenant, name)
            how = replace(how, approved=held[0] if held else None)
            known = await known_of(connection, tenant, held, window["until"]) if held else {}
        taken = frozenset(one.name for one in await heads(connection, tenant))
        above = await load_above(connection, tenant, tree, name)
        how = replace(how, begin=request.begin, above=above, taken=taken)
    seen = await observed(services.flow_store, tenant, window["since"], window["until"])
    history = history_of(services.inventory, services.enforcement.surroundings)
    found, compared = await discover_beside(seen, history, tree, name, window["until"], how, known)
    found, let_pass = await admitted(found, seen, history, tree, above)
    told = answer(found, (), compared, let_pass, every_edge=request.every_edge)
    return DiscoverResponse.model_validate(told)


@router.get("/coverage")
async def tell_coverage(
    services: ServicesDep,
    principal: PrincipalDep,
    scope: str,
    since: str = "24h",
    until: str | None = None,
) -> CoverageResponse:
    """How much of what a scope needs was seen: whether a discovery of that time can be trusted."""
    window = read_window(services, since, until)
    async with services.database.read() as connection:
        tree = await _tree(connection, principal.tenant, scope)
    since_ns, until_ns = window["since"], window["until"]
    seen = await observed(services.flow_store, principal.tenant, since_ns, until_ns)
    history = history_of(services.inventory, services.enforcement.surroundings)
    found, _ = await discover_beside(seen, history, tree, ScopeName(scope), until_ns)
    sentences = list(found.coverage.sentences())
    return CoverageResponse.model_validate({**coverage_of(found), "sentences": sentences})


async def _tree(connection: AsyncConnection, tenant: TenantId, scope: str) -> ScopeTree:
    tree = await load_tree(connection, tenant)
    if ScopeName(scope) not in tree:
        raise NotFoundError(f"there is no scope {scope!r}; see `ringfence scopes list`")
    return tree
