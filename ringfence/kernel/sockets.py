"""The sockets of a pod's namespace, by sock_diag(7): who listens, what is open, cut this one.

A listening socket tells the direction of a flow whose start nobody saw; an inode leads to the
process that holds a socket; the open connections are what enforcement must know of before its first
dropping rule; a destroyed socket is how a denied connection ends at once.
"""

import errno
import socket
import struct
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import ACK, DUMP, ask, attributes
from ringfence.kernel.netns import run_in
from ringfence.model.address import V4_MAPPED, Address, is_v4, parse_network
from ringfence.model.protocol import TCP, UDP

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_INET_DIAG_SKV6ONLY = 11

_TUPLE = struct.Struct("!HH16s16s")  # the first half of inet_diag_sockid
_REST = struct.Struct("=III")  # the other: interface, cookie
_ANY_SOCKET = _REST.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
_REQUEST = struct.Struct("=BBBBI48s")  # inet_diag_req_v2
_ANSWER = np.dtype(  # inet_diag_msg
    [
        ("family", "u1"), ("state", "u1"), ("timer", "V2"), ("id", "V48"), ("counts", "V16"),
        ("inode", "u4"),
    ]
)  # fmt: skip
_ID = np.dtype(  # inet_diag_sockid
    [("sport", ">u2"), ("dport", ">u2"), ("src", "u1", 16), ("dst", "u1", 16), ("rest", "V12")]
)

# States of include/net/tcp_states.h; UDP sockets use the first and the fifth of them.
_ESTABLISHED, _SYN_SENT, _FIN_WAIT1, _FIN_WAIT2, _CLOSE, _CLOSE_WAIT, _LISTEN = 1, 2, 4, 5, 7, 8, 10
_PICKED = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of the reader's namespace
_GONE = {errno.ENOENT, errno.ESTALE}
_States = Mapping[int, tuple[int, ...]]
"""By protocol."""
_LISTENING = {TCP: (_LISTEN,), UDP: (_CLOSE,)}
_OPEN = {TCP: (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT), UDP: (_ESTABLISHED,)}
_HELD = {TCP: (_LISTEN, _SYN_SENT, *_OPEN[TCP]), UDP: (_CLOSE, _ESTABLISHED)}

SOCKET_DTYPE = np.dtype(
    [
        ("protocol", "u1"),
        ("local", "u1", 16),
        ("local_port", "u2"),
        ("remote", "u1", 16),  # zero where it listens
        ("remote_port", "u2"),
        ("listens", "?"),  # takes what arrives at `local`; all zero: at any address of its family
        ("serves", "?"),  # listens, and not as a UDP client does, on a port that the kernel picked
        ("inode", "u4"),  # names it among the files of processes; 0 where none holds it
    ]
)

_MOST_SOCKETS = 16_384
_MOST_CONNECTIONS = 131_072
"""Of a protocol and family, some 300 bytes each: how many there are is the pod's choice."""

_LINK_LOCAL = parse_network("fe80::/10")

log = structlog.get_logger()

_ANY_V6 = np.zeros(16, np.uint8)
_ANY_V4 = np.frombuffer(V4_MAPPED + bytes(4), np.uint8)


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


def sockets(netns_path: Path) -> NDArray[np.void]:
    """The TCP and UDP sockets that listen, connect or are connected (SOCKET_DTYPE).

    One that listens on :: for both families stands there once for each. Of a protocol and family
    16,384 at most, TCP's listeners first.
    """

    def look() -> NDArray[np.void]:
        first, last = map(int, _PICKED.read_text().split())
        found, _ = _dump(_HELD, _MOST_SOCKETS)
        picked = (first <= found["local_port"]) & (found["local_port"] <= last)
        found["serves"] = found["listens"] & ~(picked & (found["protocol"] == UDP))
        return found

    return run_in(netns_path, look)


def listening(netns_path: Path) -> frozenset[Listener]:
    """TCP sockets that listen and UDP sockets without a peer.

    A socket that listens on :: for both families counts once for each. Of a protocol and family
    131,072; that there are more is logged.
    """
    return frozenset(
        Listener(int(row["protocol"]), Address(row["local"].tobytes()), int(row["local_port"]))
        for row in _whole(netns_path, _LISTENING)
    )


def connections(netns_path: Path) -> frozenset[Connection]:
    """TCP connections that still carry data in some direction, and connected UDP sockets.

    Of a protocol and family 131,072; that there are more is logged.
    """
    return frozenset(_connection(row) for row in _whole(netns_path, _OPEN))


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
    if wanted.local in _LINK_LOCAL:  # the kernel finds it by its link alone
        return any(_destroy_at(wanted, link) for link, _ in socket.if_nameindex())
    return _destroy_at(wanted, 0)


def _destroy_at(wanted: Connection, link: int) -> bool:
    family = socket.AF_INET if is_v4(wanted.local) else socket.AF_INET6
    ends = _wire(wanted.local), _wire(wanted.remote)
    rest = _REST.pack(link, 0xFFFFFFFF, 0xFFFFFFFF)
    socket_id = _TUPLE.pack(wanted.local_port, wanted.remote_port, *ends) + rest
    lookup = _request(family, wanted.protocol, (), socket_id)
    try:
        found = next(ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, 0, lookup))
        if _connection(_read(wanted.protocol, [found])[0]) != wanted:
            return False
        (answer,) = np.frombuffer(found, _ANSWER, 1)
        exactly = _request(int(answer["family"]), wanted.protocol, (), answer["id"].tobytes())
        for _ in ask(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, ACK, exactly):
            pass
    except NetlinkError as error:
        if error.code in _GONE:
            return False
        raise
    return True


def _whole(netns_path: Path, states_by_protocol: _States) -> NDArray[np.void]:
    """What rules are made by: that not all of it was read is worth a word."""
    found, more = run_in(netns_path, lambda: _dump(states_by_protocol, _MOST_CONNECTIONS))
    if more:
        log.warning("sockets not all read", netns=str(netns_path), read=len(found))
    return found


def _dump(states_by_protocol: _States, most: int) -> tuple[NDArray[np.void], bool]:
    """The sockets in one of the states (SOCKET_DTYPE), `most` of a protocol and family.

    Also whether there are more.
    """
    found, more = [], False
    for protocol, states in states_by_protocol.items():
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _request(family, protocol, states, bytes(_TUPLE.size) + _ANY_SOCKET)
            answers = ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, DUMP, request)
            found.append(_read(protocol, list(islice(answers, most))))
            more |= next(answers, None) is not None
    return np.concatenate(found), more


def _request(family: int, protocol: int, states: tuple[int, ...], socket_id: bytes) -> bytes:
    mask = sum(1 << state for state in states)
    return _REQUEST.pack(family, protocol, 0, 0, mask, socket_id)


def _read(protocol: int, answers: Sequence[bytes]) -> NDArray[np.void]:
    """Answers about sockets of one family (SOCKET_DTYPE)."""
    told = np.frombuffer(b"".join(each[: _ANSWER.itemsize] for each in answers), _ANSWER)
    ids = told["id"].copy().view(_ID)
    rows = np.zeros(len(told), SOCKET_DTYPE)
    rows["protocol"], rows["inode"] = protocol, told["inode"]
    rows["local_port"], rows["remote_port"] = ids["sport"], ids["dport"]
    rows["listens"] = told["state"] == (_LISTEN if protocol == TCP else _CLOSE)
    v4 = told["family"] == socket.AF_INET
    for name, wire in (("local", ids["src"]), ("remote", ids["dst"])):
        rows[name] = wire
        rows[name][v4] = _ANY_V4
        rows[name][v4, 12:] = wire[v4, :4]
    rows["remote"][rows["listens"]] = 0
    anywhere = np.nonzero(rows["listens"] & (rows["local"] == _ANY_V6).all(1))[0].tolist()
    both = rows[[at for at in anywhere if not _v6_only(answers[at])]]
    both["local"] = _ANY_V4
    return np.concatenate([rows, both])


def _v6_only(answer: bytes) -> bool:
    return bool(attributes(answer[_ANSWER.itemsize :]).get(_INET_DIAG_SKV6ONLY, b"\0")[0])


def _connection(row: np.void) -> Connection:
    local, remote = (Address(row[end].tobytes()) for end in ("local", "remote"))
    ports = int(row["local_port"]), int(row["remote_port"])
    return Connection(int(row["protocol"]), local, ports[0], remote, ports[1])


def _wire(address: Address) -> bytes:
    return address[12:].ljust(16, b"\0") if is_v4(address) else address
