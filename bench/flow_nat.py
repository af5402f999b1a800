"""Connections to a Service's address whose translated records carry the address dialled as well.

    .venv/bin/python -m bench.flow_nat

A node turns what its pod dials to one of two backends, as kube-proxy's nftables mode does, and
masquerades what comes back to its own sender. Counted are the records of what leaves by the
backends' interfaces, which is past postrouting; they are drained every second, as in detailed mode.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from bench.figures import Figure
from ringfence.flows.record import Hook, Nat
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.model.protocol import TCP, UDP
from tests.kernel.frames import packed
from tests.kernel.netns import Pod, node_with_pods
from tests.kernel.observe import Flows, attach, pick

COUNT = 10_000
PAUSE = 1.0
KINDS = (
    ("TCP connections", TCP, socket.SOCK_STREAM),
    ("UDP exchanges", UDP, socket.SOCK_DGRAM),
)
LEAST_PERCENT = 99.9
SERVICE, PORT, TARGET_PORT = "10.96.0.10", 80, 8080
RULES = """
table ip bench-nat {{
    chain backend-0 {{ meta l4proto {{ tcp, udp }} dnat to {0}:{port}; }}
    chain backend-1 {{ meta l4proto {{ tcp, udp }} dnat to {1}:{port}; }}
    chain services {{
        type nat hook prerouting priority dstnat;
        ip daddr {service} meta l4proto {{ tcp, udp }} th dport {dialled} \
            numgen random mod 2 vmap {{ 0 : goto backend-0, 1 : goto backend-1 }}
    }}
    chain masquerading {{
        type nat hook postrouting priority srcnat;
        ct status dnat ip saddr {{ {0}, {1} }} masquerade
    }}
}}
"""
SERVE = """
import socket, sys, threading
here = (sys.argv[1], int(sys.argv[2]))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(here)
def echo():
    while True:
        datagrams.sendto(*datagrams.recvfrom(2048))
threading.Thread(target=echo, daemon=True).start()
with socket.create_server(here, backlog=128) as listening:
    print(flush=True)
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(connection.recv(2048))
"""
DIAL = """
import socket, sys
there, kind, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
for port in range(20_000, 20_000 + count):
    with socket.socket(socket.AF_INET, kind) as dialled:
        dialled.settimeout(10)
        dialled.bind(("", port))
        dialled.connect(there)
        dialled.sendall(b"hello")
        assert dialled.recv(2048) == b"hello"
"""


def figures() -> Iterator[Figure]:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        with node_with_pods(3) as node:
            attach(capture, node)
            client, *servers = node.pods
            addresses = [server.address for server in servers]
            node.nft(RULES.format(*addresses, service=SERVICE, dialled=PORT, port=TARGET_PORT))
            with serving(servers):
                for name, protocol, kind in KINDS:
                    flows = exchange(capture, client, kind)
                    yield both_tuples(name, translated(flows, servers, protocol))
    finally:
        capture.close()


@contextlib.contextmanager
def serving(servers: list[Pod]) -> Iterator[None]:
    """A process in each that answers what it is sent."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            inside = ["ip", "netns", "exec", server.name, sys.executable, "-c", SERVE]
            process = stack.enter_context(
                subprocess.Popen(
                    [*inside, server.address, str(TARGET_PORT)], stdout=subprocess.PIPE
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
        yield


def exchange(capture: FlowCapture, client: Pod, kind: socket.SocketKind) -> Flows:
    """All records while the client makes COUNT connections to the Service, each answered."""
    inside = ["ip", "netns", "exec", client.name, sys.executable, "-c", DIAL]
    flows = []
    with subprocess.Popen([*inside, SERVICE, str(PORT), str(int(kind)), str(COUNT)]) as dialling:
        while dialling.poll() is None:
            time.sleep(PAUSE)
            flows.append(capture.drain())
    assert not dialling.returncode, "not all connections were answered"
    return np.concatenate([*flows, capture.drain()])


def translated(flows: Flows, servers: list[Pod], protocol: int) -> Flows:
    """The records of what left the node to one of the servers."""
    fields = {"protocol": protocol, "dport": TARGET_PORT}
    return np.concatenate([pick(flows, server, Hook.EGRESS, **fields) for server in servers])


def both_tuples(name: str, records: Flows) -> Figure:
    """Of COUNT connections those all of whose records carry the tuple dialled."""
    service = np.frombuffer(packed(SERVICE), np.uint8)
    told = (records["nat"] == Nat.TRANSLATED) & (records["original_dport"] == PORT)
    told &= (records["original_dst"] == service).all(axis=1)
    seen, lacking = set(records["sport"].tolist()), set(records["sport"][~told].tolist())
    percent = 100 * len(seen - lacking) / COUNT
    what = f"{name} by DNAT that carry both tuples"
    measured = f"{percent:.2f} % of {COUNT:,} ({np.mean(told):.4%} of {len(told):,} records)"
    return Figure(what, f">= {LEAST_PERCENT} %", measured, percent >= LEAST_PERCENT)


def main() -> None:
    for what, _, measured, _ in figures():
        print(f"{what}: {measured}")


if __name__ == "__main__":
    main()
