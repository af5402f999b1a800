"""What the inventory of the time says about each row that an agent reports.

A row keeps the inventory revisions of its ends, so that names and labels are looked up when it
is read, and what its observer can know: how close it stood to the consumer, and whether it could
see the translation of addresses at all.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.inventory.timeline import Timeline
from ringfence.model.flow import Observer
from ringfence.model.ids import ClusterId, RevisionId
from ringfence.model.workload import ItemKind
from ringfence.wire import batch

Columns = dict[str, NDArray[Any] | pa.Array]


class Rank(IntEnum):
    """How well an observer is placed; of several that saw the same tuple the smallest counts."""

    CONSUMER = 0
    CONSUMER_NODE = 1
    PROVIDER = 2
    PROVIDER_NODE = 3
    ELSEWHERE = 4


def label_flows(
    flows: pa.Table,
    timeline: Timeline,
    cluster: ClusterId,
    node: str,
) -> Columns:
    """How a table of `wire.batch.FLOWS`, reported by `node`'s agent, is stored, by column."""
    first_ns, last_ns = _numbers(flows, "first_ns"), _numbers(flows, "last_ns")
    consumer, provider, before_consumer, before_provider = (
        batch.addresses(flows[name])
        for name in ("consumer", "provider", "original_consumer", "original_provider")
    )
    translated = np.asarray(before_provider.any(axis=1))
    first_consumer = np.where(translated[:, None], before_consumer, consumer)
    dialled = np.where(translated[:, None], before_provider, provider)
    port, before_port = (
        _numbers(flows, name) for name in ("provider_port", "original_provider_port")
    )
    ends = [
        timeline.resolve(addresses, first_ns, last_ns)
        for addresses in (consumer, provider, first_consumer, dialled)
    ]
    consumer_node, consumer_pod = _nodes(timeline, ends[0], cluster)
    provider_node, provider_pod = _nodes(timeline, ends[1], cluster)
    of_pod = _numbers(flows, "observer") == Observer.POD
    # What a pod's own interface sees translated, or coming from a node, is on its way in.
    at_consumer = (consumer_node == node) & np.where(
        of_pod, consumer_pod & ~translated, ~consumer_pod
    )
    at_provider = (provider_node == node) & (of_pod | ~provider_pod)
    rank = np.select(
        [at_consumer, consumer_node == node, at_provider, provider_node == node],
        [Rank.CONSUMER, Rank.CONSUMER_NODE, Rank.PROVIDER, Rank.PROVIDER_NODE],
        Rank.ELSEWHERE,
    )
    kept = {
        name: flows[name].combine_chunks()
        for name in flows.schema.names
        if not name.startswith("original_")
    }
    return kept | {
        "consumer_revision": ends[0],
        "provider_revision": ends[1],
        "first_consumer": first_consumer,
        "dialled": dialled,
        "dialled_port": np.where(translated, before_port, port),
        "first_consumer_revision": ends[2],
        "dialled_revision": ends[3],
        "consumer_item": _items(timeline, ends[0]),
        "provider_item": _items(timeline, ends[1]),
        "first_consumer_item": _items(timeline, ends[2]),
        "dialled_item": _items(timeline, ends[3]),
        "consumer_node": consumer_node,
        "provider_node": provider_node,
        "rank": rank.astype(np.uint8),
        "at_consumer": at_consumer,
        "at_provider": at_provider,
    }


def label_drops(drops: pa.Table, timeline: Timeline, start_ns: int, end_ns: int) -> Columns:
    """The columns that a table of `wire.batch.DROPS` of the window [start, end) is stored with."""
    starts, ends = (np.full(len(drops), at, dtype=np.int64) for at in (start_ns, end_ns))
    consumer, provider = (
        timeline.resolve(batch.addresses(drops[end]), starts, ends)
        for end in ("consumer", "provider")
    )
    kept = {name: drops[name].combine_chunks() for name in drops.schema.names}
    return kept | {
        "first_ns": starts,
        "last_ns": ends,
        "consumer_revision": consumer,
        "provider_revision": provider,
        "consumer_item": _items(timeline, consumer),
        "provider_item": _items(timeline, provider),
    }


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy())


def _items(timeline: Timeline, revisions: NDArray[np.uint64]) -> NDArray[np.str_]:
    """The keys of the items, empty for none."""
    distinct, which = np.unique(revisions, return_inverse=True)
    keys = [
        timeline.revision(RevisionId(revision))[0].key if revision else ""
        for revision in distinct.tolist()
    ]
    return np.array(keys, dtype=np.str_)[which]


def _nodes(
    timeline: Timeline, revisions: NDArray[np.uint64], cluster: ClusterId
) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """The node in the Kubernetes cluster that runs each item, empty for none; which are pods."""
    distinct, which = np.unique(revisions, return_inverse=True)
    nodes, pods = [], []
    for revision in distinct.tolist():
        item = timeline.revision(RevisionId(revision))[0] if revision else None
        here = item is not None and item.cluster == cluster
        of_node = item is not None and item.kind is ItemKind.NODE
        name = "" if item is None or not here else item.name if of_node else item.node
        nodes.append(name)
        pods.append(item is not None and item.kind is ItemKind.POD)
    return np.array(nodes, dtype=np.str_)[which], np.array(pods, dtype=np.bool_)[which]
