"""Many connections at once, between namespaces: which of them come about.

Whoever serves answers on a few TCP and UDP ports; pings are the kernel's to answer. One thread
waits for all.
"""

import contextlib
import ipaddress
import selectors
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ringfence.model.protocol import TCP, UDP
from tests.kernel.netns import Namespace
from tests.kernel.traffic import family

TCP_PORTS = (8080, 8081, 8082)
UDP_PORTS = (5353,)
PATIENCE = 5.0
"""Seconds for what should come about."""
GRACE = 0.2
"""Seconds, after that, for what should not."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closed at once, by a reset."""


@dataclass(frozen=True)
class Dial:
    """A connection to try; `port` and `source_port` are 0 for a ping."""

    where: Namespace
    protocol: int
    source: str
    source_port: int
    destination: str
    port: int


@contextlib.contextmanager
def serving(ends: Mapping[Namespace, Sequence[str]]) -> Iterator[selectors.BaseSelector]:
    """Sockets that answer at these addresses, for `dial` to attend to."""
    with selectors.EpollSelector() as waiting, contextlib.ExitStack() as stack:
        for where, addresses in ends.items():
            for one in where.call(lambda held=addresses: [*map(_serve, _sockets(held))]):
                stack.callback(one.close)
                waiting.register(one, selectors.EVENT_READ)
        yield waiting


def _sockets(addresses: Sequence[str]) -> Iterator[tuple[str, int, socket.SocketKind]]:
    for address in addresses:
        yield from ((address, port, socket.SOCK_STREAM) for port in TCP_PORTS)
        yield from ((address, port, socket.SOCK_DGRAM) for port in UDP_PORTS)


def _serve(at: tuple[str, int, socket.SocketKind]) -> socket.socket:
    address, port, kind = at
    opened = socket.socket(family(address), kind)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    if kind is socket.SOCK_STREAM:
        opened.listen(1024)
    return opened


def dial(
    waiting: selectors.BaseSelector, dials: Sequence[Dial], expected: Sequence[bool]
) -> list[bool]:
    """Which of them come about. Those that are not expected have as long as the others need."""
    by_end: dict[Namespace, list[int]] = defaultdict(list)
    for at, one in enumerate(dials):
        by_end[one.where].append(at)
    passed = [False] * len(dials)
    missing = {at for at, wanted in enumerate(expected) if wanted}
    opened: list[socket.socket] = []
    try:
        for where, places in by_end.items():
            sockets = where.call(lambda held=places: [_open(dials[at]) for at in held])
            for at, one in zip(places, sockets, strict=True):
                if one is not None:
                    opened.append(one)
                    # A connected TCP socket can be written to, a datagram be read.
                    tcp = dials[at].protocol == TCP
                    event = selectors.EVENT_WRITE if tcp else selectors.EVENT_READ
                    waiting.register(one, event, at)
        until = time.monotonic() + PATIENCE
        last = time.monotonic() + GRACE
        while (now := time.monotonic()) < until and (missing or now < last):
            for key, _ in waiting.select(0.02):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if key.data is None:
                    _attend(one)
                    continue
                waiting.unregister(one)
                passed[key.data] = not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                missing.discard(key.data)
                last = time.monotonic() + GRACE
    finally:
        for one in opened:
            with contextlib.suppress(KeyError):
                waiting.unregister(one)
            one.close()
    return passed


def _open(one: Dial) -> socket.socket | None:
    """The socket that dials, None where the namespace refuses to send."""
    v4 = ipaddress.ip_address(one.source).version == 4
    kind = socket.SOCK_STREAM if one.protocol == TCP else socket.SOCK_DGRAM
    number = 0 if one.protocol in (TCP, UDP) else one.protocol
    opened = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, kind, number)
    opened.setblocking(False)
    if kind is socket.SOCK_STREAM:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    opened.bind((one.source, one.source_port))
    try:
        with contextlib.suppress(BlockingIOError):
            opened.connect((one.destination, one.port))
            if one.protocol == UDP:
                opened.send(b"ringfence")
            elif kind is socket.SOCK_DGRAM:
                opened.send(struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, 0, 1) + b"ringfence")
    except PermissionError:
        opened.close()
        return None
    return opened


def _attend(server: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError, PermissionError):
        if server.type is socket.SOCK_DGRAM:
            said, who = server.recvfrom(64)
            server.sendto(said, who)
        else:
            server.accept()[0].close()
