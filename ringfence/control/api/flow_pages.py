"""Connections with their hops, a page at a time."""

import asyncio
from typing import Any, NamedTuple

import pyarrow.compute as pc

from ringfence.control.api.flow_search import disposed_of
from ringfence.control.api.flow_views import FlowView, Row, Views
from ringfence.control.identity import Principal
from ringfence.control.services import Services
from ringfence.model.address import format_address
from ringfence.store.flows.filter import Condition
from ringfence.store.flows.queries import TUNNEL_COLUMNS, TUNNELS, listed

SORTS = {
    "last": "last_ns",
    "first": "first_ns",
    "bytes": "forward_bytes + reverse_bytes",
    "packets": "forward_packets + reverse_packets",
    "opened": "opened",
    "dropped": "dropped",
}


class Place(NamedTuple):
    """Where a connection stands in an order: by weight, the greatest first, then by its id."""

    weight: int
    connection: int


class Page(NamedTuple):
    """Connections; `end` is where the next page begins, None where there is none."""

    flows: list[FlowView]
    end: Place | None


async def read_page(
    services: Services,
    principal: Principal,
    condition: Condition,
    window: dict[str, int],
    sort: str = "last",
    limit: int = 1_000,
    after: Place | None = None,
) -> Page:
    """The first `limit` connections behind a place that satisfy a condition, by a key of SORTS."""
    place = {"after_weight": after.weight, "after_connection": after.connection} if after else {}
    parameters = {"tenant": principal.tenant, **window, **place, **condition.parameters}
    rows = await services.flow_store.query(
        listed(condition.sql, SORTS[sort], after=bool(after)), {**parameters, "limit": limit + 1}
    )
    more = pc.any(pc.greater(rows["place"], limit)).as_py()
    rows = rows.filter(pc.less_equal(rows["place"], limit))
    dispositions = {
        one: disposition
        for disposition, connections in (await disposed_of(services, rows)).items()
        for one in connections.tolist()
    }
    hops = rows.to_pylist()
    end = Place(hops[-1]["weight"], hops[-1]["connection"]) if more else None
    tunnels = await _tunnels(services, {"tenant": principal.tenant, **window}, hops)
    views = Views(services.inventory.timeline)
    return Page(await asyncio.to_thread(views.flows, hops, dispositions, tunnels), end)


async def _tunnels(services: Services, window: dict[str, Any], hops: list[Row]) -> list[Row]:
    """The hops of the tunnels that carry some of these."""
    tuples = {tuple(hop[name] for name in TUNNEL_COLUMNS) for hop in hops if hop["tunnel_protocol"]}
    if not tuples:
        return []
    wanted = [
        (protocol, format_address(consumer), format_address(provider), port)
        for protocol, consumer, provider, port in sorted(tuples)
    ]
    rows = await services.flow_store.query(TUNNELS, window | {"tunnels": wanted})
    found: list[Row] = rows.to_pylist()
    return found
