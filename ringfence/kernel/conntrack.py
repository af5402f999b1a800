"""The door to connection tracking: on before it is needed, and entries made and deleted.

A namespace tracks nothing until a rule asks for it, and a connection older than that is unknown
to `ct state established`. So tracking starts when a namespace is first met, and before its first
dropping rule an entry is made for every socket that is open.
"""

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import ACK, CREATE, DUMP, NESTED, attributes, connect, exchange
from ringfence.kernel.netns import run_in
from ringfence.kernel.sockets import connections, listening
from ringfence.model.address import V4_MAPPED, Address, is_v4
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP

# include/uapi/linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT = 1, 2, 3, 4, 7
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_ADDRESSES = {4: (1, 2), 16: (3, 4)}
"""Attributes of source and destination, by the length of an address."""
_PROTO_NUMBER, _PROTO_SOURCE, _PROTO_DESTINATION = 1, 2, 3
_PROTO_ICMP = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}
"""Attributes of identifier, type and code."""
_SEEN_REPLY, _ASSURED, _CONFIRMED, _DST_NAT = 2, 4, 8, 32
_PROTOINFO_TCP = 1
_TCP_STATE, _TCP_FLAGS, _TCP_FLAGS_REPLY = 1, 4, 5
_TCP_ESTABLISHED, _TCP_LIBERAL = 3, 8
# The kernel's own for TCP (Documentation/networking/nf_conntrack-sysctl.rst). The first packet
# sets the namespace's configured time.
_IDLE_SECONDS = {TCP: 432_000}
_IDLE_SECONDS_OTHER = 120

_GENERIC = struct.Struct("=BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked connection by its original direction, before NAT.

    ICMP has its identifier as source port and type * 256 + code as destination port.
    """

    protocol: int
    source: Address
    destination: Address
    source_port: int
    destination_port: int
    translated: bool = False
    """Whether its destination is changed on the way (DNAT)."""
    guessed: bool = False
    """Whether it is TCP that was open before tracking, so that its direction may be wrong."""
    reached: tuple[Address, int] | None = None
    """Where it is sent instead, address and port, if it is translated."""

    def reversed(self) -> "Entry":
        """The same as its other end would have opened it."""
        return replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
        )


def adopt_open_sockets(netns_path: Path) -> int:
    """Make an established entry for every open connection; returns how many there are.

    A connection whose local port is listened on came from outside. A datagram socket without a
    peer has none of its own: see `adopt_datagrams`. What the kernel refuses to track is passed over
    and will stall: a pod whose sockets are odd, or too many, must not stay without rules for that.
    """
    ports = {(listener.protocol, listener.port) for listener in listening(netns_path)}
    found = []
    for protocol, local, local_port, remote, remote_port in connections(netns_path):
        if (protocol, local_port) in ports:
            found.append(Entry(protocol, remote, local, remote_port, local_port))
        else:
            found.append(Entry(protocol, local, remote, local_port, remote_port))
    _adopt(netns_path, found)
    return len(found)


def adopt_datagrams(netns_path: Path, own: Collection[Address], node: Path) -> int:
    """Make an entry for what UDP sockets without a peer exchange; returns how many there are.

    The node's tracking knows it, where the node tracks at all, by both its ends: as `netns_path`,
    whose addresses are `own`, sees it, it is before NAT if it was opened there, and after NAT if it
    leads there.
    """
    ports = {listener.port for listener in listening(netns_path) if listener.protocol == UDP}
    wires = [_wire(address) for address in own]
    found = []
    for payload in _dump(node) if ports else ():
        if not any(wire in payload for wire in wires):
            continue  # most of a node's, quickly
        opened, led = _both_ends(payload)
        if opened.protocol != UDP:
            continue
        if opened.source in own and opened.source_port in ports:
            found.append(opened)
        if led.destination in own and led.destination_port in ports:
            found.append(led)
    _adopt(netns_path, found)
    return len(found)


def _adopt(netns_path: Path, found: Iterable[Entry]) -> None:
    if refused := run_in(netns_path, lambda: _ask(CREATE, map(_new, found))):
        log.warning("open connections not adopted", netns=str(netns_path), refused=len(refused),
                    problem=str(refused[0]))  # fmt: skip


def entries(netns_path: Path) -> Iterator[Entry]:
    """All tracked connections of a namespace; raises NetlinkError, NamespaceError.

    One by one, for a pod chooses how many there are. Some may be deleted meanwhile.
    """
    return map(_parse, _dump(netns_path))


def _dump(netns_path: Path) -> Iterator[bytes]:
    with run_in(netns_path, lambda: connect(_NETLINK_NETFILTER)) as netlink:
        yield from exchange(netlink, _GET, DUMP, _GENERIC.pack(socket.AF_UNSPEC, 0, 0))


def delete(netns_path: Path, unwanted: Iterable[Entry]) -> None:
    """Forget connections; one that is gone already is fine. Raises NetlinkError, NamespaceError.

    This alone cuts nothing: a ruleset must deny them, or their next packets make them anew. What a
    flowtable passes by all rules the kernel does not forget (EBUSY): that is logged.
    """
    requests = [(_DELETE, entry, _tuple(_TUPLE_ORIG, entry)) for entry in unwanted]
    refused = run_in(netns_path, lambda: _ask(0, requests))
    if busy := [error for error in refused if error.code == errno.EBUSY]:
        log.warning("offloaded connections not forgotten", netns=str(netns_path), refused=len(busy))
    if others := [error for error in refused if error.code != errno.EBUSY]:
        raise others[0]


_Request = tuple[int, Entry, bytes]


def _new(entry: Entry) -> _Request:
    seconds = _IDLE_SECONDS.get(entry.protocol, _IDLE_SECONDS_OTHER)
    body = _tuple(_TUPLE_ORIG, entry) + _tuple(_TUPLE_REPLY, entry.reversed())
    body += _attribute(_STATUS, struct.pack("!I", _SEEN_REPLY | _ASSURED | _CONFIRMED))
    body += _attribute(_TIMEOUT, struct.pack("!I", seconds))
    if entry.protocol == TCP:
        # Nobody saw the window scale that the ends agreed on, so windows are not held to it.
        liberal = bytes((_TCP_LIBERAL, _TCP_LIBERAL))
        state = _attribute(_TCP_STATE, bytes((_TCP_ESTABLISHED,)))
        state += _attribute(_TCP_FLAGS, liberal) + _attribute(_TCP_FLAGS_REPLY, liberal)
        body += _nested(_PROTOINFO, _nested(_PROTOINFO_TCP, state))
    return _NEW, entry, body


def _tuple(kind: int, entry: Entry) -> bytes:
    source, destination = _wire(entry.source), _wire(entry.destination)
    source_kind, destination_kind = _ADDRESSES[len(source)]
    ip = _attribute(source_kind, source) + _attribute(destination_kind, destination)
    proto = _attribute(_PROTO_NUMBER, bytes((entry.protocol,)))
    if entry.protocol in _PROTO_ICMP:
        identifier, type_, code = _PROTO_ICMP[entry.protocol]
        proto += _attribute(identifier, struct.pack("!H", entry.source_port))
        proto += _attribute(type_, bytes((entry.destination_port >> 8,)))
        proto += _attribute(code, bytes((entry.destination_port & 0xFF,)))
    else:
        proto += _attribute(_PROTO_SOURCE, struct.pack("!H", entry.source_port))
        proto += _attribute(_PROTO_DESTINATION, struct.pack("!H", entry.destination_port))
    return _nested(kind, _nested(_TUPLE_IP, ip) + _nested(_TUPLE_PROTO, proto))


def _parse(payload: bytes) -> Entry:
    found = attributes(payload[_GENERIC.size :])
    (status,) = struct.unpack("!I", found[_STATUS])
    protocol, source, destination, source_port, destination_port = _read(found[_TUPLE_ORIG])
    translated = bool(status & _DST_NAT)
    answers = _read(found[_TUPLE_REPLY]) if translated else None
    return Entry(
        protocol,
        source,
        destination,
        source_port,
        destination_port,
        translated,
        guessed=protocol == TCP and _is_liberal(found),
        reached=(answers[1], answers[3]) if answers else None,
    )


def _both_ends(payload: bytes) -> tuple[Entry, Entry]:
    """A connection as who opened it sees it, before NAT, and as who it leads to does."""
    found = attributes(payload[_GENERIC.size :])
    return Entry(*_read(found[_TUPLE_ORIG])), Entry(*_read(found[_TUPLE_REPLY])).reversed()


def _read(held: bytes) -> tuple[int, Address, Address, int, int]:
    """One direction: protocol, source, destination, and their ports."""
    parts = attributes(held)
    ip, proto = attributes(parts[_TUPLE_IP]), attributes(parts[_TUPLE_PROTO])
    source, destination = _ADDRESSES[4] if _ADDRESSES[4][0] in ip else _ADDRESSES[16]
    protocol = proto[_PROTO_NUMBER][0]
    ports = [_PROTO_SOURCE, _PROTO_DESTINATION]
    if protocol in _PROTO_ICMP:
        identifier, type_, code = _PROTO_ICMP[protocol]
        kind = proto[type_][:1] + proto[code][:1]
        numbers = proto[identifier] + kind
    else:
        numbers = b"".join(proto.get(port, b"\0\0") for port in ports)
    source_port, destination_port = struct.unpack("!HH", numbers)
    ends = _address(ip[source]), _address(ip[destination])
    return protocol, *ends, source_port, destination_port


def _is_liberal(found: dict[int, bytes]) -> bool:
    """Whether windows are not held to a scale: the kernel never saw the ends agree on one.

    It tells no state of a connection that it passes by a flowtable, and has seen that one open.
    """
    state = attributes(attributes(found.get(_PROTOINFO, b"")).get(_PROTOINFO_TCP, b""))
    return bool(state.get(_TCP_FLAGS, b"\0")[0] & _TCP_LIBERAL)


def _ask(flags: int, requests: Iterable[_Request]) -> list[NetlinkError]:
    """Send changes one by one in the thread's namespace; returns why some were refused.

    What is to be deleted may be gone, and what is to be made may be tracked by another tuple:
    the one that it had before DNAT.
    """
    refused = []
    with connect(_NETLINK_NETFILTER) as netlink:
        for kind, entry, body in requests:
            family = socket.AF_INET if is_v4(entry.source) else socket.AF_INET6
            try:
                request = _GENERIC.pack(family, 0, 0) + body
                for _ in exchange(netlink, kind, flags | ACK, request):
                    pass
            except NetlinkError as error:
                if error.code not in (errno.ENOENT, errno.EEXIST):
                    refused.append(error)
    return refused


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)


def _wire(address: Address) -> bytes:
    return address[12:] if is_v4(address) else address


def _address(wire: bytes) -> Address:
    return Address(V4_MAPPED + wire if len(wire) == 4 else wire)  # noqa: PLR2004
