"""Attaching programs to both sides of an interface, beside whatever else hangs there.

A TCX link (kernel 6.6) ends with its descriptor, unless it is pinned: then whoever is next takes
it over, and no packet passes between the old program and the new one. Before that there are only
filters of the clsact qdisc, which stay until somebody removes them: who attached them, or who has
attached a program of the same name in their place since; there is one agent to a node. The qdisc
goes with the one who made it, if nobody else uses it by then; otherwise it stays.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from ringfence.flows.record import Hook
from ringfence.kernel import libbpf
from ringfence.kernel.bpf import program_name
from ringfence.kernel.errors import BpfError
from ringfence.kernel.netlink import DUMP, ask
from ringfence.kernel.pins import Pins


class Attachment(Protocol):
    """Programs on an interface."""

    def close(self) -> None:
        """Take them off; the interface may be gone. Called in the interface's namespace."""

    def leave(self) -> None:
        """Let go of them: what is pinned, and every filter, goes on for a successor."""


def attach(ifindex: int, programs: Mapping[Hook, int], pins: Pins | None = None) -> Attachment:
    """Attach program descriptors to an interface of the thread's namespace.

    Raises BpfError; then none of them is attached.
    """
    try:
        return TcxLinks(ifindex, programs, pins)
    except TcxMissingError:
        return ClsactFilters(ifindex, programs)


class TcxMissingError(BpfError):
    """The kernel is older than TCX."""


class _LinkOptions(ctypes.Structure):
    """struct bpf_link_create_opts of libbpf, up to its flags."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("zero", ctypes.c_uint32))


_ATTACH_TYPE = {Hook.INGRESS: 46, Hook.EGRESS: 47}  # enum bpf_attach_type
_BPF_F_BEFORE = 1 << 3
_HIGH = 1024


class TcxLinks:
    """One link a program: kernel 6.6 and later.

    Each stands before the programs of others, any of which may end the round.
    """

    def __init__(
        self, ifindex: int, programs: Mapping[Hook, int], pins: Pins | None = None
    ) -> None:
        self._ifindex, self._pins = ifindex, pins
        self._links: list[int] = []
        try:
            for hook, program in programs.items():
                self._link(hook, program)
        except BpfError:
            self.close()
            raise

    def close(self) -> None:
        """Close the links, and remove their pins."""
        if self._pins:
            self._pins.unlink(self._ifindex)
        self.leave()

    def leave(self) -> None:
        """Close the links; those that are pinned go on."""
        while self._links:
            os.close(self._links.pop())

    def _link(self, hook: Hook, program: int) -> None:
        pin = self._pins.link(self._ifindex, hook) if self._pins else None
        if pin and self._take_over(pin, program):
            return
        first = _LinkOptions(sz=ctypes.sizeof(_LinkOptions), flags=_BPF_F_BEFORE)
        link = libbpf.call(
            "bpf_link_create", program, self._ifindex, _ATTACH_TYPE[hook], ctypes.byref(first),
            doing=f"attach to {hook.name.lower()} of interface {self._ifindex}",
            accept=(errno.EINVAL,),
        )  # fmt: skip
        if link < 0:
            raise TcxMissingError("the kernel has no TCX")
        self._links.append(_out_of_the_way(link))
        if pin:
            libbpf.call("bpf_obj_pin", self._links[-1], bytes(pin), doing=f"pin a link at {pin}")

    def _take_over(self, pin: Path, program: int) -> bool:
        """Put the program into a predecessor's link; false where its interface is gone."""
        link = libbpf.call(
            "bpf_obj_get", bytes(pin), doing=f"open the link {pin}", accept=(errno.ENOENT,)
        )
        if link < 0:
            return False
        updated = libbpf.call(
            "bpf_link_update", link, program, None,
            doing=f"take over the link {pin}", accept=(errno.ENOLINK,),
        )  # fmt: skip
        if updated < 0:
            os.close(link)
            pin.unlink()
            return False
        self._links.append(_out_of_the_way(link))
        return True


def _out_of_the_way(link: int) -> int:
    """The link by a descriptor that libnftables could not work with, where the limit is higher.

    Two of each interface would take the low ones, which that library needs (`nft`).
    """
    try:
        high = fcntl.fcntl(link, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:
        return link
    os.close(link)
    return high


class _TcHook(ctypes.Structure):
    """struct bpf_tc_hook of libbpf."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcFilter(ctypes.Structure):
    """struct bpf_tc_opts of libbpf."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


_POINT = {Hook.INGRESS: 1, Hook.EGRESS: 2}  # enum bpf_tc_attach_point
_PARENT = {Hook.INGRESS: 0xFFFFFFF2, Hook.EGRESS: 0xFFFFFFF3}  # TC_H_CLSACT and which side
_BOTH = _POINT[Hook.INGRESS] | _POINT[Hook.EGRESS]
_RTM_GETTFILTER = 46
_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_NAME = 1, 2, 7
_BPF_TC_F_REPLACE = 1 << 0
_ALREADY_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)


class ClsactFilters:
    """One direct-action filter a program; the kernel gives each a priority of its own."""

    def __init__(self, ifindex: int, programs: Mapping[Hook, int]) -> None:
        self._ifindex = ifindex
        self._filters: dict[Hook, _TcFilter] = {}
        with _only_loader():
            made = libbpf.call(
                "bpf_tc_hook_create", self._hook(_BOTH),
                doing=f"make a clsact qdisc on interface {ifindex}", accept=(errno.EEXIST,),
            )  # fmt: skip
            self._made_qdisc = made == 0
            try:
                for hook, program in programs.items():
                    self._attach(hook, program)
            except BpfError:
                self._remove()
                raise

    def close(self) -> None:
        """Remove our filters, and our qdisc unless others use it."""
        with _only_loader():
            self._remove()

    def leave(self) -> None:
        """Filters stay by themselves."""

    def _attach(self, hook: Hook, program: int) -> None:
        """Put the program in the place of a predecessor's: it bears the same name."""
        fresh = _TcFilter(sz=ctypes.sizeof(_TcFilter), prog_fd=program)
        name = program_name(program)
        before = [one for one in _bpf_filters(self._ifindex, hook) if one.program == name]
        if before:
            fresh.flags = _BPF_TC_F_REPLACE
            fresh.handle, fresh.priority = before[0].handle, before[0].priority
        libbpf.call(
            "bpf_tc_attach", self._hook(_POINT[hook]), ctypes.byref(fresh),
            doing=f"attach to {hook.name.lower()} of interface {self._ifindex}",
        )  # fmt: skip
        self._filters[hook] = fresh
        for other in before[1:]:
            self._detach(hook, other.handle, other.priority)

    def _detach(self, hook: Hook, handle: int, priority: int) -> None:
        size = ctypes.sizeof(_TcFilter)
        libbpf.call(
            "bpf_tc_detach", self._hook(_POINT[hook]),
            ctypes.byref(_TcFilter(sz=size, handle=handle, priority=priority)),
            doing=f"detach from interface {self._ifindex}", accept=_ALREADY_GONE,
        )  # fmt: skip

    def _remove(self) -> None:
        while self._filters:
            hook, ours = self._filters.popitem()
            self._detach(hook, ours.handle, ours.priority)
        if self._made_qdisc and not any(_has_filters(self._ifindex, hook) for hook in Hook):
            libbpf.call(
                "bpf_tc_hook_destroy", self._hook(_BOTH),
                doing=f"remove the clsact qdisc of interface {self._ifindex}",
                accept=_ALREADY_GONE,
            )  # fmt: skip

    def _hook(self, point: int) -> object:
        size = ctypes.sizeof(_TcHook)
        return ctypes.byref(_TcHook(sz=size, ifindex=self._ifindex, attach_point=point))


class _BpfFilter(NamedTuple):
    """A BPF filter that stands on one side of an interface."""

    handle: int
    priority: int
    program: bytes
    """As libbpf writes it, cut by the kernel; the number that follows there is left out."""


def _has_filters(ifindex: int, hook: Hook) -> bool:
    return any(True for _ in _filters(ifindex, hook))


def _filters(ifindex: int, hook: Hook) -> Iterator[bytes]:
    request = _TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, _PARENT[hook], 0)
    return ask(socket.NETLINK_ROUTE, _RTM_GETTFILTER, DUMP, request)


def _bpf_filters(ifindex: int, hook: Hook) -> Iterator[_BpfFilter]:
    for answer in _filters(ifindex, hook):
        _, _, handle, _, info = _TCMSG.unpack_from(answer)
        held = _attributes(answer[_TCMSG.size :])
        name = _attributes(held.get(_TCA_OPTIONS, b"")).get(_TCA_BPF_NAME)
        if held.get(_TCA_KIND) == b"bpf\0" and name is not None:
            yield _BpfFilter(handle, info >> 16, name.partition(b":[")[0])


def _attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by type, the last of each."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


@contextlib.contextmanager
def _only_loader() -> Iterator[None]:
    """Hold a lock that all loaders in this network namespace share: the namespace's own file.

    Loaders that let the kernel choose at the same moment are given the same priority and fail.
    """
    with Path("/proc/thread-self/ns/net").open("rb") as namespace:
        fcntl.flock(namespace, fcntl.LOCK_EX)
        yield
