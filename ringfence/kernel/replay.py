"""Capture files through the flow program: what it would have counted had it been there.

Each frame goes through the very program that agents attach, by BPF_PROG_TEST_RUN. The kernel
takes no frame over some 3,700 bytes and none under a few dozen, so frames are cut and padded, and
their real lengths travel beside them; a setting, constant once loaded, makes the program heed
those, look into tunnels, and ask connection tracking nothing.
"""

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import recfunctions as rfn

from ringfence.flows.linktype import as_ethernet, is_known
from ringfence.flows.pcap import Frame
from ringfence.kernel.bpf import run_on_frame
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.tunnel import DecodeAs

_LIMIT = 2048  # bytes of a frame: more than all its headers have
_LEAST = 64
_MAX_FLOWS = 2**20
_FRAMES_AT_ONCE = 16_384
_CROWDED = 1 - 2 * _FRAMES_AT_ONCE / _MAX_FLOWS
"""How full the flow map may be before so many frames more: each makes two records at most."""
_TUPLE = ["protocol", "inner", "family", "unplaced", "src", "dst", "sport", "dport"]
_COUNTS = [
    "packets", "bytes", "syn", "synack", "syn_packets", "fin", "rst", "retransmitted",
    "rtt_samples", "rtt_sum_ns",
]  # fmt: skip

Records = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Replayed:
    """What became of the frames."""

    frames: int
    frame_bytes: int
    """On the wire, link headers included."""
    truncated_frames: int
    """Captured in part."""
    unknown_link_types: Mapping[int, int]
    """Frames that were not fed, by LINKTYPE_ number."""
    records: Records
    """FLOW_DTYPE, one for each tuple outside and inside of tunnels."""
    audit: Mapping[str, int]
    """The counters of AUDIT_DTYPE, `skbs` being the frames that were fed."""


class Replay:
    """A loaded flow program that is fed with frames. `close` it in the end."""

    def __init__(self, object_path: Path, decode_as: Sequence[DecodeAs] = ()) -> None:
        """At most MAX_DECODE_AS of `decode_as` are heeded. Raises BpfError."""
        self._capture = FlowCapture(object_path, _MAX_FLOWS, replay=True)
        self._capture.open()
        self._capture.decode_as(decode_as)
        self._program = self._capture.program_fd("ethernet_ingress")
        self._before = Counter[str]()
        self.forget()

    def close(self) -> None:
        """Unload the program."""
        self._capture.close()

    def forget(self) -> None:
        """Begin again, knowing nothing but the first fragments that were seen."""
        self._capture.drain()
        self._before.update(self._totals())
        self._drained: list[Records] = []
        self._fed = self._frames = self._bytes = self._truncated = 0
        self._unknown = Counter[int]()

    def feed(self, frame: Frame) -> None:
        """Run the program on one frame. Raises BpfError where the kernel refuses it."""
        self._frames += 1
        self._bytes += frame.length
        self._truncated += len(frame.data) < frame.length
        if not is_known(frame.link_type):
            self._unknown[frame.link_type] += 1
            return
        data, length = as_ethernet(frame, _LIMIT)
        low, high = frame.time_ns & 0xFFFFFFFF, frame.time_ns >> 32
        context = struct.pack("=48x4I", len(data), length, low, high)  # struct __sk_buff: cb
        run_on_frame(self._program, data.ljust(_LEAST, b"\0"), context)
        self._fed += 1
        # What is drained is forgotten: of a connection that goes on, what TCP showed before.
        if self._fed % _FRAMES_AT_ONCE == 0 and self._capture.fill() > _CROWDED:
            self._drained.append(self._capture.drain())

    def result(self) -> Replayed:
        """All that was counted so far."""
        self._drained = [_merge(np.concatenate([*self._drained, self._capture.drain()]))]
        return Replayed(
            self._frames, self._bytes, self._truncated, self._unknown, self._drained[0],
            self._totals(),
        )  # fmt: skip

    def _totals(self) -> dict[str, int]:
        audit = self._capture.audit()
        return {name: int(audit[name].sum()) - self._before[name] for name in audit.dtype.names[2:]}


def _merge(records: Records) -> Records:
    """Add up the records of one tuple, of which each drain has one."""
    keys = np.ascontiguousarray(rfn.repack_fields(records[_TUPLE]))
    keys, first, which = np.unique(
        keys.view(f"S{keys.dtype.itemsize}"), return_index=True, return_inverse=True
    )
    merged = records[first]
    for name in _COUNTS:
        merged[name] = 0
        np.add.at(merged[name], which, records[name])
    never = np.iinfo(np.uint64).max
    merged["rtt_min_ns"] = never
    least = np.where(records["rtt_samples"] > 0, records["rtt_min_ns"], never)
    np.minimum.at(merged["rtt_min_ns"], which, least)
    merged["rtt_min_ns"][merged["rtt_samples"] == 0] = 0
    np.bitwise_or.at(merged["tcp_flags"], which, records["tcp_flags"])
    np.minimum.at(merged["first_ns"], which, records["first_ns"])
    np.maximum.at(merged["last_ns"], which, records["last_ns"])
    return merged
