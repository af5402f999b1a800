"""Flow capture: every packet of the attached interfaces, counted in the kernel.

The program bpf/flow.bpf.c counts each packet into one record per tuple, direction and interface;
`FlowCapture.drain` takes the records since the last drain, and no packet is ever lost between
two drains. What could not be counted is itself counted, and `FlowCapture.audit` tells.
"""

import array
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ringfence.flows.record import FLOW_DTYPE, Hook
from ringfence.kernel import libbpf
from ringfence.kernel.answers import Answer, Answers
from ringfence.kernel.bpf import (
    BpfObject,
    DoubleBuffer,
    map_layouts,
    possible_processors,
    read_all,
)
from ringfence.kernel.clock import boot_ns
from ringfence.kernel.errors import BpfError
from ringfence.kernel.pins import Pins
from ringfence.kernel.tc import Attachment, attach
from ringfence.kernel.tunnel import DecodeAs, encode

__all__ = ["AUDIT_DTYPE", "FLOW_DTYPE", "FlowCapture"]

AUDIT_DTYPE = np.dtype(
    [
        ("ifindex", "u4"),
        ("hook", "u4"),
        ("skbs", "u8"),
        ("bytes", "u8"),
        ("non_ip", "u8"),
        ("truncated", "u8"),
        ("bad_header", "u8"),
        ("bad_length", "u8"),
        ("inner_truncated", "u8"),
        ("inner_bad_header", "u8"),
        ("inner_bad_length", "u8"),
        ("inner_full", "u8"),
        ("overlong", "u8"),
        ("unplaced", "u8"),
        ("full_skbs", "u8"),
        ("full_packets", "u8"),
        ("full_bytes", "u8"),
        ("dns_full", "u8"),
        ("dns_overlong", "u8"),
        ("dns_unasked", "u8"),
    ]
)
"""What passed one side of one interface since it was attached, and what of it is in no record.

`skbs` and `bytes` count everything, as the interface's own counters do (with the link header,
before segmentation). `non_ip`, `truncated` (a header is not all there), `bad_header` (a version or
header length that cannot be) and `bad_length` (longer than what carries it, or shorter than its
own headers) are skbs; `inner_*` are in a record as a tunnel's packets, but what they carry is not,
for one of these reasons or for want of room in the flow map.
`overlong` are longer than their frame in a capture file, and in a record as long as they say.
`unplaced` are later fragments whose first was not seen, in a record without ports; `full_*` found
the flow map full. `dns_*` are answers of DNS servers, in a record like all packets, that `answers`
does not give: no room for them was left, or they were in fragments or longer than an Ethernet
frame, or nobody is known to have asked, so that they are forged or their question was long ago or
not seen. A row of interface 0 stands for all those together that there was no room to count one by
one.
"""

# Mirrors of struct flow_key, struct flow and struct audit in bpf/flow.h, under the names that
# the fields have in FLOW_DTYPE.
_KEY = np.dtype(
    [
        ("src", "u1", 16), ("dst", "u1", 16), ("ifindex", "u4"), ("sport", "u2"),
        ("dport", "u2"), ("hook", "u1"), ("protocol", "u1"), ("inner", "u1"), ("family", "u1"),
        ("unplaced", "u1"), ("zero", "V3"),
    ]
)  # fmt: skip
_VALUE = np.dtype(
    [
        ("packets", "u8"), ("bytes", "u8"), ("first_ns", "u8"), ("last_ns", "u8"),
        ("tcp_flags", "u4"), ("next_seq", "u4"), ("retransmitted", "u4"),
        ("nat", "u1"), ("reply", "u1"), ("sequenced", "u1"), ("zero", "V1"),
        ("ipv4_id", "u2"), ("more_zero", "V2"),
        ("original_src", "u1", 16), ("original_dst", "u1", 16),
        ("original_sport", "u2"), ("original_dport", "u2"),
        ("syn", "u4"), ("synack", "u4"), ("syn_seq", "u4"), ("synack_seq", "u4"),
        ("syn_packets", "u4"), ("fin", "u4"), ("rst", "u4"),
        ("rtt_samples", "u4"), ("tunnel", "u8"),
        ("rtt_sum_ns", "u8"), ("rtt_min_ns", "u8"), ("syn_ns", "u8"),
    ]
)  # fmt: skip
_AUDIT_KEY = np.dtype([("ifindex", "u4"), ("hook", "u4")])
_AUDIT_COUNTERS = AUDIT_DTYPE.names[2:] if AUDIT_DTYPE.names else ()

_PINNED = ("flows_0", "flows_1", "flows", "audits", "audit_rest", "datagrams", "made")
_CONNTRACK = Path("/sys/module/nf_conntrack")
"""There while connection tracking is loaded, or built in."""
_MIRRORED = [each.descr for each in (_KEY, _VALUE, _AUDIT_KEY, AUDIT_DTYPE)]
"""What the bytes of pinned maps mean."""
_PART = 8192
"""Records read at a time: what is read is larger than what is kept of it."""
_NOT_FOR_FILES = ("ethernet_egress", "ip_ingress", "ip_egress")
_SIOCGIFHWADDR = 0x8927
_ETHERNET_TYPES = {1, 772}  # ARPHRD_ETHER, ARPHRD_LOOPBACK

log = structlog.get_logger()


class FlowCapture:
    """Attaches the flow program to interfaces and drains what it counted. Thread-safe."""

    def __init__(
        self,
        object_path: Path,
        max_flows: int = 262_144,
        max_audits: int = 8192,
        pins: Pins | None = None,
        *,
        replay: bool = False,
        dns: bool = False,
    ) -> None:
        """`max_flows`: how many records fit between two drains; more are counted as losses.

        `max_audits`: how many sides of interfaces are counted one by one. `pins`: where maps and
        links outlive this process, for the next capture to take over. `replay`: packets come from
        capture files and bring their own time. `dns`: keep the answers of DNS servers.
        """
        self._path = object_path
        self._max_flows = max_flows
        self._max_audits = max_audits
        self._pins = pins
        self._replay = replay
        self._dns = dns
        self._lock = threading.Lock()
        self._attachments: dict[int, Attachment] = {}
        self._departed: list[np.ndarray[Any, Any]] = []
        self._pod_interfaces: frozenset[int] = frozenset()
        self._taken: np.ndarray[Any, Any] = np.empty(0, _KEY)

    def open(self) -> None:
        """Load the program, and go on where a predecessor ended.

        Raises BpfError with what to do when the kernel refuses.
        """
        sizes = {
            "flows_0": self._max_flows,
            "flows_1": self._max_flows,
            "audits": self._max_audits,
        }
        unused = _NOT_FOR_FILES if self._replay else ()
        tracked = _CONNTRACK.exists()
        if not (tracked or self._replay):
            log.warning("translation of addresses is not known: nf_conntrack was not loaded")
        relate = tracked and not self._replay
        settings = struct.pack("=III", self._replay, self._dns, relate)  # struct settings
        pinned = {}
        if self._pins:
            layouts = map_layouts(self._path, _PINNED)
            self._pins.open(repr((sizes, layouts, _MIRRORED)).encode())
            pinned = {name: self._pins.map(name) for name in _PINNED}
        if not self._dns:
            sizes |= {"answers": mmap.PAGESIZE, "questions": 1}  # the least there is
        self._object = BpfObject(self._path, sizes, settings, unused, pinned)
        self._answers = Answers(self._object) if self._dns else None
        self._flows = DoubleBuffer(self._object, "flows", _KEY, _VALUE, self._max_flows)
        self._made = self._records_made()
        if self._pins:
            self._take_over(self._pins)

    def close(self) -> None:
        """Unload. What is pinned goes on counting for a successor; without pins nothing stays."""
        with self._lock:
            while self._attachments:
                _, attachment = self._attachments.popitem()
                attachment.leave() if self._pins else attachment.close()
            if self._answers:
                self._answers.close()
            self._object.close()
            if self._pins:
                self._pins.close()

    def remove(self) -> None:
        """Detach from every interface, and remove what is pinned; to `close` is left to do."""
        with self._lock:
            while self._attachments:
                self._attachments.popitem()[1].close()
            if self._pins:
                self._pins.remove()

    def attach(self, ifindex: int) -> None:
        """Count what passes an interface of the calling thread's network namespace.

        An interface that is attached already stays as it is.
        """
        with self._lock:
            if ifindex in self._attachments:
                return
            frames = "ethernet" if _has_ethernet_header(ifindex) else "ip"
            programs = {
                hook: self._object.program_fd(f"{frames}_{hook.name.lower()}") for hook in Hook
            }
            self._attachments[ifindex] = attach(ifindex, programs, self._pins)

    @property
    def attached(self) -> frozenset[int]:
        """The interfaces that are counted."""
        with self._lock:
            return frozenset(self._attachments)

    def detach(self, ifindex: int) -> None:
        """Stop counting an interface, which may be gone; `departed` has its last totals."""
        with self._lock:
            attachment = self._attachments.pop(ifindex, None)
            if attachment is None:
                return
            attachment.close()
            self._depart()

    def decode_as(self, ports: Collection[DecodeAs]) -> None:
        """Look into what these UDP ports carry, besides VXLAN's and Geneve's registered ones."""
        libbpf.call(
            "bpf_map_update_elem", self._object.map_fd(".data.decode_as"),
            ctypes.byref(ctypes.c_uint32(0)), encode(ports), 0, doing="name the tunnels' ports",
        )  # fmt: skip

    def lead_to_pods(self, ifindexes: Collection[int]) -> None:
        """Take the answers that leave by these interfaces, and no others, as their pods' answers.

        Those that the node itself asked for are taken at every interface; either needs `dns`.
        """
        with self._lock:
            pod_interfaces, wanted = self._object.map_fd("pod_interfaces"), frozenset(ifindexes)
            for ifindex in wanted - self._pod_interfaces:
                libbpf.call(
                    "bpf_map_update_elem", pod_interfaces, ctypes.byref(ctypes.c_uint32(ifindex)),
                    ctypes.byref(ctypes.c_uint8(1)), 0, doing="note a pod's interface",
                )  # fmt: skip
            for ifindex in self._pod_interfaces - wanted:
                libbpf.call(
                    "bpf_map_delete_elem", pod_interfaces, ctypes.byref(ctypes.c_uint32(ifindex)),
                    doing="forget a pod's interface", accept=(errno.ENOENT,),
                )  # fmt: skip
            self._pod_interfaces = wanted

    def drain(self) -> np.ndarray[Any, Any]:
        """All records (FLOW_DTYPE) counted since the last drain; the kernel forgets them."""
        records = self.take()
        self.done()
        return records

    def take(self) -> np.ndarray[Any, Any]:
        """All records (FLOW_DTYPE) counted since the last call.

        The kernel keeps them until `done`, so that they outlive a kill of this process.
        """
        with self._lock:
            self._made = self._records_made()
            self._flows.swap()
            return self._resting()

    def fill(self) -> float:
        """How full the flow map is, from 0 to 1; of a predecessor's records it does not know."""
        with self._lock:
            return (self._records_made() - self._made) / self._max_flows

    def left(self) -> np.ndarray[Any, Any]:
        """The records that were taken last, here or by a predecessor, if nobody called `done`."""
        with self._lock:
            return self._resting()

    def done(self) -> None:
        """What was taken, or left, is kept elsewhere now."""
        with self._lock:
            self._flows.delete(self._taken)
            self._taken = np.empty(0, _KEY)

    def _resting(self) -> np.ndarray[Any, Any]:
        # Room for a full map, of which the kernel gives us what is used.
        taken, flows = np.empty(self._flows.size, _KEY), np.empty(self._flows.size, FLOW_DTYPE)
        end = 0
        for keys, values in self._flows.resting(_PART):
            start, end = end, end + len(keys)
            taken[start:end] = keys
            for source in (keys, values):
                for name in {*(source.dtype.names or ())} & {*(FLOW_DTYPE.names or ())}:
                    flows[name][start:end] = source[name]
        self._taken, flows = taken[:end], flows[:end]
        if not self._replay:
            epoch = boot_ns()
            flows["first_ns"] += epoch
            flows["last_ns"] += epoch
        return flows

    def answers(self, most: int) -> list[Answer]:
        """The answers of DNS servers that came since the last call, at most `most`; with `dns`."""
        with self._lock:
            return self._answers.take(most) if self._answers else []

    def audit(self) -> np.ndarray[Any, Any]:
        """Totals (AUDIT_DTYPE) of each attached interface and direction since it was attached."""
        with self._lock:
            return self._read_audit()

    def departed(self) -> np.ndarray[Any, Any]:
        """The last totals (AUDIT_DTYPE) of what was detached since the last call of this.

        An interface may be among them several times, and be attached again.
        """
        with self._lock:
            departed, self._departed = self._departed, []
            return np.concatenate([np.empty(0, AUDIT_DTYPE), *departed])

    def program_fd(self, name: str) -> int:
        """A program's descriptor, to run it on a packet of one's own (BPF_PROG_TEST_RUN)."""
        return self._object.program_fd(name)

    def _take_over(self, pins: Pins) -> None:
        for ifindex in pins.linked():
            try:
                self.attach(ifindex)
            except BpfError:  # it is gone
                pins.unlink(ifindex)
        with self._lock:
            self._depart()

    def _depart(self) -> None:
        """Take the counters of interfaces that are not attached any more out of the map."""
        rows = self._read_audit()
        leaving = rows[~np.isin(rows["ifindex"], [0, *self._attachments])]
        self._departed.append(leaving)
        for row in leaving[["ifindex", "hook"]]:
            libbpf.call(
                "bpf_map_delete_elem", self._object.map_fd("audits"), row.tobytes(),
                doing="forget an interface", accept=(errno.ENOENT,),
            )  # fmt: skip

    def _records_made(self) -> int:
        made = ctypes.c_uint64()
        libbpf.call(
            "bpf_map_lookup_elem", self._object.map_fd("made"), ctypes.byref(ctypes.c_uint32(0)),
            ctypes.byref(made), doing="read how many records were made",
        )  # fmt: skip
        return made.value

    def _read_audit(self) -> np.ndarray[Any, Any]:
        counters = np.dtype((np.uint64, (possible_processors(), len(_AUDIT_COUNTERS))))
        audits = self._object.map_fd("audits")
        keys, values = read_all(audits, _AUDIT_KEY, counters, self._max_audits)
        rest = np.zeros(1, counters)
        libbpf.call(
            "bpf_map_lookup_elem", self._object.map_fd("audit_rest"),
            ctypes.byref(ctypes.c_uint32(0)), rest.ctypes, doing="read the audit",
        )  # fmt: skip
        totals = np.concatenate([values, rest]).sum(axis=1)
        rows = np.zeros(len(totals), AUDIT_DTYPE)
        rows["ifindex"][:-1], rows["hook"][:-1] = keys["ifindex"], keys["hook"]
        for i, name in enumerate(_AUDIT_COUNTERS):
            rows[name] = totals[:, i]
        return rows if rows["skbs"][-1] else rows[:-1]


def _has_ethernet_header(ifindex: int) -> bool:
    request = array.array("B", bytes(40))  # struct ifreq
    try:
        name = os.fsencode(socket.if_indextoname(ifindex))
        request[: len(name)] = array.array("B", name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCGIFHWADDR, request)
    except OSError as error:
        raise BpfError(f"no interface {ifindex} in this network namespace") from error
    hardware_type: int = struct.unpack_from("=H", request, 16)[0]
    return hardware_type in _ETHERNET_TYPES
