"""What every question about flows begins with: a time, and a filter as a condition."""

import asyncio
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from ringfence.control.identity import Principal
from ringfence.control.services import Services
from ringfence.control.times import parse_time
from ringfence.flows.disposition import disposed
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition
from ringfence.model.keys import parse_filter
from ringfence.model.query import Query, keys
from ringfence.store.flows.filter import (
    DISPOSITION,
    ENDS,
    FLOW_KEYS,
    OF_HOP,
    Condition,
    Revisions,
)
from ringfence.store.flows.queries import SOME_HOPS

_MOST_HOPS = 250_000
"""Hops of which it can be told what became of them, for they are held in memory."""


async def condition_on(
    services: Services, principal: Principal, written: str, window: dict[str, int]
) -> Condition:
    """A filter of flows as a condition on hops; raises InputError."""
    wanted = parse_filter(written, ENDS, FLOW_KEYS)
    connections = {}
    if DISPOSITION in keys(wanted):
        parameters = {"tenant": principal.tenant, **window, "limit": _MOST_HOPS + 1}
        hops = await services.flow_store.query(SOME_HOPS, parameters)
        if len(hops) > _MOST_HOPS:
            raise InputError(
                f"disposition: more than {_MOST_HOPS:,} hops were seen then; take a shorter time,"
                " or leave it to `ringfence flows export`, which has no such limit"
            )
        connections = await disposed_of(services, hops)
    api_servers = services.inventory.timeline.api_servers().known
    return Condition(wanted, revisions_of(services, window), OF_HOP, connections, api_servers)


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


def revisions_of(services: Services, window: dict[str, int]) -> Revisions:
    """What asks the inventory of the window for the revisions that satisfy a query."""

    def revisions(part: Query) -> list[int]:
        chosen = services.inventory.timeline.select_revisions(
            part, window["since"], window["until"]
        )
        return [int(revision) for revision in chosen]

    return revisions


async def disposed_of(services: Services, hops: pa.Table) -> dict[Disposition, NDArray[Any]]:
    """The connections among hops by what became of them, as of now."""
    return await asyncio.to_thread(disposed, hops, services.ingest.through(), services.clock())
