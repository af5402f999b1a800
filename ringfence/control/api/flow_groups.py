"""Flows added up: the greatest groups, and the graph of who talks to whom."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from ringfence.control.api.answers import answered
from ringfence.control.api.flow_search import condition_on, read_window
from ringfence.control.api.flow_views import item_of
from ringfence.control.auth import PrincipalDep
from ringfence.control.identity import Principal
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.flows.graph import Graph, draw
from ringfence.flows.group import (
    GroupKey,
    check_limit,
    group,
    needed,
    outside_column,
    parse_end_keys,
    parse_group_keys,
    ranked,
)
from ringfence.model.flow import Sort
from ringfence.store.flows.conversations import summed
from ringfence.store.flows.outside import API_SERVERS, as_parameter
from ringfence.store.flows.queries import hourly

router = APIRouter(tags=["flows"])

_HOUR_NS = 3_600 * 10**9
_LONG_NS = 6 * _HOUR_NS
"""From here on sums are made of the hourly roll-ups."""
_MOST_ROWS = 1_000_000
"""Rows of the store that one answer may be made of: some 150 MB."""


class VolumeView(BaseModel):
    """One way's packets and bytes, from the IP header on."""

    packets: int
    bytes: int


class SumsView(BaseModel):
    """Conversations added up."""

    connections: int = Field(description="Distinct conversations: two ends, protocol and port.")
    forward: VolumeView
    reverse: VolumeView
    opened: int
    answered: int
    refused: int
    dropped: int = Field(description="Packets that were reported dropped.")
    first: str
    last: str


class GroupView(SumsView):
    """One group."""

    group: dict[str, str | int | None] = Field(description="Each key's value; null: it has none.")
    outside: dict[str, str] = Field(
        description="Ends that the inventory does not hold: the address, empty for all of them."
    )


class SummedResponse(BaseModel):
    """What sums are of: six hours and more are added up from whole hours."""

    since: str
    until: str


class TopResponse(SummedResponse):
    """The greatest groups, of `total`."""

    items: list[GroupView]
    total: int


class NodeView(BaseModel):
    """A node of the graph."""

    id: int
    group: dict[str, str | None]
    outside: str | None = Field(description="An address; empty for all outside; null: inside.")


class PortView(SumsView):
    """What goes to one port of an edge."""

    protocol: str
    port: int


class EdgeView(SumsView):
    """Who talks to whom; `consumer` and `provider` are ids of nodes."""

    consumer: int
    provider: int
    ports: list[PortView] = Field(description="The greatest ten.")
    total_ports: int


class GraphResponse(SummedResponse):
    """The greatest edges, of `total`, and the nodes that they join."""

    nodes: list[NodeView]
    edges: list[EdgeView]
    total: int


class GroupQuery(BaseModel):
    """Which flows, and how they are added up."""

    filter: str = "everything"
    since: str = "5m"
    until: str | None = None
    sort: Sort = Sort.BYTES
    outside: Literal["address", "merged"] = Field(
        default="address", description="Tell addresses outside the inventory apart, or not."
    )


class TopQuery(GroupQuery):
    """Keys are attributes (protocol, port, dialled_port, method), LABEL or `workload` behind
    `consumer.`, `provider.` or `dialled.`, `process.name`, `process.pid` and `process.container`
    behind `consumer.` or `provider.`, and provider.dns.name."""

    by: str = "consumer.workload,provider.workload,port"
    limit: int = Field(default=20, ge=1, le=10_000)


class GraphQuery(GroupQuery):
    """Keys are labels, or workload, by which both ends are grouped."""

    by: str = "kubernetes.cluster,workload"
    limit: int = Field(default=1_000, ge=1, le=10_000)


@router.get("/flows/top", response_model=TopResponse)
async def top(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[TopQuery, Query()]
) -> Response:
    """Add up conversations by labels of their ends; the greatest groups first."""
    keys = parse_group_keys(asked.by)
    window = _window(services, asked)
    groups = await _groups(services, principal, asked, keys, window)
    shown = await asyncio.to_thread(ranked, groups, asked.sort, asked.limit)
    return await answered(
        lambda: TopResponse(
            items=[_group_view(row, keys) for row in shown.to_pylist()],
            total=len(groups),
            **_range(window),
        )
    )


@router.get("/flows/graph", response_model=GraphResponse)
async def graph(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[GraphQuery, Query()]
) -> Response:
    """Add up conversations to a graph of who talks to whom."""
    labels = parse_end_keys(asked.by)
    ends = [GroupKey(end, label) for end in ("consumer", "provider") for label in labels]
    keys = [*ends, GroupKey("", "protocol"), GroupKey("", "port")]
    window = _window(services, asked)
    groups = await _groups(services, principal, asked, keys, window)
    drawn = await asyncio.to_thread(draw, groups, labels, asked.sort, asked.limit)
    return await answered(lambda: _graph_view(drawn, window))


def _window(services: Services, asked: GroupQuery) -> dict[str, int]:
    """The range asked for, made up to whole hours if it is long."""
    window = read_window(services, asked.since, asked.until)
    if not _is_long(window):
        return window
    return {
        "since": window["since"] // _HOUR_NS * _HOUR_NS,
        "until": -(-window["until"] // _HOUR_NS) * _HOUR_NS,
    }


def _is_long(window: dict[str, int]) -> bool:
    return window["until"] - window["since"] >= _LONG_NS


def _range(window: dict[str, int]) -> dict[str, str]:
    return {name: format_time(at) for name, at in window.items()}


async def _groups(
    services: Services,
    principal: Principal,
    asked: GroupQuery,
    keys: Sequence[GroupKey],
    window: dict[str, int],
) -> pa.Table:
    condition = await condition_on(services, principal, asked.filter, window)
    wanted = needed(keys, asked.outside == "merged")
    question = summed(condition.sql, wanted.columns, wanted.whole_addresses)
    sums = await services.flow_store.query(
        hourly(question) if _is_long(window) else question,
        {
            "tenant": principal.tenant,
            **window,
            **condition.parameters,
            API_SERVERS: as_parameter(services.inventory.timeline.api_servers().known),
            "limit": _MOST_ROWS + 1,
        },
    )
    check_limit(sums, _MOST_ROWS)
    timeline = services.inventory.timeline
    items = {
        revision: item_of(timeline, revision)
        for column in wanted.columns
        if column.endswith("_revision")
        for revision in np.unique(sums[column].to_numpy()).tolist()
    }
    return await asyncio.to_thread(group, sums, keys, items)


def _group_view(row: Mapping[str, Any], keys: Sequence[GroupKey]) -> GroupView:
    ends = dict.fromkeys(key.end for key in keys if key.end)
    outside = {end: row[outside_column(end)] for end in ends}
    return GroupView(
        group={str(key): row[str(key)] for key in keys},
        outside={end: address for end, address in outside.items() if address is not None},
        **_sums(row),
    )


def _graph_view(graph: Graph, window: dict[str, int]) -> GraphResponse:
    return GraphResponse(
        nodes=[
            NodeView(id=number, group=dict(node.group), outside=node.outside)
            for number, node in enumerate(graph.nodes)
        ],
        edges=[
            EdgeView(
                consumer=edge.consumer,
                provider=edge.provider,
                ports=[
                    PortView(protocol=row["protocol"], port=row["port"], **_sums(row))
                    for row in edge.ports
                ],
                total_ports=edge.total_ports,
                **_sums(edge.sums),
            )
            for edge in graph.edges
        ],
        total=graph.total,
        **_range(window),
    )


def _sums(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("connections", "opened", "answered", "refused", "dropped")
    ways = {
        way: VolumeView(packets=row[f"{way}_packets"], bytes=row[f"{way}_bytes"])
        for way in ("forward", "reverse")
    }
    times = {"first": format_time(row["first_ns"]), "last": format_time(row["last_ns"])}
    return {name: row[name] for name in counts} | ways | times
