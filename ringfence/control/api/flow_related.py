"""Why records belong together: each hop of a connection, with what every observer saw of it."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.api.flow_pages import read_page
from ringfence.control.api.flow_search import condition_on, read_window
from ringfence.control.api.flow_views import (
    EndView,
    FlowView,
    ProcessView,
    Views,
    WayView,
    process_view,
    way_view,
)
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.flows.label import Rank
from ringfence.model.errors import InputError
from ringfence.model.flow import DropSource, parse_connection
from ringfence.model.protocol import format_protocol
from ringfence.policy.handle import tell_handle
from ringfence.store.flows.filter import ENDS
from ringfence.store.flows.queries import DROP_REPORTS, OBSERVATIONS

router = APIRouter(tags=["flows"])

_MOST_OBSERVATIONS = 10_000
Place = Literal["consumer", "consumer node", "elsewhere", "provider node", "provider"]
_PLACES: dict[int, Place] = {
    Rank.CONSUMER: "consumer",
    Rank.CONSUMER_NODE: "consumer node",
    Rank.ELSEWHERE: "elsewhere",
    Rank.PROVIDER_NODE: "provider node",
    Rank.PROVIDER: "provider",
}
"""Where observers stand, in the order of the path."""
Row = dict[str, Any]


class SocketView(BaseModel):
    """A tuple: two ends and the port dialled."""

    consumer: EndView
    provider: EndView
    port: int


class ObservationView(BaseModel):
    """What was seen at one interface."""

    node: str
    interface: int
    place: Place
    counted: bool = Field(description="Of all that saw the hop, its counts are the connection's.")
    before: SocketView | None = Field(
        description="The tuple before translation; null: none, or not known there."
    )
    method: str
    forward: WayView
    reverse: WayView
    opened: int
    answered: int
    refused: int
    first: str
    last: str


class DropView(BaseModel):
    """Packets of a hop that were dropped."""

    node: str
    direction: str
    policy: str = Field(description="WORKSPACE/POLICY@pVERSION; empty for another's drop.")
    reason: str
    packets: int


class HopPathView(SocketView):
    """One tuple on the wire, and all who saw it, in the order of the path."""

    protocol: str
    translated: list[Literal["SNAT", "DNAT"]]
    observations: list[ObservationView]
    drops: list[DropView]


class RelatedView(BaseModel):
    """A connection and the hops that it became, in order."""

    flow: FlowView
    hops: list[HopPathView]


class RelatedResponse(BaseModel):
    """The connections, the latest first."""

    items: list[RelatedView]


class RelatedQuery(BaseModel):
    """Which connections; `connection = "ID"` names a single one."""

    filter: str = "everything"
    since: str = "5m"
    until: str | None = None
    limit: int = Field(default=10, ge=1, le=100)


@router.get("/flows/related")
async def related(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[RelatedQuery, Query()]
) -> RelatedResponse:
    """Show each hop of the latest connections that satisfy the filter, and who observed it."""
    window = read_window(services, asked.since, asked.until)
    condition = await condition_on(services, principal, asked.filter, window)
    page = await read_page(services, principal, condition, window, limit=asked.limit)
    ids = [parse_connection(flow.connection) for flow in page.flows]
    parameters = {
        "tenant": principal.tenant,
        **window,
        "connections": ids,
        "limit": _MOST_OBSERVATIONS + 1,
    }
    seen = (await services.flow_store.query(OBSERVATIONS, parameters)).to_pylist()
    drops = (await services.flow_store.query(DROP_REPORTS, parameters)).to_pylist()
    if max(len(seen), len(drops)) > _MOST_OBSERVATIONS:
        raise InputError(
            f"over {_MOST_OBSERVATIONS:,} observations of these connections: ask for fewer with a"
            " lower limit or another filter"
        )
    paths = _Paths(Views(services.inventory.timeline), seen, drops)
    return RelatedResponse(
        items=[
            RelatedView(flow=flow, hops=paths.of(one))
            for flow, one in zip(page.flows, ids, strict=True)
        ]
    )


class _Paths:
    """Observations and drops by the tuple that they are about."""

    def __init__(self, views: Views, seen: Iterable[Row], drops: Iterable[Row]) -> None:
        self._views = views
        self._seen: dict[tuple[Any, ...], list[Row]] = {}
        self._drops: dict[tuple[Any, ...], list[Row]] = {}
        for kept, rows in ((self._seen, seen), (self._drops, drops)):
            for row in rows:
                kept.setdefault(_own(row), []).append(row)

    def of(self, connection: int) -> list[HopPathView]:
        """A connection's hops: as the consumer sent it, then what translation made of it."""
        hops = []
        for tuple_ in self._seen.keys() | self._drops.keys():
            seen, drops = self._seen.get(tuple_, []), self._drops.get(tuple_, [])
            here = [row for row in seen if row["connection"] == connection]
            if here:
                others = [row for row in seen if row["remote"] and row not in here]
                hops.append((here[0], here, others, drops))
            elif not seen and drops[0]["connection"] == connection:
                hops.append((drops[0], [], [], drops))
        hops.sort(key=lambda hop: _order(hop[0]))
        return [self._hop(*hop) for hop in hops]

    def _hop(
        self, first: Row, here: Sequence[Row], others: Sequence[Row], drops: Iterable[Row]
    ) -> HopPathView:
        """One hop; `first` is one of `here`, or where nobody saw it one of the drops."""
        counted = min(here, key=_goodness, default=None)
        on_the_way = sorted(
            [*here, *others],
            key=lambda row: (list(_PLACES).index(row["rank"]), row["node"], row["interface"]),
        )
        own = dict(self._socket(first, "consumer", "provider", "provider_port"))
        ends = {end: own[end].model_copy(update=_process(on_the_way, end)) for end in ENDS}
        names = (row["provider_dns_name"] for row in on_the_way)
        ends["provider"].dns_name = next(filter(None, names), "")
        return HopPathView(
            **{**own, **ends},
            protocol=format_protocol(first["protocol"]),
            translated=_translated(first),
            observations=[self._observation(row, row is counted) for row in on_the_way],
            drops=[_drop(row) for row in drops],
        )

    def _observation(self, row: Row, counted: bool) -> ObservationView:
        before = self._socket(row, "first_consumer", "dialled", "dialled_port")
        return ObservationView(
            node=row["node"],
            interface=row["interface"],
            place=_PLACES[row["rank"]],
            counted=counted,
            before=before if _translated(row) else None,
            method=row["method"],
            forward=way_view(row, "forward"),
            reverse=way_view(row, "reverse"),
            opened=row["opened"],
            answered=row["answered"],
            refused=row["refused"],
            first=format_time(row["first_ns"]),
            last=format_time(row["last_ns"]),
        )

    def _socket(self, row: Row, consumer: str, provider: str, port: str) -> SocketView:
        ends = [self._views.end(row, end) for end in (consumer, provider)]
        return SocketView(consumer=ends[0], provider=ends[1], port=row[port])


def _process(seen: Iterable[Row], end: str) -> dict[str, ProcessView | None]:
    """What those who saw a hop tell of an end's process: of several that with the lowest PID."""
    told = [row for row in seen if row[f"{end}_pid"]]
    best = min(told, key=lambda row: int(row[f"{end}_pid"]), default=None)
    return {"process": process_view(best, end) if best else None}


def _own(row: Row) -> tuple[Any, ...]:
    ends = ("consumer", "consumer_item", "provider", "provider_item", "provider_port")
    return (row["kubernetes_cluster"], row["protocol"], *(row[name] for name in ends))


def _goodness(row: Row) -> tuple[bool, int, int]:
    """By which one observer of a hop counts, the least (`store.flows.queries.HOPS`)."""
    return row["remote"], row["rank"], -row["forward_packets"]


def _translated(row: Row) -> list[Literal["SNAT", "DNAT"]]:
    kinds: list[Literal["SNAT", "DNAT"]] = []
    if "dialled" not in row:  # a drop report knows its own tuple alone
        return kinds
    if row["consumer"] != row["first_consumer"]:
        kinds.append("SNAT")
    if (row["provider"], row["provider_port"]) != (row["dialled"], row["dialled_port"]):
        kinds.append("DNAT")
    return kinds


def _order(row: Row) -> tuple[int, int, bytes]:
    return len(_translated(row)), row["first_ns"], row["provider"]


def _drop(row: Row) -> DropView:
    ours = row["source"] == DropSource.RINGFENCE
    return DropView(
        node=row["node"],
        direction=row["direction"],
        policy=tell_handle(row["rule"]) if ours else "",
        reason=row["rule"] if ours else row["reason"],
        packets=row["packets"],
    )
