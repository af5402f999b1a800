"""Flows as they are reported."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from hashlib import blake2b
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from ringfence.control.api.flow_pages import Place, read_page
from ringfence.control.api.flow_search import condition_on, read_window
from ringfence.control.api.flow_views import FlowView
from ringfence.control.auth import PrincipalDep
from ringfence.control.identity import Principal
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import Window, format_time
from ringfence.store.flows.queries import WINDOWS

router = APIRouter(tags=["flows"])

_ALIVE_SECONDS = 10
"""An empty line comes at least as often, so that both ends learn when the other is gone."""

_LIFE_SECONDS = 300
"""After so long the stream ends: whoever goes on asks again, and shows a token again."""

_REMEMBERED = 100_000
"""Lines whose repetition is not told."""

_MOST_SLOTS = 4
"""Slots that one batch can be about: an agent's windows are no longer than ours."""


class WatchQuery(BaseModel):
    """What to follow; with `since` what was reported of that time is told first."""

    filter: str = "everything"
    since: str | None = None


class WatchLine(BaseModel):
    """A connection, and what it did within [start, end)."""

    start: str
    end: str
    flow: FlowView


@router.get(
    "/flows/watch",
    response_class=StreamingResponse,
    responses={200: {"model": WatchLine, "description": "One such object a line."}},
)
async def watch(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[WatchQuery, Query()]
) -> StreamingResponse:
    """Follow connections live, as JSON lines; an empty line says that the stream is alive.

    A line tells a connection's counts within one reporting interval. It comes again, and takes
    the place of the first, when a later report of that interval adds to it. The stream ends after
    five minutes; ask again with `since` some minutes before the last line, for reports come late.
    """
    now_ns = services.clock()
    await condition_on(services, principal, asked.filter, {"since": now_ns, "until": now_ns})
    past = read_window(services, asked.since)["since"] if asked.since else None
    follow = _Follow(services, principal, asked.filter)
    return StreamingResponse(follow.lines(past), media_type="application/jsonl")


class _Follow:
    """One who watches, and what was told already.

    Agents' windows differ at their edges, so that connections are told by slots: intervals that
    begin at multiples of their width.
    """

    def __init__(self, services: Services, principal: Principal, filter_: str) -> None:
        self._services, self._principal, self._filter = services, principal, filter_
        self._width_ns = services.modes.interval_seconds * 10**9
        self._told: OrderedDict[tuple[int, str], bytes] = OrderedDict()

    async def lines(self, since_ns: int | None) -> AsyncIterator[bytes]:
        """Lines for the life of a stream; first those of `since_ns` and after, epoch ns."""
        clock = asyncio.get_running_loop().time
        end = clock() + _LIFE_SECONDS
        with self._services.ingest.arrivals.listen(self._principal.tenant) as listener:
            yield b"\n"
            slots = set() if since_ns is None else self._slots(await self._reported(since_ns))
            while clock() < end:
                for slot in sorted(slots):
                    async for line in self._changes(slot):
                        yield line
                slots = self._slots(await listener.windows(_ALIVE_SECONDS))
                if not slots:
                    yield b"\n"

    async def _reported(self, since_ns: int) -> list[Window]:
        """The windows of batches that end after an instant."""
        wanted = {"tenant": self._principal.tenant, "since": since_ns}
        rows = await self._services.flow_store.query(WINDOWS, wanted)
        return [Window(row["window_start_ns"], row["window_end_ns"]) for row in rows.to_pylist()]

    def _slots(self, windows: Iterable[Window]) -> set[int]:
        slots: set[int] = set()
        for window in windows:
            last = (window.end_ns - 1) // self._width_ns
            first = window.start_ns // self._width_ns
            slots.update(range(max(first, last - _MOST_SLOTS + 1), last + 1))
        return slots

    async def _changes(self, slot: int) -> AsyncIterator[bytes]:
        """A line for each connection of the slot of which something new is known."""
        start_ns = slot * self._width_ns
        end_ns = start_ns + self._width_ns
        window = {"since": start_ns, "until": end_ns}
        condition = await condition_on(self._services, self._principal, self._filter, window)
        start, end = format_time(start_ns), format_time(end_ns)
        after: Place | None = None
        while True:
            page = await read_page(self._services, self._principal, condition, window, after=after)
            for flow in page.flows:
                line = WatchLine(start=start, end=end, flow=flow).model_dump_json().encode()
                if self._is_news((slot, flow.connection), line):
                    yield line + b"\n"
            after = page.end
            if after is None:
                return

    def _is_news(self, key: tuple[int, str], line: bytes) -> bool:
        digest = blake2b(line, digest_size=8).digest()
        known = self._told.pop(key, None)
        self._told[key] = digest
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return known != digest
