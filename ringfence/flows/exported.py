"""Conversations as a table that stands alone: names and labels beside addresses and counts.

docs/flow-export.md tells the columns. Whoever reads the table needs no control plane.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray

from ringfence.inventory.outside import ApiServers, is_outside, labels_of
from ringfence.model.address import Address, format_address
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import format_protocol
from ringfence.model.workload import Item

_LABELS = pa.map_(pa.string(), pa.list_(pa.string()))
_TIME = pa.timestamp("ns", "UTC")
_END = np.dtype([("revision", "u8"), ("address", "16u1"), ("api_server", "?")])
COUNTS = (
    "forward_packets",
    "forward_bytes",
    "reverse_packets",
    "reverse_bytes",
    "opened",
    "answered",
    "refused",
    "dropped",
    "forward_retransmitted",
    "reverse_retransmitted",
    "rtt_samples",
)


def _end(name: str) -> list[tuple[str, pa.DataType]]:
    words = ("address", "kind", "namespace", "name", "workload")
    return [
        *((f"{name}_{word}", pa.string()) for word in words),
        (f"{name}_labels", _LABELS),
        (f"{name}_process", pa.string()),
        (f"{name}_pid", pa.uint32()),
        (f"{name}_container", pa.string()),
    ]


EXPORT = pa.schema(
    [
        ("connection", pa.string()),
        ("first", _TIME),
        ("last", _TIME),
        ("kubernetes_cluster", pa.string()),
        ("node", pa.string()),
        *_end("consumer"),
        *_end("provider"),
        ("provider_dns_name", pa.string()),
        ("protocol", pa.string()),
        ("port", pa.uint16()),
        ("dialled_address", pa.string()),
        ("dialled_port", pa.uint16()),
        ("service_namespace", pa.string()),
        ("service_name", pa.string()),
        ("method", pa.string()),
        ("disposition", pa.string()),
        *((name, pa.uint64()) for name in COUNTS),
        ("rtt_min_ns", pa.uint64()),
        ("rtt_mean_ns", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Words:
    """What the numbers in a row stand for."""

    items: Mapping[int, Item | None]
    """Of every inventory revision."""
    service: Callable[[int, bytes, int, int, ClusterId], Item | None]
    """The Service dialled, by its revision, address, protocol, port and consumer's cluster."""
    api_servers: ApiServers
    clusters: list[str]
    nodes: list[str]
    """Of agents by their number, the first for none."""
    methods: tuple[str, ...]


def export_table(
    rows: NDArray[np.void], words: Words, dispositions: NDArray[np.str_]
) -> pa.RecordBatch:
    """Rows of `store.flows.exported.EXPORTED` as EXPORT; each distinct word is looked up once."""
    columns: dict[str, pa.Array] = {
        "connection": pa.array([f"{one:016x}" for one in rows["connection"].tolist()]),
        "first": pa.array(rows["first_ns"]).cast(_TIME),
        "last": pa.array(rows["last_ns"]).cast(_TIME),
        "kubernetes_cluster": _taken(words.clusters, rows["cluster"]),
        "node": _taken([name or None for name in words.nodes], rows["agent"]),
        "protocol": _taken([format_protocol(number) for number in range(256)], rows["protocol"]),
        "port": pa.array(rows["provider_port"]),
        "dialled_address": _addresses(rows["dialled"]),
        "dialled_port": pa.array(rows["dialled_port"]),
        "method": _taken(list(words.methods), rows["method"]),
        "disposition": pa.array(dispositions.astype(object), pa.string()),
    }
    columns |= _end_columns("consumer", rows, "first_consumer", words)
    columns |= _end_columns("provider", rows, "provider", words)
    columns |= _service_columns(rows, words)
    columns["provider_dns_name"] = _dns_names(rows["provider_dns_name"])
    columns |= {name: pa.array(rows[name]) for name in COUNTS}
    samples = rows["rtt_samples"]
    mean = rows["rtt_sum_ns"] // np.maximum(samples, 1)
    columns |= {
        name: pa.array(values, mask=samples == 0)
        for name, values in (("rtt_min_ns", rows["rtt_min_ns"]), ("rtt_mean_ns", mean))
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in EXPORT.names], schema=EXPORT)


def _end_columns(
    name: str, rows: NDArray[np.void], column: str, words: Words
) -> dict[str, pa.Array]:
    revisions, which = np.unique(rows[f"{column}_revision"], return_inverse=True)
    items = [words.items[revision] for revision in revisions.tolist()]
    told: dict[str, list[Any]] = {
        "kind": [item and item.kind.value for item in items],
        "namespace": [item and item.namespace for item in items],
        "name": [item and item.name for item in items],
        "workload": [item and (item.workload_name or item.name) for item in items],
    }
    taken = {
        f"{name}_{word}": _taken(values, which, EXPORT.field(f"{name}_{word}").type)
        for word, values in told.items()
    }
    outside = np.array([is_outside(item) for item in items], dtype=np.bool_)[which]
    labels = _labels(rows, column, outside, words)
    processes = _process_columns(name, rows)
    address = _addresses(rows[column])
    return {f"{name}_address": address, **taken, f"{name}_labels": labels, **processes}


def _labels(
    rows: NDArray[np.void], column: str, outside: NDArray[np.bool_], words: Words
) -> pa.Array:
    """All labels of an end. Addresses are told apart where they say something."""
    clusters = np.array(words.clusters, dtype=np.str_)[rows["cluster"]]
    answering = words.api_servers.among(clusters, rows[column], rows["last_ns"])
    ends = np.zeros(len(rows), dtype=_END)
    ends["revision"], ends["api_server"] = rows[f"{column}_revision"], answering
    ends["address"][outside] = rows[column][outside]
    first, which = _distinct(ends)
    labels = [
        labels_of(
            words.items[int(end["revision"])],
            Address(end["address"].tobytes()),
            api_server=bool(end["api_server"]),
        )
        for end in ends[first]
    ]
    return _taken([list(one.items()) for one in labels], which, _LABELS)


def _process_columns(end: str, rows: NDArray[np.void]) -> dict[str, pa.Array]:
    columns = {}
    for name in (f"{end}_process", f"{end}_container"):
        texts, which = np.unique(rows[name], return_inverse=True)
        columns[name] = _taken([text.decode(errors="replace") or None for text in texts], which)
    pids = rows[f"{end}_pid"]
    return columns | {f"{end}_pid": pa.array(pids, mask=pids == 0)}


def _service_columns(rows: NDArray[np.void], words: Words) -> dict[str, pa.Array]:
    names = ["dialled_revision", "dialled", "protocol", "dialled_port", "cluster"]
    dialled = repack_fields(rows[names])
    first, which = _distinct(dialled)
    items = [
        words.service(
            int(revision),
            address.tobytes(),
            int(protocol),
            int(port),
            ClusterId(words.clusters[int(cluster)]),
        )
        for revision, address, protocol, port, cluster in dialled[first]
    ]
    return {
        "service_namespace": _taken([item and item.namespace for item in items], which),
        "service_name": _taken([item and item.name for item in items], which),
    }


def _dns_names(names: NDArray[np.bytes_]) -> pa.Array:
    buffer, width = pa.py_buffer(np.ascontiguousarray(names)), names.dtype.itemsize
    padded = pa.Array.from_buffers(pa.binary(width), len(names), [None, buffer])
    distinct = padded.dictionary_encode()
    told = [
        name.rstrip(b"\0").decode(errors="replace") or None
        for name in distinct.dictionary.to_pylist()
    ]
    return pa.array(told, pa.string()).take(distinct.indices)


def _addresses(addresses: NDArray[np.uint8]) -> pa.Array:
    first, which = _distinct(np.ascontiguousarray(addresses).view("V16").ravel())
    return _taken([format_address(Address(addresses[at].tobytes())) for at in first], which)


def _distinct(rows: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A place of each distinct row, and which of these every row equals."""
    packed = rows.view(f"V{rows.dtype.itemsize}")
    _, first, which = np.unique(packed, return_index=True, return_inverse=True)
    return first, which


def _taken(values: list[Any], which: NDArray[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind or pa.string()).take(pa.array(which))
