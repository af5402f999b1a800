"""What a policy version says to live traffic."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.analysis import Judged, history_of, judge
from ringfence.control.api.flow_search import read_window
from ringfence.control.api.flow_views import FlowView, Views, received_at
from ringfence.control.api.numbers import VersionNumber
from ringfence.control.api.why import DecisionResponse, decision_response
from ringfence.control.auth import PrincipalDep
from ringfence.control.beside import NOTES, load_beside
from ringfence.control.identity import Principal
from ringfence.control.policies import load_judged_by
from ringfence.control.services import Services, ServicesDep
from ringfence.flows.connections import records
from ringfence.flows.disposition import dispose
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName, parse_version
from ringfence.model.verdict import EndRole
from ringfence.store.errors import StaleError
from ringfence.store.flows.queries import HOPS
from ringfence.store.relational.workspaces import Analysed, analysed, mark_analysed

router = APIRouter(tags=["analysis"])


class RecordView(BaseModel):
    """One connection in one category, with the deciding rule of each end; null: not governed."""

    category: Category
    conversations: int = Field(description="How many of the flow's are of the category.")
    flow: FlowView
    deciding: dict[EndRole, DecisionResponse | None]
    node: str = Field(description="Where it was received for a Service, if that decides.")
    logged: list[DecisionResponse] = Field(description="The log-only policies that it matches.")
    allowed: bool = Field(description="What the policies say, whatever became of the connection.")


class LoggedResponse(BaseModel):
    """How many of the connections in view a log-only policy matches."""

    decision: DecisionResponse
    connections: int


class AnalysisQuery(BaseModel):
    """What to judge by, and which connections; `limit` holds for each category."""

    workspace: str
    version: VersionNumber | None = None
    with_: list[str] = Field(
        default=[], alias="with", description="More workspaces: NAME, or NAME@VERSION."
    )
    since: str = "5m"
    until: str | None = None
    category: Category | None = Field(default=None, description="Show records of this one only.")
    limit: int = Field(default=200, ge=1, le=10_000)


class AnalysisResponse(BaseModel):
    """How many conversations fall in each category, and the newest connections of each."""

    workspace: str
    version: int
    counts: dict[Category, int]
    listed: dict[Category, int] = Field(description="Records of each, of which `limit` are told.")
    logged: list[LoggedResponse]
    records: list[RecordView]
    notes: list[str] = Field(default=[], description=NOTES)


@router.get("/analysis")
async def analyse(
    services: ServicesDep,
    principal: PrincipalDep,
    asked: Annotated[AnalysisQuery, Query()],
) -> AnalysisResponse:
    """Judge the connections of a time by the enforced set with this version in it."""
    window = read_window(services, asked.since, asked.until)
    tenant = principal.tenant
    workspace = WorkspaceName(asked.workspace)
    wanted = workspace, Version(asked.version) if asked.version is not None else None
    also = [parse_version(text) for text in asked.with_]
    async with services.database.read() as connection:
        beside = await load_beside(connection, tenant, *wanted, given=[name for name, _ in also])
        judged_by = await load_judged_by(connection, tenant, [*beside.versions, *also, wanted])
    version = judged_by.version(workspace)
    hops = await services.flow_store.query(HOPS, {"tenant": tenant, **window})
    seen = await asyncio.to_thread(records, hops)
    timeline = services.inventory.timeline
    judged = await judge(
        seen,
        history_of(services.inventory, services.enforcement.surroundings),
        window["until"],
        judged_by,
        workspace,
    )
    through, now_ns = services.ingest.through(), services.clock()
    dispositions = await asyncio.to_thread(dispose, seen, through, now_ns)
    first = dispositions.first()
    views, counts, listed, shown = Views(timeline), {}, {}, []
    for category, numbers in dispositions.categories(judged.allowed).items():
        chosen = (numbers * judged.in_view).nonzero()[0]
        counts[category], listed[category] = int(numbers[chosen].sum()), len(chosen)
        if asked.category not in (None, category):
            continue
        newest = chosen[seen.column("last_ns")[chosen].argsort()[::-1]][: asked.limit]
        rows = seen.take(newest).table.to_pylist()
        for at, row in zip(newest.tolist(), rows, strict=True):
            flow = views.record(row, int(seen.dropped[at]), str(first[at]))
            decided = judged.deciding[at]
            deciding = {
                role: decision_response(decided[role]) if role in decided else None
                for role in EndRole
            }
            node = received_at(timeline, row["dialled_revision"], row["node"])
            notes = [decision_response(one) for one in judged.logged[at]]
            allowed = bool(judged.allowed[at])
            shown.append(
                RecordView(
                    category=category,
                    conversations=int(numbers[at]),
                    flow=flow,
                    deciding=deciding,
                    node=node if EndRole.NODE in decided else "",
                    logged=notes,
                    allowed=allowed,
                )
            )
    await _mark(services, principal, workspace, version)
    return AnalysisResponse(
        workspace=asked.workspace,
        version=version,
        counts=counts,
        listed=listed,
        logged=_logged(judged),
        records=shown,
        notes=list(beside.notes),
    )


async def _mark(
    services: Services, principal: Principal, workspace: WorkspaceName, version: Version
) -> None:
    """Keep who was the first to analyse the version."""
    tenant = principal.tenant
    async with services.database.read() as connection:
        if version in await analysed(connection, tenant, workspace):
            return
    mark = Analysed(principal.actor, services.clock())
    with suppress(StaleError):  # somebody else is the first
        async with services.database.write() as connection:
            await mark_analysed(connection, tenant, workspace, version, mark)


def _logged(judged: Judged) -> list[LoggedResponse]:
    """By place in the order, the log-only policies that match a connection in view."""
    return [
        LoggedResponse(decision=decision_response(decision), connections=count)
        for decision, count in judged.logged.counts(judged.in_view).items()
    ]
