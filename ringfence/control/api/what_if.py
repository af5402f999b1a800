"""What enforcing a version would block, and the policies that let it pass."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.analysis import history_of
from ringfence.control.api.documents import ApplyRequest, ApplyResponse, File, apply
from ringfence.control.api.flow_search import read_window
from ringfence.control.api.numbers import VersionNumber
from ringfence.control.api.why import DecisionResponse, decision_response
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.beside import NOTES, load_beside
from ringfence.control.errors import ConflictError
from ringfence.control.policies import load_judged_by, load_workspace
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.control.what_if import Blocked, WhatIf, what_if
from ringfence.flows.connections import records
from ringfence.flows.disposition import dispose
from ringfence.model.ids import Version, WorkspaceName, parse_version
from ringfence.model.override import Override
from ringfence.model.policy import Workspace
from ringfence.model.protocol import format_port, format_protocol
from ringfence.policy.document import API_VERSION, cluster_spec, workspace_spec
from ringfence.policy.policy_fields import policy_spec
from ringfence.policy.yaml_text import dump_all
from ringfence.store.flows.queries import HOPS

router = APIRouter(prefix="/what-if", tags=["analysis"])


class WhatIfQuery(BaseModel):
    """Which version, and the traffic of what time."""

    workspace: str
    version: VersionNumber | None = None
    with_: list[str] = Field(
        default=[], alias="with", description="More workspaces: NAME, or NAME@VERSION."
    )
    since: str = "1h"
    until: str | None = None


class BlockedResponse(BaseModel):
    """Conversations of one kind that pass now and would not."""

    consumer: str
    provider: str
    backend: str | None = Field(description="Who answers behind a Service; null for none.")
    protocol: str
    port: str = Field(description="As dialled; of ICMP the type and code.")
    conversations: int
    first: str
    last: str
    denied_by: list[DecisionResponse]
    policy: dict[str, Any] = Field(
        description="The least to add, as documents write it; if `held`, to take the review from."
    )
    held: bool = Field(description="Whether the policy is the version's own, which awaits review.")
    clusters: list[dict[str, Any]] = Field(
        description="Those that the policy names and the workspace lacks, as documents write them."
    )
    still_denied_by: list[DecisionResponse] = Field(
        description="The rules that deny it even with all these policies; none if it passes then."
    )
    noise: str = Field(
        description="Why discovery takes it for noise; empty if it does not. Noise comes last."
    )
    review: str = Field(
        description="Why somebody must look first, by the policy if `held`, else by discovery; "
        "empty for others. Comes before noise."
    )


class WhatIfResponse(BaseModel):
    """What would be blocked, in an order that stays."""

    workspace: str
    version: int
    conversations: int
    workloads: int = Field(description="Of the scope, that are at an end of one.")
    blocked: list[BlockedResponse]
    untold: int = Field(description="Kinds of conversations that there was no room to tell.")
    judged: int = Field(description="Conversations that pass, and that the version has a say in.")
    notes: list[str] = Field(description=NOTES)


class AcceptRequest(BaseModel):
    """Policies to add to a workspace, of which `version` must be the latest, and their clusters.

    One with the id of a policy that awaits review takes its place.
    """

    workspace: str
    version: VersionNumber
    policies: list[dict[str, Any]] = Field(min_length=1)
    clusters: list[dict[str, Any]] = []
    dry_run: bool = False
    override: list[Override] = []


@router.get("")
async def show_what_if(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[WhatIfQuery, Query()]
) -> WhatIfResponse:
    """Tell which conversations pass and would be denied were this version enforced."""
    window, tenant = read_window(services, asked.since, asked.until), principal.tenant
    name = WorkspaceName(asked.workspace)
    number = Version(asked.version) if asked.version is not None else None
    also = [parse_version(text) for text in asked.with_]
    async with services.database.read() as connection:
        made = await load_workspace(connection, tenant, name, number)
        given = [one for one, _ in also]
        beside = await load_beside(connection, tenant, name, number, given=given)
        wanted = [*beside.versions, *also, (name, number)]
        judged_by = await load_judged_by(connection, tenant, wanted)
    hops = await services.flow_store.query(HOPS, {"tenant": tenant, **window})
    seen = await asyncio.to_thread(records, hops)
    through, now_ns = services.ingest.through(), services.clock()
    fate = await asyncio.to_thread(dispose, seen, through, now_ns)
    history = history_of(services.inventory, services.enforcement.surroundings)
    found = await what_if(seen, fate, history, window["until"], judged_by, made)
    return what_if_response(name, made[1], found, beside.notes)


@router.post("/accept")
async def accept(request: AcceptRequest, services: ServicesDep, author: AuthorDep) -> ApplyResponse:
    """Make a version with these policies at the end, or in place of those that await review."""
    tenant, name = author.principal.tenant, WorkspaceName(request.workspace)
    async with services.database.read() as connection:
        latest, number = await load_workspace(connection, tenant, name)
    if number != request.version:
        raise ConflictError(
            f"{name}@p{number} is the latest by now, not p{request.version}: see what it would "
            f"block by `ringfence analyze {name} --if-enforced`"
        )
    document = amended_document(latest, request.clusters, request.policies)
    file = File(name=f"{name} with what was accepted", documents=dump_all([document]))
    wanted = ApplyRequest(files=[file], dry_run=request.dry_run, override=request.override)
    return await apply(wanted, services, author)


def amended_document(
    workspace: Workspace, clusters: Iterable[dict[str, Any]], policies: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """A workspace as documents write it, with these at the end of its own.

    A policy with the id of one that awaits review takes its place.
    """
    spec, given = workspace_spec(workspace), list(policies)
    own = spec.get("policies", ())
    waiting = {one["id"] for one in own if one.get("review")}
    ready = {one["id"]: one for one in given if one.get("id") in waiting}
    added = [one for one in given if one.get("id") not in waiting]
    spec["clusters"] = [*spec.get("clusters", ()), *clusters]
    spec["policies"] = [*(ready.get(one["id"], one) for one in own), *added]
    metadata = {"name": workspace.name}
    return {"apiVersion": API_VERSION, "kind": "Workspace", "metadata": metadata, "spec": spec}


def what_if_response(
    name: WorkspaceName, version: Version, found: WhatIf, notes: Iterable[str] = ()
) -> WhatIfResponse:
    """What was found, in words."""
    return WhatIfResponse(
        workspace=name,
        version=version,
        conversations=found.conversations,
        workloads=found.workloads,
        blocked=list(map(_blocked, found.blocked)),
        untold=found.untold,
        judged=found.judged,
        notes=list(notes),
    )


def _blocked(one: Blocked) -> BlockedResponse:
    return BlockedResponse(
        consumer=one.consumer,
        provider=one.provider,
        backend=one.backend,
        protocol=format_protocol(one.protocol),
        port=format_port(one.protocol, one.port),
        conversations=one.conversations,
        first=format_time(one.first_ns),
        last=format_time(one.last_ns),
        denied_by=list(map(decision_response, one.denied_by)),
        policy=policy_spec(one.least.policy),
        held=one.least.held,
        clusters=list(map(cluster_spec, one.least.clusters)),
        still_denied_by=list(map(decision_response, one.still_denied_by)),
        noise=one.noise,
        review=one.review,
    )
