"""What discovery makes of the files of a simulation."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from bench.company import packed
from bench.discovery.files import Document
from ringfence.control.discover import discover
from ringfence.inventory.recorded import read_items
from ringfence.inventory.timeline import FOREVER, Change, Timeline
from ringfence.model.ids import RevisionId, ScopeName, WorkspaceName
from ringfence.model.protocol import parse_one_protocol
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.document import Documents, format_documents

ALL = ScopeName("all")
TREE = ScopeTree([Scope(ALL, None, Everything())])


@dataclass(frozen=True)
class Proposal:
    text: str
    """The workspace as YAML."""
    told: Document
    """As `ringfence discover -o json` has it; empty where there is none."""
    timeline: Timeline


def discovered(inventory_file: Path, flows_file: Path) -> Proposal:
    timeline = read_timeline(json.loads(inventory_file.read_text()))
    hops = read_hops(pa.parquet.read_table(flows_file), timeline)
    workspace = discover(hops, timeline, TREE, ALL, WorkspaceName(ALL)).workspace
    return Proposal(format_documents(Documents(workspaces=(workspace,))), {}, timeline)


def items_of(documents: list[Document]) -> list[Item]:
    """The items of an inventory's lives, in order."""
    found = read_items(json.dumps(documents), "inventory")
    return [
        replace(
            item,
            probe_ports=tuple(
                (parse_one_protocol(probe["protocol"]), probe["port"])
                for probe in told.get("probes", ())
            ),
            workload_name=told.get("workload_name", ""),
        )
        for item, told in zip(found, documents, strict=True)
    ]


def read_timeline(document: Document) -> Timeline:
    told = document["items"]
    timeline = Timeline()
    timeline.load(
        Change(
            RevisionId(at),
            item.key,
            _ns(one.get("from")) if "from" in one else 0,
            _ns(one["to"]) if "to" in one else FOREVER,
            item,
        )
        for at, (one, item) in enumerate(zip(told, items_of(told), strict=True), 1)
    )
    return timeline


def _ns(text: str | None) -> int:
    return int(np.datetime64((text or "").removesuffix("Z"), "ns").astype(np.int64))


def read_hops(table: pa.Table, timeline: Timeline) -> pa.Table:
    count = len(table)
    first, last = (
        np.asarray(table[name].cast(pa.int64()).to_numpy()) for name in ("first", "last")
    )
    columns: dict[str, Any] = {"first_ns": first, "last_ns": last}
    ends = {
        "first_consumer": "consumer_address",
        "provider": "provider_address",
        "dialled": "dialled_address",
    }
    nodes: dict[int, str] = {0: ""}
    for name, source in ends.items():
        octets = _octets(table[source])
        columns[name] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(octets)]
        )
        revisions = timeline.resolve(octets, first, last)
        columns[f"{name}_revision"] = revisions
        for one in np.unique(revisions).tolist():
            if one:
                item = timeline.revision(RevisionId(one))[0]
                nodes[one] = item.node or (item.name if item.kind == "node" else "")
        if name != "dialled":
            side = "consumer_node" if name == "first_consumer" else "provider_node"
            distinct, which = np.unique(revisions, return_inverse=True)
            columns[side] = np.array([nodes[one] for one in distinct.tolist()])[which]
    protocols = table["protocol"].combine_chunks().dictionary_encode()
    numbers = np.array([parse_one_protocol(one) for one in protocols.dictionary.to_pylist()])
    columns["protocol"] = numbers[protocols.indices.to_numpy()].astype(np.uint8)
    columns["provider_port"] = table["port"].to_numpy()
    columns["dialled_port"] = table["dialled_port"].to_numpy()
    counts = ("packets", "bytes")
    for name in (
        *(f"{way}_{count}" for way in ("forward", "reverse") for count in counts),
        *("opened", "answered", "refused"),
    ):
        given = name in table.column_names
        columns[name] = table[name].to_numpy() if given else np.ones(count, dtype=np.uint64)
    for name in ("method", "provider_dns_name", "consumer_process", "provider_process"):
        given = name in table.column_names
        columns[name] = table[name].fill_null("") if given else np.full(count, "")
    columns["consumer"] = columns["first_consumer"]
    columns["connection"] = np.arange(count)
    columns["provider_item"] = np.full(count, "")
    columns["dropped"] = columns["carries"] = np.zeros(count, dtype=np.uint64)
    return pa.table(columns)


def _octets(column: pa.ChunkedArray) -> np.ndarray:
    encoded = column.combine_chunks().dictionary_encode()
    numbers = [
        sum(int(part) << shift for part, shift in zip(one.split("."), (24, 16, 8, 0), strict=True))
        for one in encoded.dictionary.to_pylist()
    ]
    return packed(np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()])
