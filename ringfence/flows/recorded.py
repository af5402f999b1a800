"""Conversations out of a file of flows, labelled by an inventory of each row's own time.

docs/flow-export.md tells the columns. Of names and labels in the file nothing is believed: who an
end is, the inventory says. What a column tells that is absent or null is not known, and nothing is
held against a conversation for it. Files may be broken or hostile.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from ringfence.flows.connections import Records, about_others, clusters_of, column
from ringfence.flows.disposition import Dispositions, counted
from ringfence.flows.exported import COUNTS, EXPORT
from ringfence.flows.faults import fault
from ringfence.flows.merged import MOST_ADDED, concatenated
from ringfence.flows.table_values import TableValues
from ringfence.inventory.holders import Octets, octets_of
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import Timeline
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition
from ringfence.model.ids import RevisionId
from ringfence.model.protocol import TCP, parse_one_protocol
from ringfence.model.spreadsheet import FORMULA
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch

REQUIRED = (
    "first",
    "last",
    "consumer_address",
    "provider_address",
    "protocol",
    "port",
    "dialled_address",
    "dialled_port",
)
"""The columns that a file must have."""
_WORDS = (
    "kubernetes_cluster",
    "node",
    "method",
    "provider_dns_name",
    "consumer_process",
    "consumer_container",
    "provider_process",
    "provider_container",
)
_PIDS = ("consumer_pid", "provider_pid")
_RTT = ("rtt_min_ns", "rtt_mean_ns")
_PORTS = ("port", "dialled_port")
OPTIONAL = ("connection", *_WORDS, *_PIDS, "disposition", *COUNTS, *_RTT)
"""The columns that are used where they are there."""
_MOST_PORT, _MOST_PID, _MOST_COUNT = 2**16 - 1, 2**32 - 1, 2**53
MOST_ROWS = 4_000_000
"""Of one file: what they take in memory does not depend on how well the file is compressed."""
MOST_BYTES = 2 << 30
"""Of a Parquet file's columns that matter, once they are out of it."""
_WANTED = {*REQUIRED, *OPTIONAL}
_BATCH = 4096
_PART = 32 * _BATCH
"""Rows that are read at a time."""
_ENDS = {
    "first_consumer": "consumer_address",
    "provider": "provider_address",
    "dialled": "dialled_address",
}


def read_flows(source: BinaryIO, file_name: str, timeline: Timeline) -> Records:
    """The conversations of a Parquet, CSV or JSON lines file; raises InputError.

    Besides the columns of a hop `table` has `disposition`, empty where the file does not tell it,
    `openings_told`, whether the file tells `opened`, and `connection_id`, its own text. ICMP errors
    and the like are left out.
    """
    return concatenated(list(flow_parts(source, file_name, timeline)))


def flow_parts(source: BinaryIO, file_name: str, timeline: Timeline) -> Iterator[Records]:
    """As `read_flows`, in parts: one at least, and no more of a Parquet file at a time."""
    before = 0
    for table in _tables(source, file_name):
        yield _records(TableValues(table, file_name, before), file_name, timeline)
        before += len(table)


def _records(values: TableValues, file_name: str, timeline: Timeline) -> Records:
    for name in REQUIRED:
        if name not in values:
            raise InputError(
                f"{file_name}: there is no column {name}; docs/flow-export.md tells which are"
                " needed"
            )
    told = _tuples(values) | _words(values) | _counts(values)
    table = pa.table(told | _answers(values, told) | _labels(told, timeline))
    seen = Records(table, _dropped(values, table), _translated(table))
    return seen.take(~about_others(table))


def dispositions(seen: Records) -> Dispositions:
    """What became of conversations that `read_flows` read, as their file tells it.

    Of what was dropped in part and answered in part the file tells the first; counts tell the rest.
    """
    told = np.asarray(seen.table["disposition"].to_numpy())
    answered = seen.column("answered") > 0
    replied = answered | (seen.column("reverse_packets") > 0) | (seen.column("refused") > 0)
    untold = told == ""
    dropped = (told == Disposition.DROPPED) | (untold & (seen.dropped > 0))
    passed = (told == Disposition.PASSED) | answered | (untold & replied & ~dropped)
    pending = (told == Disposition.PENDING) & ~passed
    return counted(seen, passed=passed, dropped=dropped, pending=pending)


def told_apart(seen: Records) -> Octets:
    """What verdicts on conversations, and what became of them, may differ by but for the time."""
    fate = dispositions(seen)
    ends = (*_ENDS, *(f"{end}_revision" for end in _ENDS))
    numbers = ("protocol", "provider_port", "dialled_port")
    words = ("kubernetes_cluster", "node", "provider_dns_name", "disposition")
    return octets_of(
        *(seen.column(name) for name in (*ends, *numbers)),
        *(codes_of(seen, name) for name in words),
        *(fate.passed, fate.dropped, fate.unanswered, seen.translated),
    )


def codes_of(seen: Records, name: str) -> NDArray[np.int32]:
    """Numbers for the words of a column."""
    return np.asarray(seen.table[name].combine_chunks().dictionary_encode().indices)


def _tables(source: BinaryIO, file_name: str) -> Iterator[pa.Table]:
    """The columns of a file that matter, by what it begins with."""
    begins = source.read(4)
    source.seek(0)
    try:
        if begins == b"PAR1":
            yield from _parquet(pa.parquet.ParquetFile(source), file_name)
            return
        table = _whole(source, begins, file_name)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).split("\n")[0] if begins else "it is empty"
        if found := fault(source, begins, said):
            raise InputError(f"{file_name}: {found}") from error
        raise InputError(
            f"{file_name}: neither Parquet, CSV nor JSON lines that is whole: {said}"
        ) from error
    _bound(len(table), file_name)
    table = table.select(_chosen(table.schema, file_name))
    for start in range(0, max(len(table), 1), _PART):
        yield table.slice(start, _PART)


def _whole(source: BinaryIO, begins: bytes, file_name: str) -> pa.Table:
    """JSON lines, of which there are none where nothing was seen, or CSV."""
    if begins in {b"", b"\n", b"\r\n"} and not file_name.endswith((".parquet", ".csv")):
        return pa.schema([EXPORT.field(name) for name in REQUIRED]).empty_table()
    if begins[:1] == b"{":
        return pa.json.read_json(source)
    # A text may look like a number; those that are one are read as such later.
    texts = {name: pa.string() for name in _WANTED - {*_PIDS, *COUNTS, *_PORTS, *_RTT}}
    options = pa.csv.ConvertOptions(column_types=texts, strings_can_be_null=True)
    # A thread that still reads ahead when a broken file ends the command would abort it.
    alone = pa.csv.ReadOptions(use_threads=False)
    return _plain(pa.csv.read_csv(source, alone, convert_options=options))


def _parquet(file: pa.parquet.ParquetFile, file_name: str) -> Iterator[pa.Table]:
    """A small file may unfold to a great many rows or to long texts, so parts are weighed."""
    _bound(file.metadata.num_rows, file_name)
    names = _chosen(file.schema_arrow, file_name)
    schema = pa.schema([file.schema_arrow.field(name) for name in names])
    parts: list[pa.RecordBatch] = []
    rows = size = 0
    for part in file.iter_batches(_BATCH, columns=names):
        parts.append(part)
        rows += len(part)
        size += sum(map(_weight, part.columns))
        if size > MOST_BYTES:
            raise _too_much(f"over {MOST_BYTES >> 20} MiB of values", file_name)
        if rows >= _PART:
            yield pa.Table.from_batches(parts)
            parts, rows = [], 0
    if parts or not size:
        yield pa.Table.from_batches(parts, parts[0].schema if parts else schema)


def _weight(column: pa.Array) -> int:
    """How many bytes a column takes without being encoded."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    texts = column.dictionary
    lengths = pc.binary_length(texts) if pa.types.is_string(texts.type) else pa.nulls(len(texts))
    return int(column.indices.nbytes) + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _chosen(schema: pa.Schema, file_name: str) -> list[str]:
    """The columns that matter, each of which may be there once."""
    names = [name for name in schema.names if name in _WANTED]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{file_name}: there are {count} columns {name}; leave one")
    return names


def _bound(rows: int, file_name: str) -> None:
    if rows > MOST_ROWS:
        raise _too_much(f"{rows:,} rows, over {MOST_ROWS:,}", file_name)


def _too_much(what: str, file_name: str) -> InputError:
    return InputError(f"{file_name}: {what}: export a shorter time, or fewer flows with --filter")


def _plain(table: pa.Table) -> pa.Table:
    """Texts without the apostrophe that keeps spreadsheets from taking them for formulas."""
    guarded = f"^'({FORMULA.removeprefix('^')})"
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            plain = pc.replace_substring_regex(table[at], guarded, r"\1")
            table = table.set_column(at, field, plain)
    return table


def _tuples(values: TableValues) -> dict[str, Any]:
    """When, from where, to where, and what was dialled."""
    first_ns, last_ns = values.times("first"), values.times("last")
    values.refuse("last", last_ns < first_ns, "a time after `first`")
    ends = {end: values.addresses(name) for end, name in _ENDS.items()}
    protocols, which = values.coded("protocol", parse_one_protocol, "a protocol")
    ports = {
        column: values.numbers(name, _MOST_PORT, required=True)[0].astype(np.uint16)
        for column, name in (("provider_port", "port"), ("dialled_port", "dialled_port"))
    }
    numbered = np.arange(1, len(values) + 1, dtype=np.uint64) + np.uint64(values.before)
    ids = values.texts("connection") if "connection" in values else None
    return {
        **ends,
        **ports,
        "protocol": np.array(protocols, dtype=np.uint8)[which],
        "first_ns": first_ns,
        "last_ns": last_ns,
        "connection": numbered,
        "connection_id": _known(ids, len(values)),
    }


def _words(values: TableValues) -> dict[str, Any]:
    """What is told in words, empty for none, and PIDs, 0 for none."""
    words = {
        name: _known(values.texts(name) if name in values else None, len(values))
        for name in (*_WORDS, "disposition")
    }
    kinds = pa.array(["", *Disposition])
    unknown = ~np.asarray(pc.is_in(words["disposition"], kinds))
    values.refuse("disposition", unknown, f"one of {', '.join(Disposition)}")
    pids = {name: _number(values, name, _MOST_PID)[0].astype(np.uint32) for name in _PIDS}
    return words | pids


def _counts(values: TableValues) -> dict[str, Any]:
    """Counts that nothing is concluded from; 0 where they are not known."""
    plain = {
        name: _number(values, name, _MOST_COUNT)[0]
        for name in COUNTS
        if name not in {"opened", "answered", "refused", "dropped", "reverse_packets"}
    }
    least, mean = (_number(values, name, _MOST_COUNT)[0] for name in _RTT)
    samples = plain["rtt_samples"]
    endless = mean.astype(np.float64) * samples >= MOST_ADDED
    values.refuse("rtt_mean_ns", endless, f"less than {MOST_ADDED} ns over all rtt_samples")
    return plain | {"rtt_min_ns": least, "rtt_sum_ns": mean * samples}


def _answers(values: TableValues, told: dict[str, Any]) -> dict[str, Any]:
    """Whether conversations were opened, answered, refused.

    A row of which nothing else is known is of one conversation, which was answered: that is what
    is written down by who has no counts.
    """
    opened, opens = _number(values, "opened", _MOST_COUNT)
    answered, answers = _number(values, "answered", _MOST_COUNT)
    refused, refuses = _number(values, "refused", _MOST_COUNT)
    replies, replied = _number(values, "reverse_packets", _MOST_COUNT)
    lost = _number(values, "dropped", _MOST_COUNT)[0] > 0
    disposition = np.asarray(told["disposition"])
    reverse_bytes, measured = _number(values, "reverse_bytes", _MOST_COUNT)
    # By the surest that is known of the row.
    reached = np.select(
        [replied, measured, answers | refuses, disposition != ""],
        [
            replies > 0,
            reverse_bytes > 0,
            (answered + refused > 0) | (opens & (opened == 0) & ~lost),
            disposition == Disposition.PASSED,
        ],
        ~lost,
    )
    opened = np.where(opens, opened, np.maximum(answered + refused, 1)).astype(np.uint64)
    by_handshake = (told["protocol"] == TCP) & reached & (refused == 0)
    return {
        "opened": opened,
        "answered": np.where(answers, answered, np.where(by_handshake, opened, 0)).astype("u8"),
        "refused": refused,
        "openings_told": opens,
        "reverse_packets": np.where(replied, replies, reached).astype(np.uint64),
    }


def _dropped(values: TableValues, table: pa.Table) -> NDArray[np.uint64]:
    """Packets that were reported dropped; one at least where all that is known is that some were"""
    dropped, known = _number(values, "dropped", _MOST_COUNT)
    said = np.asarray(table["disposition"].to_numpy()) == Disposition.DROPPED
    return np.where(known, dropped, said).astype(np.uint64)


def _translated(table: pa.Table) -> NDArray[np.bool_]:
    """Whether what was dialled is not what answered; before source NAT all are told."""
    elsewhere = column(table, "provider") != column(table, "dialled")
    other_port = column(table, "provider_port") != column(table, "dialled_port")
    return np.asarray(elsewhere.any(axis=1) | other_port)


def _labels(told: dict[str, Any], timeline: Timeline) -> dict[str, Any]:
    """Who held the addresses, and the nodes that ran them, empty outside the row's cluster."""
    first_ns, last_ns = (np.tile(told[name], len(_ENDS)) for name in ("first_ns", "last_ns"))
    addresses = np.concatenate([batch.addresses(told[end]) for end in _ENDS])
    said, count = told["kubernetes_cluster"], len(told["first_ns"])
    of_end = [slice(at * count, (at + 1) * count) for at in range(len(_ENDS))]
    held = _holders(timeline, addresses, first_ns, last_ns, clusters_of(said).tile(len(_ENDS)))
    clusters, nodes = _places(timeline, held)
    # Where the file does not tell the Kubernetes cluster, it is the one that an end is in.
    cluster = pc.coalesce(
        *(
            pc.if_else(pc.equal(one, ""), pa.scalar(None, pa.string()), one)
            for one in (said, clusters[of_end[0]], clusters[of_end[1]])
        ),
        pa.scalar(""),
    )
    # Then that tells whose the other end is.
    found = np.tile(np.asarray(pc.not_equal(said, cluster)), len(_ENDS))
    rows = np.flatnonzero(found & (held == 0))
    if len(rows):
        seen_from = clusters_of(cluster).tile(len(_ENDS)).take(rows)
        held[rows] = _holders(timeline, addresses[rows], first_ns[rows], last_ns[rows], seen_from)
        clusters, nodes = _places(timeline, held)
    revisions = held.reshape(len(_ENDS), count)
    return {
        **{f"{end}_revision": revisions[at] for at, end in enumerate(_ENDS)},
        **{
            f"{end}_node": pc.if_else(pc.equal(clusters[of], cluster), nodes[of], "")
            for end, of in zip(("consumer", "provider"), of_end, strict=False)
        },
        "kubernetes_cluster": cluster,
    }


def _places(timeline: Timeline, held: NDArray[np.uint64]) -> tuple[pa.Array, pa.Array]:
    """The Kubernetes clusters and the nodes of revisions, empty for none."""
    found = pa.array(held).dictionary_encode()
    items = [
        timeline.revision(RevisionId(revision))[0] if revision else None
        for revision in found.dictionary.to_pylist()
    ]
    clusters = _taken([item.cluster if item else "" for item in items], found.indices)
    return clusters, _taken([_node(item) for item in items], found.indices)


def _holders(
    timeline: Timeline,
    addresses: NDArray[np.uint8],
    first_ns: NDArray[np.int64],
    last_ns: NDArray[np.int64],
    seen_from: SeenFrom,
) -> NDArray[np.uint64]:
    """Who held the addresses; of several in a row's time one in its midst, or else at an end."""
    held = timeline.resolve(addresses, first_ns, last_ns, seen_from)
    for at in (first_ns + (last_ns - first_ns) // 2, last_ns, first_ns):
        rows = np.flatnonzero(held == 0)
        held[rows] = timeline.resolve(addresses[rows], at[rows], at[rows], seen_from.take(rows))
    return held


def _node(item: Item | None) -> str:
    if item is None:
        return ""
    return item.name if item.kind is ItemKind.NODE else item.node


def _taken(texts: list[str], which: pa.Array) -> pa.StringArray:
    return pa.array(texts, pa.string()).take(which)


def _known(texts: pa.StringArray | None, count: int) -> pa.StringArray:
    return pa.repeat("", count) if texts is None else texts.fill_null("")


def _number(
    values: TableValues, name: str, most: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    if name in values:
        return values.numbers(name, most)
    return np.zeros(len(values), np.uint64), np.zeros(len(values), np.bool_)
