"""What the flow program adds to a request and its answer between two pods, at the 99th percentile.

    .venv/bin/python -m bench.flow_latency

Rounds with and without the program alternate, so that whatever else the machine does meets both.
Both ends run before ordinary processes (SCHED_FIFO), so that it is not those that are waited for.
"""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from bench.figures import Figure
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from tests.kernel.netns import Node, node_with_pods
from tests.kernel.observe import attach
from tests.kernel.traffic import open_socket

ROUNDS = 20
EXCHANGES = 5_000
PORT = 7
ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listening:
    print(flush=True)
    connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(4096):
        connection.sendall(data)
"""
MOST_MS = 0.3


def figures() -> Iterator[Figure]:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        with node_with_pods(2) as node, before_others(), connected(node) as client:
            p99: dict[bool, list[float]] = {False: [], True: []}
            for number in range(2 * ROUNDS):
                attached = bool(number % 2)
                if attached:
                    attach(capture, node)
                p99[attached].append(percentile(client))
                for pod in node.pods:
                    capture.detach(pod.host_ifindex)
    finally:
        capture.close()
    without, with_it = (statistics.median(p99[attached]) for attached in (False, True))
    added = with_it - without
    measured = f"{added:+.3f} ms ({without:.3f} ms without, {with_it:.3f} ms with)"
    what = "latency added to request and answer, 99th percentile"
    yield Figure(what, f"<= {MOST_MS} ms", measured, added <= MOST_MS)


@contextlib.contextmanager
def before_others() -> Iterator[None]:
    """This thread, and the processes that it starts."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextlib.contextmanager
def connected(node: Node) -> Iterator[socket.socket]:
    """A connection from the first pod to a process in the second that echoes."""
    client, server = node.pods
    serve = ["ip", "netns", "exec", server.name, sys.executable, "-c", ECHO]
    with (
        subprocess.Popen([*serve, server.address, str(PORT)], stdout=subprocess.PIPE) as serving,
        open_socket(client, server.address, socket.SOCK_STREAM) as dialled,
    ):
        assert serving.stdout
        serving.stdout.readline()
        dialled.connect((server.address, PORT))
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield dialled


def percentile(client: socket.socket) -> float:
    """The 99th percentile of some exchanges, in milliseconds."""
    took = np.empty(EXCHANGES)
    for at in range(EXCHANGES):
        began = time.perf_counter()
        client.sendall(b"ping")
        client.recv(4096)
        took[at] = time.perf_counter() - began
    return float(np.percentile(took, 99)) * 1000


def main() -> None:
    for what, _, measured, _ in figures():
        print(f"{what}: {measured}")


if __name__ == "__main__":
    main()
