"""The agent's account of itself against the interfaces' own counters, on real traffic."""

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ringfence.agent.capture import Capture
from ringfence.kernel.interfaces import Interface
from ringfence.wire.generated.agent_pb2 import Audit, InterfaceAudit
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.traffic import open_socket, ping, tcp_echo, tcp_exchange


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    capture = Capture(tmp_path)
    capture.open()
    with closing(capture):
        yield capture


def veths(node: Node) -> list[Interface]:
    return [
        Interface(pod.host_ifindex, pod.host_device, "veth", True, None, None, frozenset())
        for pod in node.pods
    ]


def audit_when(
    node: Node, capture: Capture, reached: Callable[[Audit], object], seconds: float = 10
) -> Audit:
    """The first audit of which it holds: between two packets of IPv6's own there is a quiet one."""
    until = time.monotonic() + seconds
    while not reached(audit := node.call(capture.audit)):
        assert time.monotonic() < until, audit
    return audit


def exact(audit: Audit) -> bool:
    return not (audit.unaccounted or audit.overcounted or audit.uncertain)


def of(audit: Audit, pod: Pod) -> InterfaceAudit:
    (found,) = [each for each in audit.interfaces if each.ifindex == pod.host_ifindex]
    return found


def test_a_quiet_veth_is_accounted_for_to_the_packet(capture: Capture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        start = {pod: node.counter(pod.host_device, "rx_packets") for pod in node.pods}
        node.call(lambda: capture.watch(veths(node)))
        with tcp_echo(server, server.address, 80):
            tcp_exchange(client, server.address, 80, bytes(3_000_000))
        assert ping(client, server.address6)
        audit = audit_when(node, capture, exact)
        seen = {pod: node.counter(pod.host_device, "rx_packets") for pod in node.pods}
    assert audit.judged == 2
    for pod in node.pods:
        told = of(audit, pod)
        assert (told.name, told.judged) == (pod.host_device, True)
        assert 10 < told.ingress.counted <= seen[pod] - start[pod]


def test_packets_that_a_queue_dropped_were_seen_by_the_program(capture: Capture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        assert ping(client, server.address)  # the neighbours know each other
        node.call(lambda: capture.watch(veths(node)))
        node.run("tc", "qdisc", "add", "dev", server.host_device, "root", "handle", "1:",
                 "pfifo", "limit", "0")  # fmt: skip
        with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(b"x", (server.address, 9))
        queue = json.loads(node.run("tc", "-s", "-j", "qdisc", "show", "dev", server.host_device))
        audit = audit_when(node, capture, exact)
    dropped = sum(each["drops"] for each in queue if each["kind"] == "pfifo")
    assert 100 <= dropped <= of(audit, server).egress.counted


def test_under_load_the_count_is_bracketed_and_afterwards_exact(capture: Capture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        stopping = threading.Event()

        def flood() -> None:
            with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
                while not stopping.is_set():
                    sender.sendto(bytes(18), (server.address, 9))

        sender = threading.Thread(target=flood)
        sender.start()
        try:
            node.call(lambda: capture.watch(veths(node)))
            readings = [node.call(capture.audit) for _ in range(100)]
        finally:
            stopping.set()
            sender.join()
        last = audit_when(node, capture, exact)
    assert of(last, client).ingress.counted > of(readings[0], client).ingress.counted + 1000
    assert any(each.uncertain for each in readings)
    for each in readings:
        assert (each.unaccounted, each.overcounted) == (0, 0)


def test_an_interface_that_goes_down_and_comes_up_keeps_its_totals(capture: Capture) -> None:
    """It is detached and attached under the same number, between two readings."""
    with node_with_pods(2) as node:
        client, server = node.pods
        assert ping(client, server.address)  # the neighbours know each other
        node.call(lambda: capture.watch(veths(node)))
        with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
            for _ in range(300):
                sender.sendto(b"x", (server.address, 9))
        before = audit_when(node, capture, exact)
        assert before.skbs >= 600, "which is each packet at either veth"
        others = [each for each in veths(node) if each.ifindex != client.host_ifindex]
        node.call(lambda: capture.watch(others))
        node.call(lambda: capture.watch(veths(node)))
        assert node.call(capture.audit).skbs >= before.skbs
        assert ping(client, server.address)
        after = audit_when(node, capture, exact)
        assert after.skbs > before.skbs
        assert of(after, client).ingress.counted < 300, "since it was attached again"


def link_at(pod: Pod, attach_type: str) -> str:
    """The id of the link that this process holds at one side of a pod's interface (proc(5))."""
    wanted = {"link_type": "tcx", "ifindex": str(pod.host_ifindex), "attach_type": attach_type}
    for descriptor in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):
            lines = descriptor.read_text().splitlines()
            told = {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}
            if wanted.items() <= told.items():
                return told["link_id"]
    raise AssertionError(f"no link with {wanted}")


def test_what_passes_while_the_program_is_detached_behind_our_back_is_seen(
    capture: Capture,
) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        node.call(lambda: capture.watch(veths(node)))
        assert ping(client, server.address)
        audit_when(node, capture, exact)
        before = node.counter(client.host_device, "rx_packets")
        detach = ["bpftool", "link", "detach", "id", link_at(client, "46 (ingress)")]
        subprocess.run(detach, check=True, capture_output=True)
        for _ in range(100):
            with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", (server.address, 9))
        audit = audit_when(node, capture, lambda audit: not audit.uncertain)
        missed = node.counter(client.host_device, "rx_packets") - before
    assert 100 <= audit.unaccounted <= missed
    worst = audit.interfaces[0]
    assert worst.name == client.host_device
    assert worst.ingress.least == worst.ingress.most == audit.unaccounted
    assert (worst.egress.least, worst.egress.most) == (0, 0)
