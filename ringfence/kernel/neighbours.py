"""Packets that wait, in a namespace, for the hardware address of a neighbour.

They have passed the namespace's rules already, those of when they were sent: up to 208 KiB for
each neighbour (ip-sysctl.rst, unres_qlen_bytes), for as long as it does not answer.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import ACK, DUMP, ask, attributes
from ringfence.kernel.netns import run_in

_RTM_DELNEIGH, _RTM_GETNEIGH = 29, 30
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_NDA_DST = 1
_NUD_INCOMPLETE = 0x01


def forget_waiting(netns_path: Path) -> None:
    """Throw away what waits to be sent to neighbours; raises NetlinkError, NamespaceError.

    A neighbour that is forgotten is asked for again by the next packet to it.
    """

    def forget() -> None:
        for request in list(_unresolved()):
            _delete(request)

    run_in(netns_path, forget)


def _unresolved() -> Iterator[bytes]:
    """Requests to delete the entries that have no hardware address yet."""
    everything = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in ask(socket.NETLINK_ROUTE, _RTM_GETNEIGH, DUMP, everything):
        family, ifindex, state, _, _ = _NEIGHBOUR.unpack_from(answer)
        told = attributes(answer[_NEIGHBOUR.size :])
        if state & _NUD_INCOMPLETE and (address := told.get(_NDA_DST)):
            header = struct.pack("=HH", 4 + len(address), _NDA_DST)
            yield _NEIGHBOUR.pack(family, ifindex, 0, 0, 0) + header + address


def _delete(request: bytes) -> None:
    try:
        list(ask(socket.NETLINK_ROUTE, _RTM_DELNEIGH, ACK, request))
    except NetlinkError as error:
        if error.code != errno.ENOENT:  # gone meanwhile
            raise
