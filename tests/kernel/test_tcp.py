"""What TCP shows of itself: counted from crafted segments, and held against what sockets say."""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ringfence.flows.record import Hook
from ringfence.kernel.bpf import run_on_frame
from ringfence.kernel.capture import FlowCapture
from tests.kernel.frames import ethernet, ipv4, tcp
from tests.kernel.netns import Namespace, Node, Pod, ip, namespace, node_with_pods
from tests.kernel.observe import TCP, attach, only, pick
from tests.kernel.traffic import on_one_processor, open_socket
from tests.kernel.tun import open_tun

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
TOP = 1 << 32

# (flags, sequence number, bytes, gso_size) of the segments of one direction, and how many of
# them were sent before.
SEGMENTS: dict[str, tuple[list[tuple[int, int, int, int]], int]] = {
    "in order": ([(ACK, 0, 100, 0), (ACK, 100, 100, 0), (ACK, 200, 0, 0)], 0),
    "one again": ([(ACK, 0, 100, 0), (ACK, 100, 100, 0), (ACK, 100, 100, 0)], 1),
    "an older one": ([(ACK, 500, 100, 0), (ACK, 600, 100, 0), (ACK, 300, 50, 0)], 1),
    "filling a hole": ([(ACK, 0, 100, 0), (ACK, 200, 100, 0), (ACK, 100, 100, 0)], 1),
    "with new bytes at its end": ([(ACK, 0, 100, 0), (ACK, 50, 100, 0)], 0),
    "across zero": ([(ACK, TOP - 50, 100, 0), (ACK, 50, 100, 0), (ACK, TOP - 50, 100, 0)], 1),
    "up to zero": ([(ACK, TOP - 100, 100, 0), (ACK, 0, 100, 0)], 0),
    "acknowledgements": ([(ACK, 100, 10, 0), (ACK, 110, 0, 0), (ACK, 110, 0, 0)], 0),
    "keep-alive": ([(ACK, 0, 100, 0), (ACK, 99, 0, 0), (ACK, 99, 1, 0)], 0),
    "zero window probes": ([(ACK, 0, 9, 0), (ACK, 9, 1, 0), (ACK, 9, 1, 0), (ACK, 9, 99, 0)], 0),
    "SYN": ([(SYN, 7, 0, 0), (SYN, 7, 0, 0), (ACK, 8, 10, 0)], 1),
    "FIN": ([(ACK, 0, 10, 0), (ACK | FIN, 10, 0, 0), (ACK | FIN, 10, 0, 0)], 1),
    "a port used again": ([(SYN, 900, 0, 0), (ACK, 901, 9, 0), (SYN, 5, 0, 0), (ACK, 6, 9, 0)], 0),
    "RST": ([(ACK, 0, 100, 0), (RST, 50, 0, 0), (RST | ACK, 0, 0, 0)], 0),
    "GSO again": ([(ACK, 0, 2500, 1000), (ACK, 0, 2500, 1000)], 3),
    "GSO half old": ([(ACK, 0, 2500, 1000), (ACK, 500, 3000, 1000)], 2),
}


@pytest.fixture(scope="module")
def empty() -> Iterator[Namespace]:
    with namespace("tcp") as made:
        yield made


@pytest.mark.parametrize("name", SEGMENTS)
def test_what_was_sent_before_is_retransmitted(
    name: str, capture: FlowCapture, empty: Namespace
) -> None:
    segments, retransmitted = SEGMENTS[name]
    program = capture.program_fd("ethernet_egress")
    for flags, seq, length, gso_size in segments:
        frame = ethernet(0x0800, ipv4(6, tcp(1, 2, flags, bytes(length), seq=seq)))
        context = bytearray(192)  # struct __sk_buff: gso_size at 176
        struct.pack_into("=I", context, 176, gso_size)
        empty.call(lambda: run_on_frame(program, frame, bytes(context)))  # noqa: B023
    (flow,) = capture.drain()
    assert flow["retransmitted"] == retransmitted
    assert flow["syn_packets"] == sum(bool(flags & SYN) for flags, *_ in segments)


@pytest.mark.parametrize(
    ("identifications", "retransmitted"),
    [((10, 12, 11), 0), ((10, 12, 13), 1), ((65_535, 1, 0), 0), ((65_534, 65_535, 0), 1)],
)
def test_what_was_overtaken_is_not_retransmitted(
    identifications: tuple[int, ...], retransmitted: int, capture: FlowCapture, empty: Namespace
) -> None:
    """The third segment was sent second, or fills a hole: its number tells (RFC 791)."""
    program = capture.program_fd("ethernet_egress")
    for seq, identification in zip((0, 200, 100), identifications, strict=True):
        segment = tcp(1, 2, ACK, bytes(100), seq=seq)
        frame = ethernet(0x0800, ipv4(6, segment, identification=identification))
        empty.call(lambda: run_on_frame(program, frame))  # noqa: B023
    (flow,) = capture.drain()
    assert flow["retransmitted"] == retransmitted


class TcpInfo(NamedTuple):
    """Of struct tcp_info (include/uapi/linux/tcp.h)."""

    rtt_us: int
    total_retrans: int
    min_rtt_us: int


def tcp_info(of: socket.socket) -> TcpInfo:
    told = of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
    return TcpInfo(*(struct.unpack_from("=I", told, at)[0] for at in (68, 100, 148)))


@contextlib.contextmanager
def listener(where: Namespace, address: str) -> Iterator[socket.socket]:
    with open_socket(where, address, socket.SOCK_STREAM) as listening:
        listening.settimeout(20)
        listening.bind((address, 80))
        listening.listen()
        yield listening


def send_through(sender: socket.socket, receiver: socket.socket, count: int) -> None:
    thread = threading.Thread(target=lambda: sender.sendall(bytes(count)))
    thread.start()
    left = count
    while left:
        left -= len(receiver.recv(1 << 16))
    thread.join()


def lose(node: Node, what: str) -> None:
    """Between its interfaces, so that the one on which a packet came in has seen it."""
    node.nft(f"""
        table inet lossy {{
            chain forward {{
                type filter hook forward priority 0
                {what} drop
            }}
        }}
    """)


@pytest.mark.parametrize("offload", ["on", "off"])
def test_retransmissions_are_those_that_the_sockets_count(
    offload: str, capture: FlowCapture
) -> None:
    """Every 20th skb with data is lost behind the interfaces that see both ends send."""
    with node_with_pods(2) as node, on_one_processor():
        client, server = node.pods
        for pod in node.pods:
            pod.run("ethtool", "-K", "eth0", "tso", offload, "gso", offload)
        lose(node, "meta length > 500 numgen inc mod 20 == 0")
        attach(capture, node)
        with (
            listener(server, server.address) as listening,
            open_socket(client, server.address, socket.SOCK_STREAM) as dialled,
        ):
            dialled.settimeout(20)
            dialled.connect((server.address, 80))
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(20)
                send_through(dialled, accepted, 3_000_000)
                send_through(accepted, dialled, 3_000_000)
                time.sleep(0.1)  # the last acknowledgement
                flows = capture.drain()
                said = tcp_info(dialled).total_retrans, tcp_info(accepted).total_retrans
    seen = (
        only(flows, client, Hook.INGRESS, protocol=TCP)["retransmitted"],
        only(flows, server, Hook.INGRESS, protocol=TCP)["retransmitted"],
    )
    assert min(said) > 0
    assert seen == said


def test_a_syn_that_is_lost_is_a_retransmission_and_measures_nothing(capture: FlowCapture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        lose(node, "tcp flags & (syn | ack) == syn numgen inc mod 2 == 0")
        attach(capture, node)
        with (
            listener(server, server.address),
            open_socket(client, server.address, socket.SOCK_STREAM) as dialled,
        ):
            dialled.settimeout(20)
            dialled.connect((server.address, 80))
            said = tcp_info(dialled).total_retrans
        flows = capture.drain()
    there = only(flows, client, Hook.INGRESS, protocol=TCP)
    assert (there["syn"], there["syn_packets"], there["retransmitted"]) == (1, said + 1, said)
    assert said >= 1
    assert only(flows, client, Hook.EGRESS, protocol=TCP)["rtt_samples"] == 0
    beyond = only(flows, server, Hook.INGRESS, protocol=TCP)
    assert (beyond["synack"], beyond["rtt_samples"]) == (1, 1), "one SYN got there"


DELAY = 0.02
FAR = "10.98.0.2"


@contextlib.contextmanager
def far_away(node: Node) -> Iterator[Namespace]:
    """A namespace at FAR behind `node` and a link that holds each packet for DELAY."""
    with namespace("far") as far, contextlib.ExitStack() as stack:
        ends = []
        for where, address in ((node, "10.98.0.1"), (far, FAR)):
            device = stack.enter_context(where.call(lambda: open_tun("slow0")))
            ip("-n", where.name, "-batch", "-", stdin=(
                "link set slow0 addrgenmode none\n"
                f"addr add {address}/24 dev slow0\n"
                "link set slow0 up\n"
            ))  # fmt: skip
            ends.append(device.fileno())
        ip("-n", far.name, "route", "add", "default", "via", "10.98.0.1")
        stop = threading.Event()

        def carry(source: int, target: int) -> None:
            os.set_blocking(source, False)
            while not stop.is_set():
                try:
                    packet = os.read(source, 1 << 16)
                except BlockingIOError:
                    stop.wait(0.0005)
                    continue
                time.sleep(DELAY)
                os.write(target, packet)

        threads = [threading.Thread(target=carry, args=pair) for pair in (ends, ends[::-1])]
        for thread in threads:
            thread.start()
        try:
            yield far
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_handshake_takes_as_long_as_the_client_measured(capture: FlowCapture) -> None:
    with node_with_pods(1) as node, far_away(node) as far:
        (client,) = node.pods
        attach(capture, node)
        said = []
        with listener(far, FAR):
            for _ in range(3):
                with open_socket(client, FAR, socket.SOCK_STREAM) as dialled:
                    dialled.connect((FAR, 80))
                    said.append(tcp_info(dialled))
        flows = capture.drain()
    back = pick(flows, client, Hook.EGRESS, protocol=TCP)
    back.sort(order="first_ns")
    assert back["rtt_samples"].tolist() == [1, 1, 1]
    assert (back["rtt_min_ns"] == back["rtt_sum_ns"]).all()
    for measured, info in zip(back["rtt_sum_ns"].tolist(), said, strict=True):
        assert info.rtt_us == info.min_rtt_us
        # Between the client and the interface there is a veth pair.
        assert 2 * DELAY * 1e9 <= measured <= info.rtt_us * 1000
        assert measured >= 0.9 * info.rtt_us * 1000


def test_a_tuple_that_opens_again_measures_each_handshake(capture: FlowCapture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(capture, node)
        with listener(server, server.address) as listening:
            for _ in range(3):
                exchange_from(client, listening, 40_000)
        flows = capture.drain()
    there = only(flows, client, Hook.INGRESS, protocol=TCP, sport=40_000)
    back = only(flows, client, Hook.EGRESS, protocol=TCP, dport=40_000)
    assert (there["syn"], there["rst"], there["retransmitted"]) == (3, 3, 0)
    assert back["rtt_samples"] == 3
    assert 0 < 3 * back["rtt_min_ns"] <= back["rtt_sum_ns"]


def exchange_from(client: Pod, listening: socket.socket, port: int) -> Any:
    """A connection from a port of one's choice, that is reset in the end and so leaves no trace."""
    with open_socket(client, "0.0.0.0", socket.SOCK_STREAM) as dialled:
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dialled.bind((client.address, port))
        dialled.connect(listening.getsockname())
        accepted, _ = listening.accept()
        dialled.sendall(bytes(100))
        accepted.recv(100)
    accepted.close()
