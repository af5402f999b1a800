"""Requests to the kernel over netlink(7): framed, sent and answered."""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from ringfence.kernel.errors import NetlinkError

REQUEST, ACK, DUMP, CREATE = 0x1, 0x4, 0x300, 0x400  # NLM_F_…
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_ERROR, _DONE = 2, 3  # NLMSG_…
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
NESTED = 0x8000  # NLA_F_NESTED
NETFILTER = 12  # NETLINK_NETFILTER
# include/uapi/linux/netfilter/nfnetlink.h: changes of rules are made in batches.
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = struct.pack("=BBH", 0, 0, socket.htons(10))  # nfgenmsg, NFNL_SUBSYS_NFTABLES


def ask(
    protocol: int, kind: int, flags: int, request: bytes, *, steady: bool = False
) -> Iterator[bytes]:
    """Send one request in the thread's namespace; yields the payload of each answer.

    Raises NetlinkError with the kernel's errno; `steady`: also where a change came in between,
    so that something may be missing.
    """
    with connect(protocol) as netlink:
        yield from exchange(netlink, kind, flags, request, steady=steady)


def connect(protocol: int) -> socket.socket:
    """A socket for many requests in a row, in the thread's namespace; raises NetlinkError."""
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    except OSError as error:
        raise _refused(error) from error


def exchange(
    netlink: socket.socket, kind: int, flags: int, request: bytes, *, steady: bool = False
) -> Iterator[bytes]:
    """As `ask`, over a socket that is open; the answers have to be read to their end."""
    yield from _answers(netlink, _message(kind, flags, request), steady=steady)


def change_rules(*changes: tuple[int, int, bytes]) -> None:
    """Make changes of nftables' rules in the thread's namespace, all or none.

    Each by its kind, flags and request. Raises NetlinkError with the first one's that is refused.
    """
    *others, (kind, flags, request) = changes
    said = [*(_message(*one) for one in others), _message(kind, flags | ACK, request)]
    begin, end = (_message(edge, 0, _NFTABLES) for edge in (_BATCH_BEGIN, _BATCH_END))
    with connect(NETFILTER) as netlink:
        for _ in _answers(netlink, b"".join([begin, *said, end])):
            pass


def _message(kind: int, flags: int, request: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(request), kind, REQUEST | flags, 1, 0) + request


def _answers(netlink: socket.socket, said: bytes, *, steady: bool = False) -> Iterator[bytes]:
    try:
        netlink.send(said)
        while True:
            for answer, about, payload in messages(netlink.recv(1 << 18)):
                if steady:
                    _check_whole(about)
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    _check(payload)
                    return
                yield payload
    except OSError as error:
        raise _refused(error) from error


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes (nlattr) in a payload, by kind; of several of one kind the last."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a payload one after another, each with its kind."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & ~NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (nlattr); of a nested one the kind has the bit NESTED."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute that holds a number, as nftables writes them."""
    return attribute(kind, struct.pack("!I", value))


def expression(name: bytes, *data: bytes) -> bytes:
    """One expression of a rule of nftables (NFTA_LIST_ELEM), with the attributes of its data."""
    return attribute(1, attribute(1, name + b"\0") + attribute(2, b"".join(data)))


def messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of each message that came at once."""
    at = 0
    while at < len(datagram):
        length, kind, flags, _, _ = _HEADER.unpack_from(datagram, at)
        yield kind, flags, datagram[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _check_whole(flags: int) -> None:
    if flags & _INTERRUPTED:
        raise OSError(errno.EINTR, "a change came in between")


def _check(payload: bytes) -> None:
    """Raise the error of an NLMSG_ERROR message; its code 0 is an acknowledgement."""
    (code,) = struct.unpack_from("=i", payload)
    if code:
        raise _refused(OSError(-code, os.strerror(-code)))


def _refused(error: OSError) -> NetlinkError:
    said = f"the kernel refused a netlink request: {error.strerror}"
    return NetlinkError(said, error.errno or 0)
