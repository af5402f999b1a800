"""Drops by others: packets that a netfilter rule not ours, in any namespace, has dropped.

Our own deny rules report what they drop themselves; those of a CNI or an operator do not. The
program bpf/drop.bpf.c hears of them from the kernel's tracepoint skb:kfree_skb. It hears of our
own as well, and knows them by the mark that our rules put on what they drop.
"""

import ctypes
import os
import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ringfence.kernel import libbpf
from ringfence.kernel.bpf import BpfObject, DoubleBuffer

DROP_DTYPE = np.dtype(
    [
        ("netns", "u8"),
        ("protocol", "u1"),
        ("src", "u1", 16),
        ("dst", "u1", 16),
        ("sport", "u2"),
        ("dport", "u2"),
        ("reason", "u2"),
        ("packets", "u8"),
        ("bytes", "u8"),
    ]
)
"""Packets dropped alike.

`netns`: inode number of the network namespace whose rule dropped them. Addresses and ports as in
FLOW_DTYPE, as they stood at the drop. `reason`: enum skb_drop_reason of the running kernel.
`packets`: a GSO packet dies as one. `bytes`: from the IP header on.
"""

# Mirrors of struct drop_key and struct drop in bpf/drop.bpf.c.
_KEY = np.dtype(
    [
        ("src", "u1", 16), ("dst", "u1", 16), ("netns", "u4"), ("sport", "u2"), ("dport", "u2"),
        ("reason", "u2"), ("protocol", "u1"), ("zero", "V1"),
    ]
)  # fmt: skip
_VALUE = np.dtype([("packets", "u8"), ("bytes", "u8")])


@dataclass(frozen=True)
class DropLosses:
    """Dropped packets that no record holds, since `DropCapture.open`."""

    full: int
    """The map had no room; whose packets it was is not known."""
    unparsed: int
    """Neither IPv4 nor IPv6, cut short, or with headers outside of the packet's first piece."""


class DropCapture:
    """Listens to netfilter drops on the whole machine and drains them. Thread-safe."""

    def __init__(self, object_path: Path, max_drops: int = 16384) -> None:
        """`max_drops`: how many records fit between two drains; more are counted as losses."""
        self._path = object_path
        self._max_drops = max_drops
        self._lock = threading.Lock()
        self._unparsed: Counter[int] = Counter()

    def open(self) -> None:
        """Load the program and listen. Raises BpfError when the kernel refuses."""
        self._object = BpfObject(
            self._path, {"drops_0": self._max_drops, "drops_1": self._max_drops}
        )
        self._drops = DoubleBuffer(self._object, "drops", _KEY, _VALUE, self._max_drops)
        self._link = libbpf.call(
            "bpf_raw_tracepoint_open", b"kfree_skb", self._object.program_fd("count_drop"),
            doing="listen to skb:kfree_skb",
        )  # fmt: skip

    def close(self) -> None:
        """Stop listening and unload."""
        with self._lock:
            os.close(self._link)
            self._object.close()

    def drain(self) -> np.ndarray[Any, Any]:
        """All records (DROP_DTYPE) counted since the last drain, of packets that were parsed."""
        with self._lock:
            keys, values = self._drops.drain()
        drops = np.empty(len(keys), DROP_DTYPE)
        for source in (keys, values):
            for name in source.dtype.names or ():
                if name != "zero":
                    drops[name] = source[name]
        parsed = drops["src"].any(1) | drops["dst"].any(1)
        for netns, packets in drops[["netns", "packets"]][~parsed].tolist():
            self._unparsed[netns] += packets
        return drops[parsed]

    def losses(self, namespaces: Collection[int] | None = None) -> DropLosses:
        """What could not be recorded; of the unparsed as of the last drain.

        `namespaces`, by inode, are those whose unparsed packets count; None: all on the machine.
        """
        counter = ctypes.c_uint64()
        libbpf.call(
            "bpf_map_lookup_elem", self._object.map_fd("full"),
            ctypes.byref(ctypes.c_uint32(0)), ctypes.byref(counter), doing="read drop losses",
        )  # fmt: skip
        counted = self._unparsed if namespaces is None else self._unparsed.keys() & namespaces
        return DropLosses(counter.value, sum(self._unparsed[netns] for netns in counted))
