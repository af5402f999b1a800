"""What a report says, column by column: conversations that an agent saw, and drops.

A conversation is two-way and oriented: forward is from the consumer to the provider. An agent
sends one row per conversation, observing interface and window. `original_*` is the tuple before
NAT where conntrack knew one that differs, else all zero: rows that share an original tuple
belong to one connection. `tunnel_*` is the conversation outside where the packets were seen
inside a tunnel, as its own row has it, else all zero. A tunnel counts what it `carries`, whose
packets are its own as well.

It is written with nanoarrow: PyArrow, with which the control plane reads it, would take a quarter
of an agent's memory.
"""

import io
from collections.abc import Mapping
from typing import Any

import nanoarrow as na
import numpy as np
from nanoarrow.ipc import StreamWriter
from numpy.typing import NDArray

U8, U16, U32, U64, I64 = "uint8", "uint16", "uint32", "uint64", "int64"
ADDRESS = "address"
"""16 octets (model.address)."""
TEXT = "text"

Columns = Mapping[str, str]
"""Names and kinds."""

FLOWS: Columns = {
    "observer": U8,  # model.flow.Observer
    "interface": U32,  # ifindex in the node's namespace
    "protocol": U8,
    "consumer": ADDRESS,
    "provider": ADDRESS,
    "consumer_port": U16,  # 0 where folded (conversation mode)
    "provider_port": U16,  # ICMP: type * 256 + code
    "original_consumer": ADDRESS,
    "original_provider": ADDRESS,
    "original_provider_port": U16,
    "tunnel_protocol": U8,
    "tunnel_consumer": ADDRESS,
    "tunnel_provider": ADDRESS,
    "tunnel_port": U16,
    "carries": U32,  # conversations seen inside of it, either way
    "method": TEXT,  # model.flow.Method
    "provider_dns_name": TEXT,  # by which the consumer found it; empty if unknown
    "forward_packets": U64,
    "forward_bytes": U64,
    "forward_flags": U16,
    "forward_syn": U32,  # packets with the flag, repeated ones too
    "forward_fin": U32,
    "forward_rst": U32,
    "forward_retransmitted": U32,  # TCP segments, as flows.record tells
    "reverse_packets": U64,
    "reverse_bytes": U64,
    "reverse_flags": U16,
    "reverse_syn": U32,
    "reverse_fin": U32,
    "reverse_rst": U32,
    "reverse_retransmitted": U32,
    "opened": U64,  # connections whose opening was seen
    "answered": U64,  # of these, answered by the provider
    "refused": U64,  # of these, answered with RST or unreachable
    "rtt_samples": U32,  # handshakes whose time from SYN to SYN-ACK is known
    "rtt_sum_ns": U64,
    "rtt_min_ns": U64,  # 0 without samples
    # Of an end on the agent's node, what holds its socket; empty and 0 where that is not known.
    # Of several processes the one with the lowest PID.
    "consumer_process": TEXT,
    "consumer_pid": U32,  # as the node sees it
    "consumer_container": TEXT,  # its name in the pod's specification
    "provider_process": TEXT,
    "provider_pid": U32,
    "provider_container": TEXT,
    "first_ns": I64,  # epoch ns
    "last_ns": I64,
}

DROPS: Columns = {
    "source": U8,  # model.flow.DropSource
    "observer": U8,  # the namespace it was dropped in: a pod's, or the node's
    "direction": TEXT,  # model.policy.Direction of the end that dropped
    "pod": TEXT,  # uid of the pod whose namespace it was, empty for the node
    "protocol": U8,
    "consumer": ADDRESS,
    "provider": ADDRESS,
    "provider_port": U16,
    "rule": TEXT,  # handle of the rule that dropped; empty for others' drops
    "reason": TEXT,  # the kernel's drop reason for others' drops
    "packets": U64,
    "overflow": U64,  # drops of this rule that found no room in its set
}


def encode(schema: Columns, columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Columns of equal length as an Arrow IPC stream.

    Addresses are (n, 16) uint8 arrays, text is of str or object.
    """
    sink = io.BytesIO()
    children = [_array(columns[name], kind) for name, kind in schema.items()]
    kinds = {name: _ARROW[kind] for name, kind in schema.items()}
    rows = len(children[0])
    with StreamWriter.from_writable(sink) as writer:
        writer.write_array(
            na.c_array_from_buffers(na.struct(kinds), rows, [None], children=children)
        )
    return sink.getvalue()


def empty(schema: Columns) -> dict[str, NDArray[np.generic]]:
    """Columns without rows, as `encode` takes them."""
    kinds = {TEXT: np.empty(0, dtype=object), ADDRESS: np.empty((0, 16), dtype=np.uint8)}
    return {
        name: kinds[kind] if kind in kinds else np.empty(0, kind) for name, kind in schema.items()
    }


def _array(values: NDArray[np.generic], kind: str) -> Any:
    if kind == TEXT:
        return na.c_array(values.tolist(), na.string())
    packed = np.ascontiguousarray(values, dtype=np.uint8 if kind == ADDRESS else kind)
    return na.c_array_from_buffers(_ARROW[kind], len(packed), [None, packed])


_ARROW = {
    U8: na.uint8(),
    U16: na.uint16(),
    U32: na.uint32(),
    U64: na.uint64(),
    I64: na.int64(),
    ADDRESS: na.fixed_size_binary(16),
    TEXT: na.string(),
}
