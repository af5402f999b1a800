"""The sockets of a pod's namespace, by sock_diag(7): who listens, what is open, cut this one.

A listening socket tells the direction of a flow whose start nobody saw; the open connections are
what enforcement must know of before its first dropping rule; a destroyed socket is how a denied
connection ends at once.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import ACK, DUMP, ask, attributes
from ringfence.kernel.netns import run_in
from ringfence.model.address import V4_MAPPED, Address, is_v4
from ringfence.model.protocol import TCP, UDP

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_INET_DIAG_SKV6ONLY = 11

_TUPLE = struct.Struct("!HH16s16s")  # the first half of inet_diag_sockid
_ANY_SOCKET = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # the other: interface, cookie
_REQUEST = struct.Struct("=BBBBI48s")  # inet_diag_req_v2
_ANSWER = struct.Struct("=BBBB48s5I")  # inet_diag_msg

# States of include/net/tcp_states.h; UDP sockets use the first and the last of them.
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE, _CLOSE_WAIT, _LISTEN = 1, 4, 5, 7, 8, 10
_PICKED = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of the reader's namespace
_GONE = {errno.ENOENT, errno.ESTALE}
_LISTENING = {TCP: (_LISTEN,), UDP: (_CLOSE,)}
_OPEN = {TCP: (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT), UDP: (_ESTABLISHED,)}


class Listener(NamedTuple):
    """A socket that takes what arrives at `address` (all zero: at any of its family)."""

    protocol: int
    address: Address
    port: int


class Connection(NamedTuple):
    """A socket with a peer, seen from its own end."""

    protocol: int
    local: Address
    local_port: int
    remote: Address
    remote_port: int


def listening(netns_path: Path) -> frozenset[Listener]:
    """TCP sockets that listen and UDP sockets without a peer.

    A socket that listens on :: for both families counts once for each.
    """
    return _listeners(run_in(netns_path, lambda: list(_dump(_LISTENING))))


def serving(netns_path: Path) -> frozenset[Listener]:
    """Those `listening`, but for UDP sockets on a port that the kernel picks, as for clients."""

    def chosen() -> list[tuple[Connection, bool]]:
        first, last = map(int, _PICKED.read_text().split())
        return [
            (c, v6_only)
            for c, v6_only in _dump(_LISTENING)
            if c.protocol != UDP or not first <= c.local_port <= last
        ]

    return _listeners(run_in(netns_path, chosen))


def _listeners(found: Collection[tuple[Connection, bool]]) -> frozenset[Listener]:
    listeners = {Listener(c.protocol, c.local, c.local_port) for c, _ in found}
    any_v4 = Address(V4_MAPPED + bytes(4))
    listeners |= {
        Listener(c.protocol, any_v4, c.local_port)
        for c, v6_only in found
        if not any(c.local) and not v6_only
    }
    return frozenset(listeners)


def connections(netns_path: Path) -> frozenset[Connection]:
    """TCP connections that still carry data in some direction, and connected UDP sockets."""
    return frozenset(run_in(netns_path, lambda: [c for c, _ in _dump(_OPEN)]))


def destroy(netns_path: Path, connection: Connection) -> bool:
    """Cut a connection: both ends see a reset (TCP). False if it was already gone.

    Needs CAP_NET_ADMIN and a kernel with INET_DIAG_DESTROY.
    """
    return run_in(netns_path, lambda: _destroy(connection))


def _destroy(wanted: Connection) -> bool:
    """Find the socket, then destroy that one by its cookie.

    The kernel looks a tuple up as it would for a packet: once the connection is gone it would
    find, and destroy, the listening socket.
    """
    family = socket.AF_INET if is_v4(wanted.local) else socket.AF_INET6
    ends = _wire(wanted.local), _wire(wanted.remote)
    socket_id = _TUPLE.pack(wanted.local_port, wanted.remote_port, *ends) + _ANY_SOCKET
    lookup = _request(family, wanted.protocol, (), socket_id)
    try:
        found = next(ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, 0, lookup))
        if _parse(wanted.protocol, found)[0] != wanted:
            return False
        family, _, _, _, socket_id, *_ = _ANSWER.unpack_from(found)
        exactly = _request(family, wanted.protocol, (), socket_id)
        for _ in ask(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, ACK, exactly):
            pass
    except NetlinkError as error:
        if error.code in _GONE:
            return False
        raise
    return True


def _dump(states_by_protocol: Mapping[int, tuple[int, ...]]) -> Iterator[tuple[Connection, bool]]:
    """Every socket in one of the states, and whether it is for IPv6 only."""
    for protocol, states in states_by_protocol.items():
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _request(family, protocol, states, bytes(_TUPLE.size) + _ANY_SOCKET)
            for payload in ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, DUMP, request):
                yield _parse(protocol, payload)


def _request(family: int, protocol: int, states: tuple[int, ...], socket_id: bytes) -> bytes:
    mask = sum(1 << state for state in states)
    return _REQUEST.pack(family, protocol, 0, 0, mask, socket_id)


def _parse(protocol: int, payload: bytes) -> tuple[Connection, bool]:
    family, _, _, _, socket_id, *_ = _ANSWER.unpack_from(payload)
    sport, dport, src, dst = _TUPLE.unpack_from(socket_id)
    local, remote = _address(family, src), _address(family, dst)
    told = attributes(payload[_ANSWER.size :]).get(_INET_DIAG_SKV6ONLY, b"\0")
    v6_only = family == socket.AF_INET or bool(told[0])
    return Connection(protocol, local, sport, remote, dport), v6_only


def _wire(address: Address) -> bytes:
    return address[12:].ljust(16, b"\0") if is_v4(address) else address


def _address(family: int, wire: bytes) -> Address:
    return Address(V4_MAPPED + wire[:4] if family == socket.AF_INET else wire)
