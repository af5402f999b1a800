"""What goes out: one labelled conversation a row, with the names of its own time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringfence.model.address import Address, format_address
from ringfence.wire.batch import addresses

_ADDRESS = pa.binary(16)
NAME = pa.dictionary(pa.int32(), pa.string())

ENDS = ("consumer", "provider", "first_consumer", "dialled")
"""The ends on the wire, and the ends before NAT, which are the same where there was none."""

DESCRIBED = ("kind", "namespace", "name", "owner")
"""What an end's item is known by; all empty where nobody is known to hold the address."""

TCP_COUNTS = ("syn", "fin", "rst", "retransmitted")
"""What is counted of each way besides packets and bytes."""

CONVERSATIONS = pa.schema(
    [
        ("kubernetes_cluster", pa.string()),
        ("node", pa.string()),  # whose agent saw it
        ("protocol", pa.uint8()),
        *((end, _ADDRESS) for end in ENDS),
        *((f"{end}_{what}", NAME) for end in ENDS for what in DESCRIBED),
        ("provider_dns_name", NAME),  # as what the consumer found it; empty if unknown
        ("consumer_port", pa.uint16()),  # 0 where folded
        ("provider_port", pa.uint16()),  # ICMP: type * 256 + code
        ("dialled_port", pa.uint16()),
        ("translated", pa.bool_()),  # an end before NAT differs
        ("consumer_node", pa.string()),  # that runs the end, empty outside the Kubernetes cluster
        ("provider_node", pa.string()),
        # As in wire.batch.FLOWS, of the agent's own node.
        *(
            (f"{end}_{what}", kind)
            for end in ("consumer", "provider")
            for what, kind in {
                "process": pa.string(),
                "pid": pa.uint32(),
                "container": pa.string(),
            }.items()
        ),
        ("method", pa.string()),  # model.flow.Method
        *(
            (f"{way}_{what}", kind)
            for way in ("forward", "reverse")
            for what, kind in {
                "packets": pa.uint64(),
                "bytes": pa.uint64(),
                "flags": pa.uint16(),
                **dict.fromkeys(TCP_COUNTS, pa.uint32()),
            }.items()
        ),
        ("opened", pa.uint64()),
        ("answered", pa.uint64()),
        ("refused", pa.uint64()),
        ("rtt_samples", pa.uint32()),  # as in wire.batch.FLOWS
        ("rtt_sum_ns", pa.uint64()),
        ("rtt_min_ns", pa.uint64()),
        ("first_ns", pa.int64()),  # epoch ns
        ("last_ns", pa.int64()),
    ]
)


def address_text(column: pa.Array) -> pa.DictionaryArray:
    """A column of addresses as people write them, each distinct one formatted once."""
    distinct, which = np.unique(addresses(column).view("V16").ravel(), return_inverse=True)
    texts = [format_address(Address(bytes(address))) for address in distinct]
    return pa.DictionaryArray.from_arrays(pa.array(which, pa.int32()), pa.array(texts, pa.string()))


def dictionary(column: pa.Array) -> pa.DictionaryArray:
    """A column as a dictionary array of just the values that are in it."""
    whole = pa.types.is_dictionary(column.type)
    return pc.dictionary_encode(column.cast(column.type.value_type) if whole else column)
