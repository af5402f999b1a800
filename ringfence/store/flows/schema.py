"""The tables of observations, and the Arrow schemas in which rows are inserted.

A row of `flows` is one observer's view of one conversation in one window, so that nothing is
concluded at insertion that a later row could prove wrong. `first_consumer`, `dialled` and
`dialled_port` are the tuple before NAT, the row's own where there was none: `connection` is
their hash, shared by all hops of a connection.
"""

import pyarrow as pa

from ringfence.wire import batch

RETENTION_DAYS = 30
_ADDRESS = pa.binary(16)
_REMEMBERED_BATCHES = 10_000
"""Insertions whose tokens are remembered: a batch that comes again within these is a duplicate."""

_ORIGIN = [
    ("tenant", pa.string()),
    ("kubernetes_cluster", pa.string()),
    ("node", pa.string()),  # of the agent
]
_ENDS = [
    ("consumer_revision", pa.uint64()),  # inventory revisions at the time, 0 where nobody
    ("provider_revision", pa.uint64()),
    ("consumer_item", pa.string()),  # their items' keys, empty where nobody
    ("provider_item", pa.string()),
]

FLOW_ROWS = pa.schema(
    [
        *_ORIGIN,
        *(field for field in batch.FLOWS if not field.name.startswith("original_")),
        *_ENDS,
        ("first_consumer", _ADDRESS),
        ("dialled", _ADDRESS),
        ("dialled_port", pa.uint16()),
        ("first_consumer_revision", pa.uint64()),
        ("dialled_revision", pa.uint64()),
        ("first_consumer_item", pa.string()),
        ("dialled_item", pa.string()),
        ("consumer_node", pa.string()),  # that runs the end, empty outside the Kubernetes cluster
        ("provider_node", pa.string()),
        ("rank", pa.uint8()),  # flows.label.Rank
        ("at_consumer", pa.bool_()),  # seen on an interface that may be the consumer's own
        ("at_provider", pa.bool_()),
    ]
)

DROP_ROWS = pa.schema(
    [
        *_ORIGIN,
        *batch.DROPS,
        *_ENDS,
        ("first_ns", pa.int64()),  # of the window
        ("last_ns", pa.int64()),
    ]
)

BATCH_ROWS = pa.schema(
    [
        *_ORIGIN,
        ("id", pa.string()),
        ("window_start_ns", pa.int64()),
        ("window_end_ns", pa.int64()),
    ]
)

_TYPES = {
    pa.string(): "LowCardinality(String)",
    _ADDRESS: "IPv6 CODEC(ZSTD)",
    pa.bool_(): "Bool",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16 CODEC(ZSTD)",
    pa.uint32(): "UInt32 CODEC(T64, ZSTD)",
    pa.uint64(): "UInt64 CODEC(T64, ZSTD)",
    pa.int64(): "Int64 CODEC(Delta, ZSTD)",
}
_UNREPEATED = {"pod": "String CODEC(ZSTD)", "id": "String CODEC(ZSTD)"}
_HASHED = {name: "UInt64 CODEC(ZSTD)" for name in FLOW_ROWS.names if name.endswith("_revision")}


def _connection(consumer: str, provider: str) -> str:
    """Addresses alone would not do: one that is given to another pod makes another connection."""
    ends = f"{consumer}, {consumer}_item, {provider}, {provider}_item, {provider}_port"
    key = f"kubernetes_cluster, protocol, {ends}"
    return f"connection UInt64 MATERIALIZED sipHash64({key}) CODEC(ZSTD)"


def _table(name: str, rows: pa.Schema, order: str, time: str, *derived: str) -> str:
    kinds = _UNREPEATED | _HASHED
    columns = [f"{field.name} {kinds.get(field.name, _TYPES[field.type])}" for field in rows]
    return (
        f"CREATE TABLE IF NOT EXISTS {name} ({', '.join([*columns, *derived])})\n"
        f"ENGINE = MergeTree ORDER BY ({order})\n"
        f"PARTITION BY toDate(fromUnixTimestamp64Nano({time}))\n"
        f"TTL toDateTime(fromUnixTimestamp64Nano({time})) + INTERVAL {RETENTION_DAYS} DAY\n"
        f"SETTINGS non_replicated_deduplication_window = {_REMEMBERED_BATCHES}"
    )


TABLES = (
    _table(
        "flows",
        FLOW_ROWS,
        "tenant, kubernetes_cluster, last_ns",
        "last_ns",
        _connection("first_consumer", "dialled"),
    ),
    _table(
        "drops",
        DROP_ROWS,
        "tenant, kubernetes_cluster, last_ns",
        "last_ns",
        _connection("consumer", "provider"),
    ),
    _table(
        "batches", BATCH_ROWS, "tenant, kubernetes_cluster, node, window_end_ns", "window_end_ns"
    ),
)
