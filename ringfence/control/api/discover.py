"""Policies proposed from what was seen."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window
from ringfence.control.auth import PrincipalDep
from ringfence.control.discover import discover
from ringfence.control.errors import NotFoundError
from ringfence.control.observed import observed
from ringfence.control.policies import load_tree
from ringfence.control.services import ServicesDep
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.policy.document import Documents, format_documents

router = APIRouter(tags=["discovery"])


class DiscoverRequest(BaseModel):
    """Where and when to look; the scope names the workspace too."""

    scope: str
    since: str = "1h"
    until: str | None = None


class NoiseView(BaseModel):
    """Connections that were left out of the proposal, and why."""

    reason: str
    count: int
    example: str


class Summary(BaseModel):
    """What the proposal comes from."""

    edges: int = Field(description="Distinct edges between workloads that were seen.")
    policies: int
    noise: list[NoiseView]


class DiscoverResponse(BaseModel):
    """The proposal as a YAML document, to be read, kept and applied."""

    documents: str
    summary: Summary


@router.post("/discover")
async def propose_policies(
    request: DiscoverRequest, services: ServicesDep, principal: PrincipalDep
) -> DiscoverResponse:
    """Propose the least set of policies that what was seen needs. Changes nothing."""
    window = read_window(services, request.since, request.until or "0s")
    async with services.database.read() as connection:
        tree = await load_tree(connection, principal.tenant)
    if ScopeName(request.scope) not in tree:
        raise NotFoundError(f"there is no scope {request.scope!r}; see `ringfence scopes list`")
    name, scope = WorkspaceName(request.scope), ScopeName(request.scope)
    tenant, flow_store = principal.tenant, services.flow_store
    seen = await observed(flow_store, tenant, window["since"], window["until"])
    timeline = services.inventory.timeline
    found = discover(seen, timeline, timeline.latest(), tree, scope, name)
    return DiscoverResponse(
        documents=format_documents(Documents(workspaces=(found.workspace,))),
        summary=Summary(
            edges=found.edges,
            policies=len(found.workspace.policies),
            noise=[
                NoiseView(reason=one.reason, count=one.count, example=one.example)
                for one in found.noise
            ],
        ),
    )
