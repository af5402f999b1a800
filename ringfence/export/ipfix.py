"""IPFIX over UDP or TCP (RFC 7011), each conversation one bidirectional flow (RFC 5103).

Elements are IANA's alone, so any collector knows them. There are none for the names of
Kubernetes: this exporter tells addresses.
"""

import asyncio
import itertools
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from ringfence.export.errors import ExportError, reason
from ringfence.export.interface import Exporter
from ringfence.export.record import dictionary
from ringfence.export.url import ExportUrl
from ringfence.model.address import V4_MAPPED
from ringfence.model.errors import InputError
from ringfence.model.protocol import ICMP, ICMPV6
from ringfence.wire.batch import addresses

_PORT = 4739
_VERSION, _TEMPLATE_SET = 10, 2
_HEADER = struct.Struct("!HHIII")  # version, length, export time, sequence number, domain
_PAIR = struct.Struct("!HH")  # a set's id and length, a template's id and count, a field
_REVERSE = 29305  # RFC 5103 section 6.1: the enterprise of elements that tell of the other way
_LARGEST_MESSAGE = 65_535
_INITIATOR = 1  # biflowDirection: the source is the end that opened

_FLAG_COUNTS = (("syn", 218), ("fin", 219), ("rst", 220))  # tcpSynTotalCount, …

_TEMPLATES_SECONDS = 60
"""How often templates are sent again over UDP (RFC 7011 section 8.4)."""

_TIMEOUT_SECONDS = 30.0
_BURST_BYTES, _PAUSE_SECONDS = 100_000, 0.01
"""Over UDP nobody says when it is too much: a burst fits a socket's usual receive buffer."""

_IP_MTU, _IPV6_MTU = 14, 24  # <linux/in.h>, <linux/in6.h>: of a connected socket's path
_IPV4_UDP, _IPV6_UDP = 28, 48  # octets of both headers


@dataclass(frozen=True)
class Template:
    """One kind of record: its address family, and ICMP's type and code in place of ports."""

    number: int
    v4: bool
    icmp: bool

    @cached_property
    def fields(self) -> tuple[tuple[str, int, int, DTypeLike], ...]:
        """Name (a column of CONVERSATIONS where there is one), element, enterprise, form."""
        address: DTypeLike = ("u1", 4 if self.v4 else 16)
        source, target, code = (8, 12, 32) if self.v4 else (27, 28, 139)
        told = (
            ((code, "provider_port"),)
            if self.icmp
            else ((7, "consumer_port"), (11, "provider_port"))
        )
        return (
            ("consumer", source, 0, address),  # sourceIPv4Address, sourceIPv6Address
            ("provider", target, 0, address),  # destinationIPv4Address, destinationIPv6Address
            *((name, element, 0, ">u2") for element, name in told),
            ("protocol", 4, 0, "u1"),  # protocolIdentifier
            ("biflow_direction", 239, 0, "u1"),
            ("first_ms", 152, 0, ">u8"),  # flowStartMilliseconds
            ("last_ms", 153, 0, ">u8"),  # flowEndMilliseconds
            # The reverse way first: nfdump keeps one set of flags, the last that it reads.
            ("reverse_bytes", 1, _REVERSE, ">u8"),  # octetDeltaCount
            ("reverse_packets", 2, _REVERSE, ">u8"),  # packetDeltaCount
            ("reverse_flags", 6, _REVERSE, ">u2"),  # tcpControlBits
            ("forward_bytes", 1, 0, ">u8"),
            ("forward_packets", 2, 0, ">u8"),
            ("forward_flags", 6, 0, ">u2"),
            ("opened", 278, 0, ">u4"),  # connectionCountNew
            *(
                (f"{way}_{flag}", element, enterprise, ">u4")
                for flag, element in (() if self.icmp else _FLAG_COUNTS)
                for way, enterprise in (("forward", 0), ("reverse", _REVERSE))
            ),
        )

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """A record as it is on the wire."""
        return np.dtype([(name, form) for name, _, _, form in self.fields])

    @cached_property
    def definition(self) -> bytes:
        """The template record (RFC 7011 section 3.4.1)."""
        specifiers = b""
        for name, element, enterprise, _ in self.fields:
            size = self.dtype[name].itemsize
            specifiers += _PAIR.pack(element | (0x8000 if enterprise else 0), size)
            specifiers += struct.pack("!I", enterprise) if enterprise else b""
        return _PAIR.pack(self.number, len(self.fields)) + specifiers


Records = tuple[int, Template, NDArray[np.void]]
"""An observation domain, a kind of record, and records of it."""

TEMPLATES = tuple(
    Template(256 + number, v4, icmp)
    for number, (v4, icmp) in enumerate(itertools.product((True, False), (False, True)))
)


@dataclass
class _Domain:
    """What a transport session keeps for each observation domain."""

    sequence: int = 0
    templates_due: float = 0.0


class Ipfix(Exporter):
    """`ipfix+udp://HOST:4739` or `ipfix+tcp://HOST:4739`."""

    def __init__(self, url: ExportUrl, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives epoch seconds."""
        if url.path not in ("", "/"):
            raise InputError(f"export {url}: nothing may follow the port")
        self._address = url.host(_PORT)
        self._udp = url.scheme == "ipfix+udp"
        self._clock = clock
        self._socket: socket.socket | None = None
        self._largest = 0
        self._domains: defaultdict[int, _Domain] = defaultdict(_Domain)

    async def send(self, conversations: pa.RecordBatch) -> None:
        """Send one message after another; UDP's may be lost on the way without a word."""
        records = await asyncio.to_thread(lambda: list(split(conversations)))
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._send(records)
        except OSError as error:  # TimeoutError is one
            host, port = self._address
            told = reason(error) or "it does not read"
            raise ExportError(f"{host} port {port}: {told}") from error

    async def close(self) -> None:
        """End the transport session: the next one starts with templates, and counts from 0."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _send(self, records: list[Records]) -> None:
        connected = self._socket or await self._connect()
        self._socket = connected
        if not self._udp and _hung_up(connected):
            raise ConnectionResetError("the collector closed the connection")
        loop, burst = asyncio.get_running_loop(), 0
        for message in self._messages(records):
            await loop.sock_sendall(connected, message)
            burst += len(message)
            if self._udp and burst >= _BURST_BYTES:
                await asyncio.sleep(_PAUSE_SECONDS)
                burst = 0

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_DGRAM if self._udp else socket.SOCK_STREAM
        family, kind, protocol, _, address = (await loop.getaddrinfo(*self._address, type=kind))[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            if not self._udp:
                # Or what is sent to a peer that vanished would wait for a quarter of an hour.
                patience_ms = int(_TIMEOUT_SECONDS * 1000)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)
            await loop.sock_connect(made, address)
            self._largest = _largest_datagram(made) if self._udp else _LARGEST_MESSAGE
        except BaseException:
            made.close()
            raise
        self._domains.clear()
        return made

    def _messages(self, records: list[Records]) -> Iterator[bytes]:
        """Templates if they are due, then the records, as many a message as fit."""
        now = self._clock()
        for domain, template, rows in records:
            state = self._domains[domain]
            if now >= state.templates_due:
                state.templates_due = now + _TEMPLATES_SECONDS if self._udp else float("inf")
                definitions = b"".join(template.definition for template in TEMPLATES)
                yield self._message(domain, _TEMPLATE_SET, definitions, 0)
            room = (self._largest - _HEADER.size - _PAIR.size) // template.dtype.itemsize
            for start in range(0, len(rows), room):
                some = rows[start : start + room]
                yield self._message(domain, template.number, some.tobytes(), len(some))

    def _message(self, domain: int, set_id: int, content: bytes, records: int) -> bytes:
        """One set in one message. Its sequence number counts the domain's data records before."""
        length, state = _HEADER.size + _PAIR.size + len(content), self._domains[domain]
        header = _HEADER.pack(_VERSION, length, int(self._clock()), state.sequence, domain)
        state.sequence = (state.sequence + records) % 2**32
        return header + _PAIR.pack(set_id, _PAIR.size + len(content)) + content


def split(conversations: pa.RecordBatch) -> Iterator[Records]:
    """CONVERSATIONS as records on the wire.

    A Kubernetes cluster is an observation domain: two may use the same addresses.
    """
    ends = {end: addresses(conversations[end]) for end in ("consumer", "provider")}
    prefix = np.frombuffer(V4_MAPPED, dtype=np.uint8)
    v4 = np.all([(end[:, :12] == prefix).all(axis=1) for end in ends.values()], axis=0)
    columns = _columns(conversations)
    icmp = np.isin(columns["protocol"], (ICMP, ICMPV6))
    domains = np.unique(columns["domain"]).tolist()
    for domain, template in itertools.product(domains, TEMPLATES):
        chosen = (columns["domain"] == domain) & (v4 == template.v4) & (icmp == template.icmp)
        rows = np.nonzero(chosen)[0]
        records = np.zeros(len(rows), dtype=template.dtype)
        for name in template.dtype.names or ():
            octets = ends.get(name)
            if octets is None:
                records[name] = columns[name][rows]
            else:
                records[name] = octets[rows, 12 if template.v4 else 0 :]
        if len(rows):
            yield domain, template, records


def _columns(conversations: pa.RecordBatch) -> dict[str, NDArray[np.generic]]:
    """The numbers of CONVERSATIONS as the elements want them, and each row's domain."""
    numbers = {
        name: np.asarray(conversations[name])
        for name in conversations.schema.names
        if pa.types.is_integer(conversations.schema.field(name).type)
    }
    clusters = dictionary(conversations["kubernetes_cluster"])
    domains = [crc32(name.encode()) for name in clusters.dictionary.to_pylist()]
    return {
        **numbers,
        "first_ms": numbers["first_ns"] // 10**6,
        "last_ms": numbers["last_ns"] // 10**6,
        "opened": np.minimum(numbers["opened"], 2**32 - 1),
        "biflow_direction": np.full(len(conversations), _INITIATOR),
        "domain": np.array(domains, dtype=np.uint32)[np.asarray(clusters.indices)],
    }


def _largest_datagram(connected: socket.socket) -> int:
    """What a UDP datagram may carry without being fragmented (RFC 7011 section 10.3.3)."""
    if connected.family == socket.AF_INET6:
        mtu = connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU) - _IPV6_UDP
    else:
        mtu = connected.getsockopt(socket.IPPROTO_IP, _IP_MTU) - _IPV4_UDP
    return min(mtu, _LARGEST_MESSAGE - _IPV6_UDP)


def _hung_up(connected: socket.socket) -> bool:
    """Whether a peer that has nothing to say has closed the connection."""
    try:
        return connected.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
