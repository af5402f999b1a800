"""The tables of observations: what they hold, in which order, and for how long.

`flows`, `drops` and `batches` are filled by insertion, `flows_hourly` and `drops_hourly` by views
on the first two. An hour there is one long window, with the columns that HOPS reads under the
same names; a row that comes late joins the hour that it belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from ringfence.store.flows.schema import ADDRESS, BATCH_ROWS, DROP_ROWS, FLOW_ROWS, REPEATED


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days observations are kept.

    Detailed rows tell the consumer's port, in conversations it is folded away.
    """

    detailed: int = 7
    conversations: int = 90
    hourly: int = 400

    @property
    def longest(self) -> int:
        """For how many days anything is kept at all."""
        return max(self.detailed, self.conversations, self.hourly)


@dataclass(frozen=True, slots=True)
class Table:
    """What a MergeTree is declared with; `columns` are types and codecs by name."""

    name: str
    columns: Mapping[str, str]
    order: str
    partition: str
    ttl: str
    """Written as ClickHouse itself does, so that the two can be compared."""
    merging: str = ""
    """The kind of MergeTree, empty for the plain one."""


@dataclass(frozen=True, slots=True)
class RollUp:
    """A table that is filled with what another one's rows come to; `{source}` stands for that."""

    table: Table
    source: str
    select: str


_TYPES = {
    REPEATED: "LowCardinality(String)",
    pa.string(): "LowCardinality(String)",
    ADDRESS: "IPv6 CODEC(ZSTD)",
    pa.bool_(): "Bool",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16 CODEC(ZSTD)",
    pa.uint32(): "UInt32 CODEC(T64, ZSTD)",
    pa.uint64(): "UInt64 CODEC(T64, ZSTD)",
    pa.int64(): "Int64 CODEC(Delta, ZSTD)",
}
_REVISIONS = [name for name in FLOW_ROWS.names if name.endswith("_revision")]
_SPECIAL = {"pod": "String CODEC(ZSTD)", "id": "String CODEC(ZSTD)"} | dict.fromkeys(
    _REVISIONS, "UInt64 CODEC(ZSTD)"
)

# How rows of an hour become one. Columns that are not named are counts, or the same in all rows.
_FOLDED = {
    "first_ns": "min",
    "last_ns": "max",
    "rank": "min",
    "rtt_min_ns": "min",
    "method": "max",  # of model.flow.Method the surer is the later in the alphabet
    "provider_dns_name": "max",  # one of them, if any
    "forward_flags": "groupBitOr",
    "reverse_flags": "groupBitOr",
    "at_consumer": "max",
    "at_provider": "max",
    "consumer_node": "max",
    "provider_node": "max",
    "carries": "max",
    "node": "min",
} | dict.fromkeys(_REVISIONS, "max")
_VALUES = {"rtt_min_ns": "if(one.rtt_samples > 0, one.rtt_min_ns, toUInt64(-1))"}
"""What is folded, where it is not the column itself: no time is not the shortest."""
_UNTOLD = {
    "consumer_port": "UInt16 ALIAS 0",
    "tunnel_protocol": "UInt8 ALIAS 0",
    "tunnel_consumer": "IPv6 ALIAS toIPv6('::')",
    "tunnel_provider": "IPv6 ALIAS toIPv6('::')",
    "tunnel_port": "UInt16 ALIAS 0",
}
"""What an hour does not tell, and has as if there were none."""
_COUNTS = (pa.uint32(), pa.uint64())

_HOLDERS = {
    f"{end}_holder": (f"{end}_pid", f"{end}_container", f"{end}_process")
    for end in ("consumer", "provider")
}
"""An end's process as one text, `PID CONTAINER/NAME`, so that of several one is taken whole: the
least, which has the lowest PID. Null where none is known."""
_HOLDER_PARTS = {
    "pid": "toUInt32(substring({holder}, 1, 10))",
    "container": "substring({holder}, 12, position({holder}, '/') - 12)",
    "process": "substring({holder}, position({holder}, '/') + 1)",
}

_HOUR = "intDiv(window_end_ns - 1, 3600000000000)"
# Hours and days are UTC's on a server in any time zone: those that HOPS reckons with.
_LAST = "toDateTime(fromUnixTimestamp64Nano(window_end_ns - 1), 'UTC')"

_WINDOW_END = {"window_end_ns": "Int64 DEFAULT last_ns + 1 CODEC(Delta, ZSTD)"}
"""Rows of before it was told are taken for the end of their windows."""


def tables(retention: Retention) -> list[Table]:
    """The tables that are filled by insertion."""
    by_connection = f"tenant, kubernetes_cluster, {_HOUR}, connection, hop, node"
    flow_days = f"if(consumer_port = 0, {retention.conversations}, {retention.detailed})"
    return [
        Table(
            "flows",
            _columns(FLOW_ROWS) | _WINDOW_END | _holders() | _hashes("first_consumer", "dialled"),
            f"{by_connection}, interface, window_end_ns",
            # A part holds rows of one resolution, and goes as a whole.
            f"(toDate({_LAST}), consumer_port != 0)",
            f"{_LAST} + toIntervalDay({flow_days})",
        ),
        Table(
            "drops",
            _columns(DROP_ROWS) | _WINDOW_END | _hashes("consumer", "provider"),
            f"{by_connection}, window_end_ns",
            f"toDate({_LAST})",
            f"{_LAST} + toIntervalDay({retention.conversations})",
        ),
        Table(
            "batches",
            _columns(BATCH_ROWS),
            "tenant, kubernetes_cluster, node, window_end_ns",
            "toDate(fromUnixTimestamp64Nano(window_end_ns, 'UTC'))",
            # Whether a node had an agent is asked for as long as anything is kept.
            "toDateTime(fromUnixTimestamp64Nano(window_end_ns), 'UTC') + "
            f"toIntervalDay({retention.longest})",
        ),
    ]


def roll_ups(retention: Retention) -> list[RollUp]:
    """The tables that are filled from others."""
    days = retention.hourly
    return [
        _hourly(
            "flows",
            FLOW_ROWS,
            ["node", "interface"],
            {"observer", "window_end_ns"},
            days,
            [*_HOLDERS],
        ),
        _hourly(
            "drops",
            DROP_ROWS,
            ["rule"],
            {"source", "observer", "pod", "reason", "window_end_ns"},
            days,
        ),
    ]


def _hourly(
    source: str,
    rows: pa.Schema,
    key: list[str],
    left_out: set[str],
    days: int,
    holders: Sequence[str] = (),
) -> RollUp:
    """Rows by hour and hop and `key`; what is left out tells nothing of a whole hour.

    `holders` of _HOLDERS stand for the columns that they are made of.
    """
    left_out = left_out.union(*(_HOLDERS[name] for name in holders))
    key = ["tenant", "kubernetes_cluster", "hour", "connection", "hop", *key]
    kinds = _columns(rows) | {
        "hour": "DateTime('UTC') CODEC(ZSTD)",
        "connection": "UInt64 CODEC(ZSTD)",
        "hop": "UInt64 CODEC(ZSTD)",
    }
    columns = {name: kinds[name] for name in key}
    told = [f"toStartOfHour({_LAST}) AS hour" if name == "hour" else name for name in key]
    for field in rows:
        if field.name in columns or field.name in left_out:
            continue
        if field.name in _UNTOLD:
            columns[field.name] = _UNTOLD[field.name]
            continue
        how = _FOLDED.get(field.name, "sum" if field.type in _COUNTS else "any")
        kind, _, codec = kinds[field.name].partition(" ")
        summed = "UInt64" if how == "sum" else kind
        columns[field.name] = f"SimpleAggregateFunction({how}, {summed}) {codec}".rstrip()
        value = _VALUES.get(field.name, f"one.{field.name}")
        told.append(f"{how}({value}) AS {field.name}")
    for name in holders:
        columns[name] = "SimpleAggregateFunction(min, Nullable(String)) CODEC(ZSTD)"
        told.append(f"min(one.{name}) AS {name}")
    sums = ",\n    ".join(told)
    return RollUp(
        Table(
            f"{source}_hourly",
            columns,
            ", ".join(key),
            "toMonday(hour)",
            f"hour + toIntervalDay({days})",
            "Aggregating",
        ),
        source,
        f"SELECT\n    {sums}\nFROM {{source}} AS one GROUP BY {', '.join(key)}",
    )


def _columns(rows: pa.Schema) -> dict[str, str]:
    return {field.name: _SPECIAL.get(field.name, _TYPES[field.type]) for field in rows}


def _holders() -> dict[str, str]:
    return {
        name: f"Nullable(String) ALIAS if({pid} = 0, NULL, "
        f"concat(leftPad(toString({pid}), 10, '0'), ' ', {container}, '/', {process}))"
        for name, (pid, container, process) in _HOLDERS.items()
    }


def holder_parts(end: str, holder: str) -> dict[str, str]:
    """The columns of an end's process out of a holder's text, empty and 0 for none."""
    text = f"ifNull({holder}, '0000000000 /')"
    return {f"{end}_{name}": part.format(holder=text) for name, part in _HOLDER_PARTS.items()}


def _hashes(consumer: str, provider: str) -> dict[str, str]:
    """What names a connection and one hop of it.

    Addresses alone would not do: one that is given to another pod makes another connection.
    """
    ends = f"{consumer}, {consumer}_item, {provider}, {provider}_item, {provider}_port"
    hop = "consumer, consumer_item, provider, provider_item, provider_port"
    return {
        "connection": "UInt64 MATERIALIZED "
        f"sipHash64(kubernetes_cluster, protocol, {ends}) CODEC(ZSTD)",
        "hop": f"UInt64 MATERIALIZED sipHash64(connection, {hop}) CODEC(ZSTD)",
    }
