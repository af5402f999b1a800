"""All flows of a time as a file: JSON lines, CSV or Parquet, streamed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window, revisions_of
from ringfence.control.api.flow_views import Views, item_of
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import Services, ServicesDep
from ringfence.flows.connections import Records
from ringfence.flows.disposition import dispose
from ringfence.flows.exported import EXPORT, Words, export_table
from ringfence.flows.formats import FORMATS, Writer
from ringfence.model.duration import parse_duration
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition
from ringfence.model.keys import parse_filter
from ringfence.model.query import Everything
from ringfence.store.flows.exported import (
    CLUSTERS,
    DISPOSITION_BITS,
    EXPORTED,
    METHODS,
    exported,
)
from ringfence.store.flows.filter import ENDS, FLOW_KEYS, OF_HOP, Condition, assuming

router = APIRouter(tags=["flows"])

_LEAST_SLOT_SECONDS, _MOST_SLOT_SECONDS = 60, 86_400


class ExportFormat(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class ExportQuery(BaseModel):
    """Which flows, and in which form."""

    filter: str = "everything"
    since: str = "5m"
    until: str | None = None
    every: str | None = Field(
        default=None, description="A row for each conversation and slot of time, such as 5m."
    )
    format: ExportFormat = ExportFormat.JSONL


@router.get("/flows/export", response_class=StreamingResponse)
async def export(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[ExportQuery, Query()]
) -> StreamingResponse:
    """Give one row per conversation, with names and labels; docs/flow-export.md has the columns.

    An answer that breaks off is not whole: the last chunk is missing then.
    """
    window = read_window(services, asked.since, asked.until)
    wanted = parse_filter(asked.filter, ENDS, FLOW_KEYS)
    api_servers = services.inventory.timeline.api_servers().known
    revisions = revisions_of(services, window)
    condition = Condition(Everything(), revisions, OF_HOP, api_servers=api_servers)
    left = {one: assuming(wanted, one) for one in Disposition}
    written = {query: condition.also(query) for query in dict.fromkeys(left.values())}
    where = {one: written[query] for one, query in left.items()}
    tenant = {"tenant": principal.tenant}
    clusters = (await services.flow_store.query(CLUSTERS, tenant))["kubernetes_cluster"].to_pylist()
    told = Told(services, clusters)
    parameters = {
        **tenant,
        **window,
        **condition.parameters,
        "clusters": clusters,
        "agents": told.agents,
        **({"every": _slot_ns(asked.every)} if asked.every else {}),
    }
    question = exported(where, in_slots=bool(asked.every))
    parts = services.flow_store.streams.rows(question, parameters, EXPORTED)
    writer = FORMATS[asked.format](EXPORT)
    chunks = _chunks(parts, told, writer)
    # What cannot be asked fails here, while there still is an answer to say so.
    first = await anext(chunks)
    headers = {"Content-Disposition": f'attachment; filename="flows.{asked.format}"'}
    return StreamingResponse(_after(first, chunks), media_type=writer.media_type, headers=headers)


def _slot_ns(every: str) -> int:
    seconds = parse_duration(every)
    if not _LEAST_SLOT_SECONDS <= seconds <= _MOST_SLOT_SECONDS:
        raise InputError(f"every {every}: expected from 1m to 1d")
    return seconds * 10**9


class Told:
    """Puts names and dispositions to rows, by what is known as the export begins."""

    def __init__(self, services: Services, clusters: list[str]) -> None:
        self._timeline = services.inventory.timeline
        self._views = Views(self._timeline)
        self._clusters = clusters
        self._through, self._now_ns = services.ingest.through(), services.clock()
        self._nodes = ["", *(node for _, node in self._through)]
        self.agents = [f"{cluster}/{node}" for cluster, node in self._through]
        """As `store.flows.exported.exported` takes them."""

    async def table(self, rows: NDArray[Any]) -> pa.RecordBatch:
        """Rows as EXPORT. The timeline is asked here, for it changes on the event loop."""
        revisions = np.unique([rows[f"{end}_revision"] for end in ("first_consumer", "provider")])
        items = {revision: item_of(self._timeline, revision) for revision in revisions.tolist()}
        api_servers = self._timeline.api_servers()
        words = Words(items, self._views.service, api_servers, self._clusters, self._nodes, METHODS)
        return await asyncio.to_thread(self._table, rows, words)

    def _table(self, rows: NDArray[Any], words: Words) -> pa.RecordBatch:
        clusters = pa.array(self._clusters, pa.string()).take(pa.array(rows["cluster"]))
        nodes = {
            f"{end}_node": pa.array(self._nodes).take(pa.array(rows[f"{end}_agent"]))
            for end in ("consumer", "provider")
        }
        counts = ("opened", "answered", "refused", "reverse_packets")
        names = (*counts, "protocol", "last_ns", "reached")
        columns = {name: pa.array(rows[name]) for name in names}
        hops = pa.table({"kubernetes_cluster": clusters, **nodes, **columns})
        seen = Records(hops, rows["dropped"], np.zeros(len(rows), dtype=np.bool_))
        found = dispose(seen, self._through, self._now_ns).first()
        bits = [np.where(found == one.value, bit, 0) for one, bit in DISPOSITION_BITS.items()]
        chosen = np.bitwise_or.reduce(bits) & rows["dispositions"] > 0
        return export_table(rows[chosen], words, found[chosen])


async def _chunks(
    parts: AsyncGenerator[NDArray[Any], None], told: Told, writer: Writer
) -> AsyncIterator[bytes]:
    async with aclosing(parts):
        async for rows in parts:
            yield await asyncio.to_thread(writer.write, await told.table(rows))
    yield await asyncio.to_thread(writer.close)


async def _after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk
