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
from functools import partial
from itertools import product

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
            for one in where.call(partial(_serve, addresses)):
                stack.callback(one.close)
                waiting.register(one, selectors.EVENT_READ)
        yield waiting


def _serve(addresses: Sequence[str]) -> list[socket.socket]:
    kinds = [(socket.SOCK_STREAM, port) for port in TCP_PORTS]
    kinds += [(socket.SOCK_DGRAM, port) for port in UDP_PORTS]
    opened = []
    for address, (kind, port) in product(addresses, kinds):
        one = socket.socket(family(address), kind)
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        if kind is socket.SOCK_STREAM:
            one.listen(1024)
        opened.append(one)
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
            sockets = where.call(partial(_open_all, [dials[at] for at in places]))
            for at, held in zip(places, sockets, strict=True):
                if held is not None:
                    opened.append(held)
                    # A connected TCP socket can be written to, a datagram be read.
                    tcp = dials[at].protocol == TCP
                    event = selectors.EVENT_WRITE if tcp else selectors.EVENT_READ
                    waiting.register(held, event, at)
        until = time.monotonic() + PATIENCE
        last = time.monotonic() + GRACE
        while (now := time.monotonic()) < until and (missing or now < last):
            for key, _ in waiting.select(0.02):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if key.data is None:
                    _attend(ready)
                    continue
                waiting.unregister(ready)
                passed[key.data] = not ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                missing.discard(key.data)
                last = time.monotonic() + GRACE
    finally:
        for held in opened:
            with contextlib.suppress(KeyError):
                waiting.unregister(held)
            held.close()
    return passed


def _open_all(dials: Sequence[Dial]) -> list[socket.socket | None]:
    return [*map(_open, dials)]


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
