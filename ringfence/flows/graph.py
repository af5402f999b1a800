"""The graph of who talks to whom: groups of ends, and between them edges with ports and volume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.flows.group import (
    ENDS,
    GroupKey,
    add_up,
    outside_column,
    ranked,
    weights,
)
from ringfence.model.flow import Sort

_MOST_PORTS = 10
"""Ports told of one edge: a port scan has thousands."""


@dataclass(frozen=True, slots=True)
class Node:
    """A group of ends; `outside` as `flows.group.outside_column` has it."""

    group: Mapping[str, str | None]
    outside: str | None


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node to another, by their positions.

    `sums` and each of `ports`, the greatest ones, have `flows.group.SUMS`, `first_ns` and
    `last_ns`; ports have `protocol` and `port` besides.
    """

    consumer: int
    provider: int
    sums: Mapping[str, Any]
    ports: Sequence[Mapping[str, Any]]
    total_ports: int


@dataclass(frozen=True, slots=True)
class Graph:
    """The greatest edges, of `total`, and the nodes that they join."""

    nodes: list[Node]
    edges: list[Edge]
    total: int


def draw(groups: pa.Table, labels: Sequence[str], sort: Sort, limit: int) -> Graph:
    """The graph of `flows.group.group`'s groups by each label of both ends, protocol and port."""
    if not len(groups):
        return Graph([], [], 0)
    codes, known = _nodes(groups, labels)
    for end, code in zip(ENDS, codes, strict=True):
        groups = groups.append_column(end, pa.array(code))
    edges = add_up(groups, ENDS)
    shown = ranked(edges, sort, limit)
    # Ports stand together by edge, the greatest first.
    edge = codes[0] * len(known) + codes[1]
    order = np.lexsort((-weights(groups, sort), edge))
    wanted = shown["consumer"].to_numpy() * len(known) + shown["provider"].to_numpy()
    begins, ends = (np.searchsorted(edge[order], wanted, side) for side in ("left", "right"))
    told = np.minimum(ends - begins, _MOST_PORTS)
    ports = iter(groups.take(pa.array(order[_spans(begins, told)])).to_pylist())
    numbers: dict[int, int] = {}
    drawn = []
    for row, count, total in zip(shown.to_pylist(), told.tolist(), ends - begins, strict=True):
        consumer, provider = (numbers.setdefault(row[end], len(numbers)) for end in ENDS)
        here = [next(ports) for _ in range(count)]
        drawn.append(Edge(consumer, provider, row, here, int(total)))
    return Graph([known[code] for code in numbers], drawn, len(edges))


def _nodes(groups: pa.Table, labels: Sequence[str]) -> tuple[NDArray[np.int64], list[Node]]:
    """The node of each row's ends, shape (2, n), and all nodes."""
    columns = [
        pa.concat_arrays(
            [
                groups[outside_column(end) if label is None else str(GroupKey(end, label))]
                .combine_chunks()
                for end in ENDS
            ]
        )
        for label in (*labels, None)
    ]  # fmt: skip
    coded = [column.dictionary_encode(null_encoding="encode").indices for column in columns]
    _, first, which = np.unique(
        np.stack([one.to_numpy() for one in coded]), axis=1, return_index=True, return_inverse=True
    )
    *named, outside = (column.take(pa.array(first)).to_pylist() for column in columns)
    known = [
        Node(dict(zip(labels, values, strict=True)), address)
        for *values, address in zip(*named, outside, strict=True)
    ]
    return which.reshape(2, -1).astype(np.int64), known


def _spans(begins: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """begins[0] and the counts[0] - 1 numbers after it, and so on."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + counts, counts)
