"""What the kernel itself counted at each interface, to hold our own counts against.

The counters move while they are read. So there are two readings, one that tells no more than had
passed by then and one that tells no less: what a program counted between the two lies between, but
for the packets that are on their way from the kernel's counter to the program, or from it there.
"""

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from ringfence.kernel.netlink import DUMP, ask, attributes

_RTM_GETQDISC, _RTM_GETSTATS = 38, 94
_IF_STATS = struct.Struct("=BxxxII")  # struct if_stats_msg: family, ifindex, filter_mask
_LINK_64 = 1  # IFLA_STATS_LINK_64, a struct rtnl_link_stats64
_LINK_STATS = struct.Struct("=QQ40xQ")  # of it: rx_packets, tx_packets, tx_dropped
_TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_TC_H_ROOT = 0xFFFFFFFF
_TCA_KIND, _TCA_STATS2, _TCA_STATS_QUEUE = 1, 7, 3
_QUEUE = struct.Struct("=IIIII")  # struct gnet_stats_queue: qlen, backlog, drops, …
_WAITING = 11  # the column of softnet_stat
_CUTTERS = frozenset({b"tbf\0", b"cake\0", b"netem\0"})


class Counters(NamedTuple):
    """Packets (skbs) of one interface since it was made."""

    ingress: int
    """Taken in: what the ingress hook sees."""
    egress: int
    """What the egress hook sees: handed to the driver, waiting for it, or dropped before it."""
    cut: bool
    """Its queueing discipline may cut a packet into segments, each counted by the driver."""


class _Queue(NamedTuple):
    passed: int
    cut: bool


def at_least() -> dict[int, Counters]:
    """By ifindex, no more than what has passed; raises NetlinkError.

    Of the calling thread's network namespace, as `at_most`.
    """
    links = _links()
    return _together(links, _queues())  # a packet on its way from queue to driver is in neither


def at_most() -> dict[int, Counters]:
    """By ifindex, no less than what has passed; raises NetlinkError."""
    queues = _queues()
    return _together(_links(), queues)  # … in both


def backlog() -> int:
    """How many packets have been taken in and wait for a processor, in all network namespaces.

    /proc/net/softnet_stat has a line for each processor, in hexadecimal.
    """
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[_WAITING], base=16) for line in lines)


def _together(links: dict[int, tuple[int, int]], queues: dict[int, _Queue]) -> dict[int, Counters]:
    none = _Queue(0, cut=False)
    return {
        ifindex: Counters(taken, sent + queue.passed, queue.cut)
        for ifindex, (taken, sent) in links.items()
        for queue in (queues.get(ifindex, none),)
    }


def _links() -> dict[int, tuple[int, int]]:
    """By ifindex, packets taken in, and those that the driver sent or dropped."""
    found = {}
    request = _IF_STATS.pack(socket.AF_UNSPEC, 0, 1 << (_LINK_64 - 1))
    for answer in ask(socket.NETLINK_ROUTE, _RTM_GETSTATS, DUMP, request):
        _, ifindex, _ = _IF_STATS.unpack_from(answer)
        stats = attributes(answer[_IF_STATS.size :])[_LINK_64]
        taken, sent, dropped = _LINK_STATS.unpack_from(stats)
        found[ifindex] = taken, sent + dropped
    return found


def _queues() -> dict[int, _Queue]:
    """By ifindex, what the root queueing discipline holds or dropped; interfaces without are not.

    Its own counters tell of its classes and children too.
    """
    found = {}
    request = _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in ask(socket.NETLINK_ROUTE, _RTM_GETQDISC, DUMP, request):
        _, ifindex, _, parent, _ = _TCMSG.unpack_from(answer)
        told = attributes(answer[_TCMSG.size :])
        queue = attributes(told.get(_TCA_STATS2, b"")).get(_TCA_STATS_QUEUE)
        if parent == _TC_H_ROOT and queue is not None:
            waiting, _, dropped, _, _ = _QUEUE.unpack_from(queue)
            found[ifindex] = _Queue(waiting + dropped, told.get(_TCA_KIND) in _CUTTERS)
    return found
