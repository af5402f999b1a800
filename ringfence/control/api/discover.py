"""Policies proposed from what was seen."""

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window
from ringfence.control.auth import PrincipalDep
from ringfence.control.discover import discover
from ringfence.control.discovered import answer, wanted_of
from ringfence.control.errors import NotFoundError
from ringfence.control.policies import load_tree
from ringfence.control.services import ServicesDep
from ringfence.discovery.boundary import Boundary
from ringfence.flows.connections import records
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.store.flows.queries import HOPS

router = APIRouter(tags=["discovery"])


class DiscoverRequest(BaseModel):
    """Where and when to look; the scope names the workspace too."""

    scope: str
    since: str = "1h"
    until: str | None = None
    boundary: Boundary = Boundary.FINE
    ports: int = Field(default=2, ge=1, le=5)
    compress: int = Field(default=3, ge=1, le=5)
    exclude: str | None = Field(default=None, description="A filter over workloads.")
    approved: str | None = Field(default=None, description="A workspace in YAML.")
    every_edge: bool = Field(default=False, description="Whether to tell of every observed edge.")


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
    changes: list[str] = Field(description="Against the approved workspace.")
    warnings: list[str]


class DiscoverResponse(BaseModel):
    """The proposal as a YAML document, to be read, kept and applied."""

    documents: str
    summary: Summary
    report: dict[str, Any] | None = Field(description="As `ringfence discover -o json` has it.")


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
    hops = await services.flow_store.query(HOPS, {"tenant": principal.tenant, **window})
    timeline = services.inventory.timeline
    how = wanted_of(
        request.boundary, request.ports, request.compress, request.exclude, request.approved
    )
    found = await asyncio.to_thread(discover, records(hops), timeline, tree, scope, name, how)
    told = answer(found, (), how.approved, every_edge=request.every_edge)
    return DiscoverResponse.model_validate(told)
