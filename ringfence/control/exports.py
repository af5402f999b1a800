"""Feeds the exporters: of what an agent reports, each conversation once, with its names."""

import asyncio
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ringfence.export.delivery import Delivery
from ringfence.export.interface import Exporter
from ringfence.export.record import CONVERSATIONS, DESCRIBED, ENDS
from ringfence.inventory.timeline import Timeline
from ringfence.model.backoff import Backoff
from ringfence.model.ids import RevisionId
from ringfence.wire import batch


class Exports(Collector):
    """All exporters of a control plane, and their counts for Prometheus."""

    def __init__(self, exporters: Mapping[str, Exporter], timeline: Timeline) -> None:
        """Each exporter by the name that logs and metrics give it."""
        self._timeline = timeline
        self._deliveries = [
            Delivery(name, exporter, Backoff()) for name, exporter in exporters.items()
        ]

    async def start(self) -> None:
        """Begin to deliver; no receiver needs to be there."""
        for delivery in self._deliveries:
            await delivery.start()

    async def stop(self) -> None:
        """Deliver what is queued, for a moment."""
        await asyncio.gather(*(delivery.stop() for delivery in self._deliveries))

    def __bool__(self) -> bool:
        """Whether there is anybody to export to."""
        return bool(self._deliveries)

    def take(self, rows: pa.Table, agents: Collection[str]) -> None:
        """Queue what has to go out of one agent's rows (FLOW_ROWS).

        `agents` are the nodes of its Kubernetes cluster that have an agent.
        """
        if len(rows):
            told = conversations(rows.take(told_here(rows, agents)), self._timeline)
            for delivery in self._deliveries:
                delivery.offer(told)

    def collect(self) -> Iterator[Metric]:
        """What became of the conversations, by exporter."""
        sent = CounterMetricFamily(
            "ringfence_exported_records", "Conversations handed over.", labels=["exporter"]
        )
        dropped = CounterMetricFamily(
            "ringfence_export_dropped_records",
            "Conversations that were not.",
            labels=["exporter", "cause"],
        )
        queued = GaugeMetricFamily(
            "ringfence_export_queued_bytes", "What waits for a receiver.", labels=["exporter"]
        )
        up = GaugeMetricFamily(
            "ringfence_export_up", "Whether the last attempt went well.", labels=["exporter"]
        )
        for delivery in self._deliveries:
            sent.add_metric([delivery.name], delivery.sent)
            queued.add_metric([delivery.name], delivery.queued_bytes)
            up.add_metric([delivery.name], delivery.up)
            for cause, count in delivery.dropped.items():
                dropped.add_metric([delivery.name, cause], count)
        yield from (sent, dropped, queued, up)


_HOP = ("protocol", *ENDS, "consumer_port", "provider_port", "dialled_port")


def told_here(rows: pa.Table, agents: Collection[str]) -> NDArray[np.int64]:
    """Which of one agent's rows (FLOW_ROWS) go out, so that of all agents' each hop does once.

    A hop is told by its consumer's node if that has an agent, else by its provider's, else by
    whoever saw it; and of a node's interfaces by the best-placed one. Tunnels do not go out where
    what they carry does: their packets are the same.
    """
    ends = [
        np.asarray(rows[f"{end}_node"].to_numpy(zero_copy_only=False), dtype=np.str_)
        for end in ("consumer", "provider")
    ]
    with_agent = [np.isin(nodes, list(agents)) for nodes in ends]
    node = np.asarray(rows["node"].to_numpy(zero_copy_only=False), dtype=np.str_)
    teller = np.where(with_agent[0], ends[0], np.where(with_agent[1], ends[1], node))
    ours = np.nonzero((teller == node) & (np.asarray(rows["carries"]) == 0))[0]
    _, hop = np.unique(_keys(rows)[ours], return_inverse=True)
    rank, packets = (np.asarray(rows[name])[ours] for name in ("rank", "forward_packets"))
    best = np.lexsort((packets.max(initial=0) - packets, rank, hop))
    firsts = np.unique(hop[best], return_index=True)[1]
    return np.sort(ours[best[firsts]])


def _keys(rows: pa.Table) -> NDArray[np.void]:
    """Each row's hop as one value."""
    parts = [
        batch.addresses(rows[name])
        if name in ENDS
        else np.asarray(rows[name]).astype(np.uint16)[:, None].view(np.uint8)
        for name in _HOP
    ]
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return joined.view(f"V{joined.shape[1]}").ravel()


def conversations(rows: pa.Table, timeline: Timeline) -> pa.RecordBatch:
    """FLOW_ROWS as CONVERSATIONS."""
    kept = {
        field.name: rows[field.name].combine_chunks().cast(field.type)
        for field in CONVERSATIONS
        if field.name in rows.schema.names
    }
    described = {
        name: column for end in ENDS for name, column in _described(rows, end, timeline).items()
    }
    before = zip(
        ("consumer", "provider", "provider_port"),
        ("first_consumer", "dialled", "dialled_port"),
        strict=True,
    )
    translated = np.zeros(len(rows), dtype=np.bool_)
    for own, original in before:
        translated |= np.asarray(pc.not_equal(rows[own], rows[original]))
    columns = kept | described | {"translated": pa.array(translated)}
    return pa.record_batch([columns[name] for name in CONVERSATIONS.names], schema=CONVERSATIONS)


def _described(rows: pa.Table, end: str, timeline: Timeline) -> dict[str, pa.Array]:
    revisions = np.asarray(rows[f"{end}_revision"])
    distinct, which = np.unique(revisions, return_inverse=True)
    items = [
        timeline.revision(RevisionId(revision))[0] if revision else None
        for revision in distinct.tolist()
    ]
    texts = {
        "kind": ["" if item is None else item.kind.value for item in items],
        "namespace": ["" if item is None else item.namespace for item in items],
        "name": ["" if item is None else item.name for item in items],
        "owner": ["" if item is None else item.workload_name for item in items],
    }
    at = pa.array(which, pa.int32())
    return {
        f"{end}_{what}": pa.DictionaryArray.from_arrays(at, pa.array(texts[what], pa.string()))
        for what in DESCRIBED
    }
