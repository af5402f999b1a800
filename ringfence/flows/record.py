"""The one-way record as the kernel counts it, before anything is concluded from it."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Hook(IntEnum):
    """Which way a packet crossed the interface, seen from the node's stack."""

    INGRESS = 0
    EGRESS = 1


class Nat(IntEnum):
    """What conntrack said of the record's tuple."""

    UNKNOWN = 0
    NONE = 1
    TRANSLATED = 2


FLOW_DTYPE = np.dtype(
    [
        ("ifindex", "u4"),
        ("hook", "u1"),  # Hook
        ("protocol", "u1"),
        ("inner", "u1"),  # 1: the innermost packet of a tunnel's packet
        ("family", "u1"),  # 4 or 6: addresses of IPv6 packets can look like IPv4's
        ("unplaced", "u1"),  # 1: later fragments whose ports are not known
        ("nat", "u1"),  # Nat
        ("reply", "u1"),  # 1 where the record runs in its conntrack entry's reply direction
        ("src", "u1", 16),
        ("dst", "u1", 16),
        ("sport", "u2"),  # host order; ICMP: the type
        ("dport", "u2"),  # host order; ICMP: the code
        # The tuple of the original direction before NAT, zero unless TRANSLATED.
        ("original_src", "u1", 16),
        ("original_dst", "u1", 16),
        ("original_sport", "u2"),
        ("original_dport", "u2"),
        ("tunnel", "u8"),  # of an inner packet, `tuple_id` of the one that carried it; else 0
        ("packets", "u8"),  # on the wire: segments of a GSO packet, each counted
        ("bytes", "u8"),  # from the IP header on, headers of each segment included
        ("tcp_flags", "u2"),  # all flags seen
        ("syn", "u4"),  # packets with SYN and no ACK; one that is sent again is not counted
        ("synack", "u4"),  # likewise
        ("syn_packets", "u4"),  # with SYN, with ACK or without; those that are sent again too
        ("fin", "u4"),  # packets with the flag
        ("rst", "u4"),
        # Segments that lie wholly before what this record saw already; SYNs and FINs are among
        # them, GSO packets count as their segments, probes of one byte do not count. Over IPv6
        # what was put out of order on the way looks the same.
        ("retransmitted", "u4"),
        # From a SYN to the SYN-ACK of this record, where the SYN was sent once only.
        ("rtt_samples", "u4"),
        ("rtt_sum_ns", "u8"),
        ("rtt_min_ns", "u8"),  # 0 without samples
        ("first_ns", "i8"),  # epoch ns
        ("last_ns", "i8"),
    ]
)

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def tuple_id(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """A hash of interface, protocol, addresses and ports of each record, as the kernel makes it."""
    src, dst = (np.ascontiguousarray(records[end]).view("=u4") for end in ("src", "dst"))
    words = [word for four in zip(src.T, dst.T, strict=True) for word in four]
    ports = records["sport"].astype(np.uint64) << np.uint64(16) | records["dport"]
    ids = records["ifindex"].astype(np.uint64)
    for word in (records["protocol"], *words, ports):
        ids = (ids ^ word) * _MULTIPLIER
        ids ^= ids >> np.uint64(32)
    return ids
