"""Flows and drops, as they were seen."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from ringfence.control.api.answers import answered
from ringfence.control.api.cursor import Cursor, question
from ringfence.control.api.flow_pages import Place, read_page
from ringfence.control.api.flow_search import (
    condition_on,
    read_window,
    revisions_of,
)
from ringfence.control.api.flow_views import EndView, FlowView, Views, pod_name
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.inventory.timeline import Timeline
from ringfence.model.flow import DropSource
from ringfence.model.keys import parse_filter
from ringfence.model.protocol import format_protocol
from ringfence.policy.handle import tell_handle
from ringfence.store.flows.filter import (
    ENDS,
    FLOW_KEYS,
    OF_DROP,
    Condition,
)
from ringfence.store.flows.queries import denied

router = APIRouter(tags=["flows"])

Limit = Annotated[int, Query(ge=1, le=1_000)]


class FlowsQuery(BaseModel):
    """Which connections, and in which order, the greatest first."""

    filter: str = "everything"
    since: str = "5m"
    until: str | None = None
    limit: int = Field(default=200, ge=1, le=1_000)
    sort: Literal["last", "first", "bytes", "packets", "opened", "dropped"] = "last"
    cursor: str | None = Field(
        default=None,
        description="`next` of a page before, asked with the same filter and sort; its times hold.",
    )


class FlowsResponse(BaseModel):
    """Connections, each with its hops."""

    items: list[FlowView]
    next: str | None = Field(description="The cursor of the next page; null: there is none.")


class DeniedView(BaseModel):
    """Drops at one place for one reason.

    `policy` is WORKSPACE/POLICY@pVERSION, empty for another's drop; `rule` its name in the kernel.
    """

    consumer: EndView
    provider: EndView
    protocol: str
    port: int
    direction: str
    at: dict[str, str]
    source: str
    rule: str
    policy: str
    reason: str
    packets: int
    overflow: int
    last: str


class DeniedResponse(BaseModel):
    """Drops, the latest first."""

    items: list[DeniedView]


@router.get("/flows", response_model=FlowsResponse)
async def list_flows(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[FlowsQuery, Query()]
) -> Response:
    """List connections of which a hop satisfies the filter, the greatest by `sort` first."""
    asked_for = question(asked.filter, asked.sort)
    window, after = read_window(services, asked.since, asked.until), None
    if asked.cursor is not None:
        cursor = Cursor.parse(asked.cursor, asked_for)
        window = {"since": cursor.since_ns, "until": cursor.until_ns}
        after = Place(cursor.weight, cursor.connection)
    condition = await condition_on(services, principal, asked.filter, window)
    page = await read_page(services, principal, condition, window, asked.sort, asked.limit, after)
    next_ = page.end and Cursor(asked_for, window["since"], window["until"], *page.end)
    return await answered(
        lambda: FlowsResponse(items=page.flows, next=str(next_) if next_ else None)
    )


@router.get("/flows/denied")
async def list_denied(
    services: ServicesDep,
    principal: PrincipalDep,
    filter: Annotated[str, Query()] = "everything",  # noqa: A002
    since: str = "5m",
    until: str | None = None,
    limit: Limit = 200,
) -> DeniedResponse:
    """List what was dropped, by whom and why."""
    window = read_window(services, since, until)
    wanted = parse_filter(filter, ENDS, FLOW_KEYS)
    api_servers = services.inventory.timeline.api_servers().known
    condition = Condition(wanted, revisions_of(services, window), OF_DROP, api_servers=api_servers)
    rows = await services.flow_store.query(
        denied(condition.sql),
        {"tenant": principal.tenant, **window, "limit": limit, **condition.parameters},
    )
    timeline = services.inventory.timeline
    views = Views(timeline)
    return DeniedResponse(items=[_denied(timeline, views, row) for row in rows.to_pylist()])


def _denied(timeline: Timeline, views: Views, row: dict[str, Any]) -> DeniedView:
    ours = row["source"] == DropSource.RINGFENCE
    uid, cluster = row["pod"], row["kubernetes_cluster"]
    return DeniedView(
        consumer=views.end(row, "consumer"),
        provider=views.end(row, "provider"),
        protocol=format_protocol(row["protocol"]),
        port=row["provider_port"],
        direction=row["direction"],
        at={"pod": pod_name(timeline, cluster, uid)} if uid else {"node": row["node"]},
        source="ringfence" if ours else "other",
        rule=row["rule"],
        policy=tell_handle(row["rule"]) if ours else "",
        reason=row["reason"],
        packets=row["packets"],
        overflow=row["overflow"],
        last=format_time(row["last_ns"]),
    )
