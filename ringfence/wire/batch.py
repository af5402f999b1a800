"""The Arrow schemas of a report: conversations that an agent saw, and drops.

A conversation is two-way and oriented: forward is from the consumer to the provider. An agent
sends one row per conversation, observing interface and window. `original_*` is the tuple before
NAT where conntrack knew one that differs, else all zero: rows that share an original tuple
belong to one connection. `tunnel_*` is the conversation outside where the packets were seen
inside a tunnel, as its own row has it, else all zero. A tunnel counts what it `carries`, whose
packets are its own as well.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.model.errors import RingfenceError

PROTOCOL = 1
"""The version of the agent protocol, checked at enrolment and at the start of each session."""

_ADDRESS = pa.binary(16)

FLOWS = pa.schema(
    [
        ("observer", pa.uint8()),  # model.flow.Observer
        ("interface", pa.uint32()),  # ifindex in the node's namespace
        ("protocol", pa.uint8()),
        ("consumer", _ADDRESS),
        ("provider", _ADDRESS),
        ("consumer_port", pa.uint16()),  # 0 where folded (conversation mode)
        ("provider_port", pa.uint16()),  # ICMP: type * 256 + code
        ("original_consumer", _ADDRESS),
        ("original_provider", _ADDRESS),
        ("original_provider_port", pa.uint16()),
        ("tunnel_protocol", pa.uint8()),
        ("tunnel_consumer", _ADDRESS),
        ("tunnel_provider", _ADDRESS),
        ("tunnel_port", pa.uint16()),
        ("carries", pa.uint32()),  # conversations seen inside of it, either way
        ("method", pa.string()),  # model.flow.Method
        ("provider_dns_name", pa.string()),  # by which the consumer found it; empty if unknown
        ("forward_packets", pa.uint64()),
        ("forward_bytes", pa.uint64()),
        ("forward_flags", pa.uint16()),
        ("forward_syn", pa.uint32()),  # packets with the flag, repeated ones too
        ("forward_fin", pa.uint32()),
        ("forward_rst", pa.uint32()),
        ("forward_retransmitted", pa.uint32()),  # TCP segments, as flows.record tells
        ("reverse_packets", pa.uint64()),
        ("reverse_bytes", pa.uint64()),
        ("reverse_flags", pa.uint16()),
        ("reverse_syn", pa.uint32()),
        ("reverse_fin", pa.uint32()),
        ("reverse_rst", pa.uint32()),
        ("reverse_retransmitted", pa.uint32()),
        ("opened", pa.uint64()),  # connections whose opening was seen
        ("answered", pa.uint64()),  # of these, answered by the provider
        ("refused", pa.uint64()),  # of these, answered with RST or unreachable
        ("rtt_samples", pa.uint32()),  # handshakes whose time from SYN to SYN-ACK is known
        ("rtt_sum_ns", pa.uint64()),
        ("rtt_min_ns", pa.uint64()),  # 0 without samples
        ("first_ns", pa.int64()),  # epoch ns
        ("last_ns", pa.int64()),
    ]
)

DROPS = pa.schema(
    [
        ("source", pa.uint8()),  # model.flow.DropSource
        ("observer", pa.uint8()),  # the namespace it was dropped in: a pod's, or the node's
        ("direction", pa.string()),  # model.policy.Direction of the end that dropped
        ("pod", pa.string()),  # uid of the pod whose namespace it was, empty for the node
        ("protocol", pa.uint8()),
        ("consumer", _ADDRESS),
        ("provider", _ADDRESS),
        ("provider_port", pa.uint16()),
        ("rule", pa.string()),  # handle of the rule that dropped; empty for others' drops
        ("reason", pa.string()),  # the kernel's drop reason for others' drops
        ("packets", pa.uint64()),
        ("overflow", pa.uint64()),  # drops of this rule that found no room in its set
    ]
)


class BatchError(RingfenceError):
    """Bytes that are not a record batch of the schema asked for."""


def encode(schema: pa.Schema, columns: Mapping[str, NDArray[np.generic] | pa.Array]) -> bytes:
    """Columns of equal length as an Arrow IPC stream; addresses are (n, 16) uint8 arrays."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table(schema, columns))
    return bytes(sink.getvalue())


def table(schema: pa.Schema, columns: Mapping[str, NDArray[np.generic] | pa.Array]) -> pa.Table:
    """Columns of equal length as a table; addresses are (n, 16) uint8 arrays."""
    arrays = [_column(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def decode(schema: pa.Schema, data: bytes) -> pa.Table:
    """Read what `encode` wrote; raises BatchError."""
    try:
        table = pa.ipc.open_stream(data).read_all()
        table.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise BatchError(f"not an Arrow stream: {error}") from error
    if not table.schema.equals(schema):
        raise BatchError(f"a batch has the schema {table.schema}, expected {schema}")
    lacking = [name for name in schema.names if table[name].null_count]
    if lacking:
        raise BatchError(f"a batch has rows without {', '.join(lacking)}")
    return table


def addresses(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of addresses as an array of shape (n, 16)."""
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(joined.buffers()[1], dtype=np.uint8)
    start = joined.offset * 16
    return data[start : start + len(joined) * 16].reshape(len(joined), 16)


def _column(values: NDArray[np.generic] | pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and kind == _ADDRESS:
        packed = np.ascontiguousarray(values, dtype=np.uint8)
        return pa.Array.from_buffers(_ADDRESS, len(packed), [None, pa.py_buffer(packed)])
    return pa.array(values, type=kind)
