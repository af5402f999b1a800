"""The door to ipset: sets are made by the tool `ipset`, and read over netlink.

The tool tells messages of ICMP and protocols by names that differ from one to the next; the
kernel tells numbers. Everything here works in the calling thread's namespace.
"""

import errno
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ringfence.kernel.errors import KernelError, NetlinkError
from ringfence.kernel.netlink import ACK, DUMP, connect, exchange
from ringfence.model.address import V4_MAPPED, Address, format_address

PREFIX = "rf_"
"""What the names of our sets begin with."""

# include/uapi/linux/netfilter/nfnetlink.h and ipset/ip_set.h
_NETLINK_NETFILTER = 12
_LIST = 6 << 8 | 7
_PROTOCOL = 6
"""The version that kernels from 2.6.39 on speak."""
_LIST_HEADER = 1 << 2
_AT_PROTOCOL, _AT_NAME, _AT_TYPE, _AT_FAMILY, _AT_FLAGS, _AT_DATA, _AT_ELEMENTS = (
    1,
    2,
    3,
    5,
    6,
    7,
    8,
)
_KIND = 0x3FFF
_HEADER = {6: "timeout", 8: "flags", 19: "maxelem", 25: "references"}
_ELEMENT = {3: "cidr", 4: "port", 6: "timeout", 7: "proto", 8: "flags", 25: "packets"}
_ADDRESSES = {1: "ip", 20: "ip2"}
_PASSED_OVER = frozenset({17, 18, 21, 24, 26})
"""Of a header: seed, size of the table and of its buckets, count and memory. Bytes are 24."""
_V6_OCTETS = 16
_FAMILIES = {socket.AF_INET: 4, socket.AF_INET6: 6, socket.AF_UNSPEC: 0}

_GENERIC = struct.Struct("=BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")

Set = dict[str, Any]
"""Name, type, family (4 or 6), maxelem, timeout, flags, references; elements as `elem`."""


class IpsetError(KernelError):
    """ipset refused a command, or is missing."""


def restore(commands: str) -> None:
    """Run commands of `ipset restore` one after another; raises IpsetError at the first refused."""
    try:
        subprocess.run(
            ["ipset", "restore"], input=commands, capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise IpsetError(f"ipset: {error.strerror}; install ipset (Debian, Ubuntu)") from error
    except subprocess.CalledProcessError as error:
        raise IpsetError(f"ipset refused: {error.stderr.strip()}") from error


def destroy(names: Iterable[str]) -> None:
    """Take sets away that no rule refers to; raises IpsetError."""
    if commands := "".join(f"destroy {name}\n" for name in names):
        restore(commands)


def list_sets(*, elements: bool = True) -> list[Set]:
    """Our sets in the order of their names; without `elements` the kernel tells none.

    A kernel without ipset has no sets. Raises NetlinkError.
    """
    with connect(_NETLINK_NETFILTER) as netlink:
        try:
            found = {s["name"]: s for s in _ask(netlink, _attribute(_AT_FLAGS, _LIST_HEADER))}
        except NetlinkError as error:
            if error.code == errno.EINVAL:
                return []
            raise
        for name in found if elements else ():
            for part in _ask(netlink, _text(_AT_NAME, name)):
                found[name].setdefault("elem", []).extend(part.get("elem", ()))
    return [found[name] for name in sorted(found)]


def _ask(netlink: socket.socket, what: bytes) -> Iterator[Set]:
    request = _GENERIC.pack(socket.AF_UNSPEC, 0, 0) + _octet(_AT_PROTOCOL, _PROTOCOL) + what
    for payload in exchange(netlink, _LIST, DUMP | ACK, request):
        told: Set = {}
        for kind, value in _attributes(payload[_GENERIC.size :]):
            match kind:
                case _ if kind == _AT_NAME:
                    told["name"] = value.rstrip(b"\0").decode(errors="replace")
                case _ if kind == _AT_TYPE:
                    told["type"] = value.rstrip(b"\0").decode(errors="replace")
                case _ if kind == _AT_FAMILY:
                    told["family"] = _FAMILIES[socket.AddressFamily(value[0])]
                case _ if kind == _AT_DATA:
                    told |= _numbers(value, _HEADER)
                case _ if kind == _AT_ELEMENTS:
                    each = (element for _, element in _attributes(value))
                    told["elem"] = [_numbers(element, _ELEMENT) for element in each]
        if told.get("name", "").startswith(PREFIX):
            yield told


def _numbers(data: bytes, names: Mapping[int, str]) -> dict[str, Any]:
    """The attributes of a header or an element; `other` where one has no name here."""
    told: dict[str, Any] = {}
    for kind, value in _attributes(data):
        if kind in _PASSED_OVER:
            continue
        if kind in _ADDRESSES:
            ((_, packed),) = _attributes(value)
            told[_ADDRESSES[kind]] = _address(packed)
        elif kind in names:
            told[names[kind]] = int.from_bytes(value)
        else:
            told["other"] = kind
    return told


def _address(packed: bytes) -> str:
    if len(packed) == _V6_OCTETS:
        return socket.inet_ntop(socket.AF_INET6, packed)
    return format_address(Address(V4_MAPPED + packed[:4]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each attribute's kind and value, also those of one kind."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _KIND, data[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


def _attribute(kind: int, number: int) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, kind) + struct.pack("!I", number)


def _octet(kind: int, number: int) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + 1, kind) + bytes((number, 0, 0, 0))


def _text(kind: int, text: str) -> bytes:
    value = text.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
