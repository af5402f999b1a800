"""Requests to the kernel over netlink(7), for what needs no more than one question."""

import os
import socket
import struct
from collections.abc import Iterator

from ringfence.kernel.errors import NetlinkError

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300  # NLM_F_…
_ERROR, _DONE = 2, 3  # NLMSG_…
_HEADER = struct.Struct("=IHHII")  # nlmsghdr


def ask(protocol: int, kind: int, flags: int, request: bytes) -> Iterator[bytes]:
    """Send one request in the thread's namespace; yields the payload of each answer.

    Raises NetlinkError, caused by an OSError with the kernel's errno.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        header = _HEADER.pack(_HEADER.size + len(request), kind, REQUEST | flags, 1, 0)
        netlink.send(header + request)
        while True:
            datagram = netlink.recv(1 << 18)
            at = 0
            while at < len(datagram):
                length, answer, _, _, _ = _HEADER.unpack_from(datagram, at)
                payload = datagram[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    _check(payload)
                    return
                yield payload


def _check(payload: bytes) -> None:
    """Raise the error of an NLMSG_ERROR message; its code 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", payload)
    if code:
        cause = OSError(-code, os.strerror(-code))
        raise NetlinkError(f"the kernel refused a netlink request: {cause.strerror}") from cause
