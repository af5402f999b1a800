"""Sockets of a namespace, real ones."""

import contextlib
import socket

import pytest
from structlog.testing import capture_logs

from ringfence.kernel.sockets import (
    Connection,
    Listener,
    connections,
    destroy,
    listening,
    sockets,
)
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP, UDP
from tests.kernel.netns import Namespace, namespace
from tests.kernel.traffic import open_socket

ANY4, ANY6, LOOP4, LOOP6 = map(parse_address, ("0.0.0.0", "::", "127.0.0.1", "::1"))


def bound(where: Namespace, address: str, kind: socket.SocketKind, port: int) -> socket.socket:
    opened = open_socket(where, address, kind)
    opened.bind((address, port))
    if kind == socket.SOCK_STREAM:
        opened.listen()
    return opened


def test_listeners_of_both_protocols_and_families() -> None:
    with namespace("listen") as where, contextlib.ExitStack() as stack:
        for address, kind, port in (
            ("127.0.0.1", socket.SOCK_STREAM, 80),
            ("0.0.0.0", socket.SOCK_STREAM, 81),
            ("::", socket.SOCK_STREAM, 82),
            ("::1", socket.SOCK_DGRAM, 53),
            ("0.0.0.0", socket.SOCK_DGRAM, 54),
        ):
            stack.enter_context(bound(where, address, kind, port))
        only6 = stack.enter_context(open_socket(where, "::", socket.SOCK_STREAM))
        only6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        only6.bind(("::", 83))
        only6.listen()
        assert listening(where.path) == {
            Listener(TCP, LOOP4, 80),
            Listener(TCP, ANY4, 81),
            Listener(TCP, ANY6, 82),
            Listener(TCP, ANY4, 82),
            Listener(TCP, ANY6, 83),
            Listener(UDP, LOOP6, 53),
            Listener(UDP, ANY4, 54),
        }
        assert connections(where.path) == set()


@pytest.mark.parametrize(("listen_on", "dial"), [("127.0.0.1",) * 2, ("::1",) * 2,
                                                 ("::", "127.0.0.1")])  # fmt: skip
def test_a_connection_is_listed_from_both_ends_and_can_be_cut(listen_on: str, dial: str) -> None:
    address = parse_address(dial)
    with (
        namespace("cut") as where,
        bound(where, listen_on, socket.SOCK_STREAM, 80) as server,
        open_socket(where, dial, socket.SOCK_STREAM) as client,
    ):
        client.connect((dial, 80))
        with server.accept()[0] as accepted:
            port = client.getsockname()[1]
            theirs = Connection(TCP, address, 80, address, port)
            ours = Connection(TCP, address, port, address, 80)
            assert connections(where.path) == {ours, theirs}
            assert destroy(where.path, theirs)
            with pytest.raises(ConnectionAbortedError):
                accepted.recv(1)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert connections(where.path) == set()
            assert not destroy(where.path, theirs)


def test_a_udp_socket_on_a_port_that_the_kernel_picked_is_a_clients() -> None:
    with namespace("udp") as where, contextlib.ExitStack() as stack:
        where.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=5000 5999")
        stack.enter_context(bound(where, "127.0.0.1", socket.SOCK_DGRAM, 40_000))
        client = stack.enter_context(open_socket(where, "127.0.0.1", socket.SOCK_DGRAM))
        client.sendto(b"x", ("127.0.0.1", 40_000))
        assert 5000 <= client.getsockname()[1] <= 5999
        stack.enter_context(bound(where, "127.0.0.1", socket.SOCK_STREAM, 5500))
        found = sockets(where.path)
        served = found[found["serves"]][["protocol", "local_port"]]
        assert set(served.tolist()) == {(UDP, 40_000), (TCP, 5500)}
        assert found["listens"].sum() == len(served) + 1


def test_a_connected_udp_socket_is_a_connection() -> None:
    with namespace("udp") as where, open_socket(where, "::1", socket.SOCK_DGRAM) as sender:
        sender.connect(("::1", 9))
        port = sender.getsockname()[1]
        assert connections(where.path) == {Connection(UDP, LOOP6, port, LOOP6, 9)}
        assert listening(where.path) == set()


def test_that_not_all_connections_were_read_is_told_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ringfence.kernel.sockets._MOST_CONNECTIONS", 2)
    with namespace("many") as where, contextlib.ExitStack() as stack, capture_logs() as told:

        def connect(address: str) -> None:
            sender = stack.enter_context(open_socket(where, address, socket.SOCK_DGRAM))
            sender.connect((address, 9))

        for address in ("127.0.0.1", "127.0.0.1", "::1", "::1"):
            connect(address)
        assert len(connections(where.path)) == 4
        assert not told, "two of each family are all that there are"
        connect("::1")
        assert len(connections(where.path)) == 4
        assert [line["event"] for line in told] == ["sockets not all read"]
