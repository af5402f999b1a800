"""Flows and drops, as they were seen."""

import asyncio
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel

from ringfence.control.api.flow_views import EndView, FlowView, Views
from ringfence.control.api.times import format_time, parse_time
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import Services, ServicesDep
from ringfence.flows.disposition import disposed
from ringfence.model.address import format_address
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition, DropSource
from ringfence.model.keys import parse_filter
from ringfence.model.protocol import format_protocol
from ringfence.model.query import Query as Wanted
from ringfence.model.query import keys
from ringfence.policy.handle import tell_handle
from ringfence.store.flows.filter import (
    ATTRIBUTES,
    DISPOSITION,
    ENDS,
    OF_DROP,
    OF_HOP,
    Condition,
    Revisions,
)
from ringfence.store.flows.queries import HOPS, TUNNEL_COLUMNS, TUNNELS, denied, listed

router = APIRouter(tags=["flows"])

_SORTS = {
    "last": "last_ns",
    "first": "first_ns",
    "bytes": "forward_bytes + reverse_bytes",
    "packets": "forward_packets + reverse_packets",
    "opened": "opened",
    "dropped": "dropped",
}
Limit = Annotated[int, Query(ge=1, le=10_000)]


class FlowsResponse(BaseModel):
    """Connections, each with its hops."""

    items: list[FlowView]


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


@router.get("/flows")
async def list_flows(
    services: ServicesDep,
    principal: PrincipalDep,
    filter: Annotated[str, Query()] = "everything",  # noqa: A002
    since: str = "5m",
    until: str | None = None,
    limit: Limit = 200,
    sort: Literal["last", "first", "bytes", "packets", "opened", "dropped"] = "last",
) -> FlowsResponse:
    """List connections of which a hop satisfies the filter, the greatest by `sort` first."""
    window = read_window(services, since, until)
    wanted = parse_filter(filter, ENDS, ATTRIBUTES)
    connections = {}
    if DISPOSITION in keys(wanted):
        hops = await services.flow_store.query(HOPS, {"tenant": principal.tenant, **window})
        connections = await _disposed(services, hops)
    condition = Condition(wanted, _revisions(services, window), OF_HOP, connections)
    rows = await services.flow_store.query(
        listed(condition.sql, _SORTS[sort]),
        {"tenant": principal.tenant, **window, "limit": limit, **condition.parameters},
    )
    dispositions = {
        one: disposition
        for disposition, connections in (await _disposed(services, rows)).items()
        for one in connections.tolist()
    }
    hops = rows.to_pylist()
    tunnels = await _tunnels(services, {"tenant": principal.tenant, **window}, hops)
    views = Views(services.inventory.timeline)
    return FlowsResponse(items=views.flows(hops, dispositions, tunnels))


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
    wanted = parse_filter(filter, ENDS, ATTRIBUTES)
    condition = Condition(wanted, _revisions(services, window), OF_DROP)
    rows = await services.flow_store.query(
        denied(condition.sql),
        {"tenant": principal.tenant, **window, "limit": limit, **condition.parameters},
    )
    views = Views(services.inventory.timeline)
    return DeniedResponse(items=[_denied(views, row) for row in rows.to_pylist()])


def read_window(services: Services, since: str, until: str | None = None) -> dict[str, int]:
    """The parameters `since` and `until` (None: now), epoch ns; raises InputError."""
    now_ns = services.clock()
    start_ns = parse_time(since, now_ns)
    end_ns = now_ns if until is None else parse_time(until, now_ns)
    if start_ns > end_ns:
        raise InputError(
            f"since {since!r} comes after until {until or 'now'!r}: both are times, or durations"
            " back from now"
        )
    return {"since": start_ns, "until": end_ns}


def _revisions(services: Services, window: dict[str, int]) -> Revisions:
    def revisions(part: Wanted) -> list[int]:
        chosen = services.inventory.timeline.select_revisions(
            part, window["since"], window["until"]
        )
        return [int(revision) for revision in chosen]

    return revisions


async def _tunnels(
    services: Services, window: dict[str, Any], hops: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The hops of the tunnels that carry some of these."""
    tuples = {tuple(hop[name] for name in TUNNEL_COLUMNS) for hop in hops if hop["tunnel_protocol"]}
    if not tuples:
        return []
    wanted = [
        (protocol, format_address(consumer), format_address(provider), port)
        for protocol, consumer, provider, port in sorted(tuples)
    ]
    rows = await services.flow_store.query(TUNNELS, window | {"tunnels": wanted})
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


async def _disposed(services: Services, hops: pa.Table) -> dict[Disposition, NDArray[Any]]:
    return await asyncio.to_thread(disposed, hops, services.ingest.through(), services.clock())


def _denied(views: Views, row: dict[str, Any]) -> DeniedView:
    ours = row["source"] == DropSource.RINGFENCE
    uid, cluster = row["pod"], row["kubernetes_cluster"]
    return DeniedView(
        consumer=views.end(row["consumer"], row["consumer_revision"]),
        provider=views.end(row["provider"], row["provider_revision"]),
        protocol=format_protocol(row["protocol"]),
        port=row["provider_port"],
        direction=row["direction"],
        at={"pod": views.pod_name(cluster, uid)} if uid else {"node": row["node"]},
        source="ringfence" if ours else "other",
        rule=row["rule"],
        policy=tell_handle(row["rule"]) if ours else "",
        reason=row["reason"],
        packets=row["packets"],
        overflow=row["overflow"],
        last=format_time(row["last_ns"]),
    )
