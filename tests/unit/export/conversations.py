"""Conversations of a small cluster, for the tests of exporters."""

from typing import Any

import pyarrow as pa

from ringfence.export.record import CONVERSATIONS
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP

START = 1_900_000_000 * 10**9
_NOBODY = {"kind": "", "namespace": "", "name": "", "owner": ""}
FRONT = {"kind": "pod", "namespace": "shop", "name": "front-end-1", "owner": "front-end"}
CARTS = {"kind": "pod", "namespace": "shop", "name": "carts-1", "owner": "carts"}
SERVICE = {"kind": "service", "namespace": "shop", "name": "carts", "owner": "carts"}


def conversation(
    consumer: str = "10.1.1.2",
    provider: str = "10.1.1.3",
    dialled: str = "",
    **given: Any,
) -> dict[str, Any]:
    """A row; `dialled` is the address before NAT, of port 80."""
    ends = {
        "consumer": (consumer, FRONT),
        "provider": (provider, CARTS),
        "first_consumer": (consumer, FRONT),
        "dialled": (dialled or provider, SERVICE if dialled else CARTS),
    }
    row = {
        "kubernetes_cluster": "lab", "node": "node1", "protocol": TCP, "consumer_port": 0,
        "provider_port": 8080, "dialled_port": 80 if dialled else 8080,
        "translated": bool(dialled), "consumer_node": "node1", "provider_node": "node2",
        "consumer_process": "node", "consumer_pid": 71, "consumer_container": "front-end",
        "provider_process": "", "provider_pid": 0, "provider_container": "",
        "method": "syn", "provider_dns_name": "",
        "forward_packets": 5, "forward_bytes": 500, "forward_flags": 0x1B,
        "reverse_packets": 4, "reverse_bytes": 4_000_000_000_000, "reverse_flags": 0x12,
        "opened": 2, "answered": 1, "refused": 0,
        "forward_syn": 3, "forward_fin": 1, "forward_rst": 0, "forward_retransmitted": 7,
        "reverse_syn": 2, "reverse_fin": 0, "reverse_rst": 0, "reverse_retransmitted": 0,
        "rtt_samples": 0, "rtt_sum_ns": 0, "rtt_min_ns": 0,
        "first_ns": START + 1, "last_ns": START + 1_500_000_000,
    }  # fmt: skip
    for end, (address, described) in ends.items():
        row[end] = parse_address(address)
        row |= {f"{end}_{what}": text for what, text in (_NOBODY | described).items()}
    return row | given


def batch(*rows: dict[str, Any]) -> pa.RecordBatch:
    plain = pa.schema(
        (field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field in CONVERSATIONS
    )
    return pa.RecordBatch.from_pylist(list(rows), schema=plain).cast(CONVERSATIONS)
