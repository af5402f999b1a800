"""The Arrow schemas in which observations are inserted.

A row of `flows` is one observer's view of one conversation in one window, so that nothing is
concluded at insertion that a later row could prove wrong. `first_consumer`, `dialled` and
`dialled_port` are the tuple before NAT, the row's own where there was none: `connection` is
their hash, shared by all hops of a connection.
"""

import pyarrow as pa

from ringfence.wire import batch

ADDRESS = pa.binary(16)
REPEATED = pa.dictionary(pa.int32(), pa.string())
"""Of a word that few rows have to themselves."""

_ORIGIN = [
    ("tenant", REPEATED),
    ("kubernetes_cluster", REPEATED),
    ("node", REPEATED),  # of the agent
]
_WINDOW = [("window_end_ns", pa.int64())]
"""When the window ended in which the row was counted."""
_ENDS = [
    ("consumer_revision", pa.uint64()),  # inventory revisions at the time, 0 where nobody
    ("provider_revision", pa.uint64()),
    ("consumer_item", REPEATED),  # their items' keys, empty where nobody
    ("provider_item", REPEATED),
]

FLOW_ROWS = pa.schema(
    [
        *_ORIGIN,
        *_WINDOW,
        *(field for field in batch.FLOWS if not field.name.startswith("original_")),
        *_ENDS,
        ("first_consumer", ADDRESS),
        ("dialled", ADDRESS),
        ("dialled_port", pa.uint16()),
        ("first_consumer_revision", pa.uint64()),
        ("dialled_revision", pa.uint64()),
        ("first_consumer_item", REPEATED),
        ("dialled_item", REPEATED),
        ("consumer_node", REPEATED),  # that runs the end, empty outside the Kubernetes cluster
        ("provider_node", REPEATED),
        ("rank", pa.uint8()),  # flows.label.Rank
        ("at_consumer", pa.bool_()),  # seen on an interface that may be the consumer's own
        ("at_provider", pa.bool_()),
    ]
)

DROP_ROWS = pa.schema(
    [
        *_ORIGIN,
        *_WINDOW,
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
        ("more", pa.bool_()),  # the window goes on in another batch
    ]
)
