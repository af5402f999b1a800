"""What the inventory of the time says about each row that agents report.

A row keeps the inventory revisions of its ends, so that names and labels are looked up when it
is read, and what its observer can know: how close it stood to the consumer, and whether it could
see the translation of addresses at all.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import Timeline
from ringfence.model.flow import Observer
from ringfence.model.ids import NO_CLUSTER, ClusterId, RevisionId
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch

Columns = dict[str, NDArray[Any] | pa.Array]


class Rank(IntEnum):
    """How well an observer is placed; of several that saw the same tuple the smallest counts."""

    CONSUMER = 0
    CONSUMER_NODE = 1
    PROVIDER = 2
    PROVIDER_NODE = 3
    ELSEWHERE = 4


@dataclass(frozen=True)
class Agents:
    """Who reported n rows: tenant, Kubernetes cluster and node of agents, and whose each row is."""

    named: Sequence[tuple[str, ClusterId, str]]
    which: NDArray[np.intp]

    def columns(self) -> Columns:
        """The columns that say so."""
        return {
            name: _spread([agent[place] for agent in self.named], self.which)
            for place, name in enumerate(("tenant", "kubernetes_cluster", "node"))
        }


def label_flows(flows: pa.Table, timeline: Timeline, agents: Agents) -> Columns:
    """How a table of `wire.batch.FLOWS` is stored, by column."""
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
    ends = _Ends(timeline, agents, (consumer, provider, first_consumer, dialled), first_ns, last_ns)
    consumer_here, provider_here = ends.on_agents_node(0), ends.on_agents_node(1)
    of_pod = _numbers(flows, "observer") == Observer.POD
    # What a pod's own interface sees translated, or coming from a node, is on its way in.
    at_consumer = consumer_here & np.where(of_pod, ends.is_pod(0) & ~translated, ~ends.is_pod(0))
    at_provider = provider_here & (of_pod | ~ends.is_pod(1))
    rank = np.select(
        [at_consumer, consumer_here, at_provider, provider_here],
        [Rank.CONSUMER, Rank.CONSUMER_NODE, Rank.PROVIDER, Rank.PROVIDER_NODE],
        Rank.ELSEWHERE,
    )
    kept = {
        name: flows[name].combine_chunks()
        for name in flows.schema.names
        if not name.startswith("original_")
    }
    return (
        kept
        | agents.columns()
        | {
            "consumer_revision": ends.revisions(0),
            "provider_revision": ends.revisions(1),
            "first_consumer": first_consumer,
            "dialled": dialled,
            "dialled_port": np.where(translated, before_port, port),
            "first_consumer_revision": ends.revisions(2),
            "dialled_revision": ends.revisions(3),
            "consumer_item": ends.items(0),
            "provider_item": ends.items(1),
            "first_consumer_item": ends.items(2),
            "dialled_item": ends.items(3),
            "consumer_node": ends.nodes(0),
            "provider_node": ends.nodes(1),
            "rank": rank.astype(np.uint8),
            "at_consumer": at_consumer,
            "at_provider": at_provider,
        }
    )


def label_drops(
    drops: pa.Table,
    timeline: Timeline,
    agents: Agents,
    start_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
) -> Columns:
    """How a table of `wire.batch.DROPS` is stored, each row's window being [start, end)."""
    addresses = tuple(batch.addresses(drops[end]) for end in ("consumer", "provider"))
    ends = _Ends(timeline, agents, addresses, start_ns, end_ns)
    kept = {name: drops[name].combine_chunks() for name in drops.schema.names}
    return (
        kept
        | agents.columns()
        | {
            "first_ns": start_ns,
            "last_ns": end_ns,
            "consumer_revision": ends.revisions(0),
            "provider_revision": ends.revisions(1),
            "consumer_item": ends.items(0),
            "provider_item": ends.items(1),
        }
    )


class _Ends:
    """Who held several columns of n addresses, told by the distinct revisions among them."""

    def __init__(
        self,
        timeline: Timeline,
        agents: Agents,
        addresses: Sequence[NDArray[np.uint8]],
        first_ns: NDArray[np.int64],
        last_ns: NDArray[np.int64],
    ) -> None:
        count = len(addresses)
        times = np.tile(first_ns, count), np.tile(last_ns, count)
        clusters = [cluster for _, cluster, _ in agents.named]
        seen_from = SeenFrom.of(clusters, agents.which).tile(count)
        held = timeline.resolve(np.concatenate(addresses), *times, seen_from)
        found = pa.array(held).dictionary_encode()  # by hashes: sorting takes most of the time
        self._revisions = found.dictionary.to_numpy()
        self._which = found.indices.to_numpy().reshape(count, len(first_ns))
        self._items = [
            timeline.revision(RevisionId(revision))[0] if revision else None
            for revision in self._revisions.tolist()
        ]
        self._places = [_place(item) for item in self._items]
        self._agents = agents

    def revisions(self, end: int) -> NDArray[np.uint64]:
        return np.asarray(self._revisions[self._which[end]])

    def items(self, end: int) -> pa.DictionaryArray:
        """The keys of the items, empty for none."""
        return _spread([item.key if item else "" for item in self._items], self._which[end])

    def is_pod(self, end: int) -> NDArray[np.bool_]:
        pods = [item is not None and item.kind is ItemKind.POD for item in self._items]
        return np.asarray(np.array(pods, dtype=np.bool_)[self._which[end]])

    def nodes(self, end: int) -> pa.DictionaryArray:
        """The node that runs each item, empty outside the agent's Kubernetes cluster."""
        clusters = [cluster for cluster, _ in self._places]
        here = self._same(end, clusters, [cluster for _, cluster, _ in self._agents.named])
        names = ["", *(node for _, node in self._places)]
        return _spread(names, np.where(here, self._which[end] + 1, 0))

    def on_agents_node(self, end: int) -> NDArray[np.bool_]:
        """Whether it is the agent's own node that runs the item."""
        nodes = [(cluster, node) for _, cluster, node in self._agents.named]
        return self._same(end, self._places, nodes)

    def _same(
        self, end: int, of_items: Sequence[Hashable], of_agents: Sequence[Hashable]
    ) -> NDArray[np.bool_]:
        """For each row whether its item and its agent have the same value."""
        codes = {value: code for code, value in enumerate(of_agents)}
        items = np.array([codes.get(value, -1) for value in of_items], dtype=np.intp)
        agents = np.array([codes[value] for value in of_agents], dtype=np.intp)
        return np.asarray(items[self._which[end]] == agents[self._agents.which])


def _place(item: Item | None) -> tuple[ClusterId, str]:
    """The Kubernetes cluster and the node that an item runs on, empty where it has none."""
    if item is None:
        return NO_CLUSTER, ""
    return item.cluster, item.name if item.kind is ItemKind.NODE else item.node


def _spread(names: Sequence[str], which: NDArray[np.intp]) -> pa.DictionaryArray:
    """Names by position, each kept once."""
    return pa.array(names, type=pa.string()).dictionary_encode().take(pa.array(which))


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy())
