"""Real traffic between namespaces: TCP exchanges, UDP datagrams, pings, crafted frames."""

import contextlib
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.kernel.netns import Namespace


def family(address: str) -> socket.AddressFamily:
    version = ipaddress.ip_address(address).version
    return socket.AF_INET if version == 4 else socket.AF_INET6


def open_socket(where: Namespace, address: str, kind: socket.SocketKind) -> socket.socket:
    """A socket that lives in the namespace, of the address's family, with a 3 s timeout."""
    opened = where.call(lambda: socket.socket(family(address), kind))
    opened.settimeout(3)
    return opened


@contextlib.contextmanager
def in_order(*ends: Namespace) -> Iterator[None]:
    """TCP between the ends repeats nothing and overtakes nothing: one processor, no probes.

    Each segment then has the same options, whatever else the machine has to do.
    """
    for end in ends:
        end.run("sysctl", "-qw", "net.ipv4.tcp_sack=0", "net.ipv4.tcp_early_retrans=0")
    with on_one_processor():
        yield


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """On two, a veth hands packets on out of order, and even a retransmission may be overtaken."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def tcp_echo(where: Namespace, address: str, port: int) -> Iterator[None]:
    """A TCP server that sends back what it gets, until the block ends."""
    with open_socket(where, address, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        while data := connection.recv(1 << 16):
                            connection.sendall(data)

        with serving(listener, serve):
            yield


@contextlib.contextmanager
def serving(held: socket.socket, serve: Callable[[], None]) -> Iterator[None]:
    """Run `serve` in a thread until the block ends, which makes its calls on `held` fail."""
    held.settimeout(None)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)
        thread.join(3)


def tcp_exchange(where: Namespace, address: str, port: int, payload: bytes) -> int:
    """Send `payload` to an echo server, read it back, close; returns the local port."""
    with open_socket(where, address, socket.SOCK_STREAM) as client:
        client.connect((address, port))
        local: int = client.getsockname()[1]
        client.sendall(payload)
        left = len(payload)
        while left:
            left -= len(client.recv(1 << 16))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    return local


def ping(where: Namespace, address: str) -> bool:
    """One echo request with 8 bytes of payload; whether its reply came within 3 s."""
    version6 = family(address) == socket.AF_INET6
    request, reply = (128, 129) if version6 else (8, 0)
    protocol = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
    opened = where.call(lambda: socket.socket(family(address), socket.SOCK_RAW, protocol))
    with opened:
        opened.settimeout(3)
        message = struct.pack("!BBHHH8s", request, 0, 0, 77, 1, b"ringfenc")
        opened.sendto(message if version6 else with_checksum(message), (address, 0))
        with contextlib.suppress(TimeoutError):
            while True:
                packet, sender = opened.recvfrom(2048)
                body = packet if version6 else packet[20:]
                if sender[0] == address and body[0] == reply:
                    return True
        return False


def with_checksum(message: bytes) -> bytes:
    """A message of ICMP, whose checksum is left out, with it."""
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + message[4:]
