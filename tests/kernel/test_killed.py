"""An agent that is killed a hundred times while it programs pods, under traffic."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.traffic import open_socket, serving, tcp_echo

KILLS = 100
UDP = socket.SOCK_DGRAM


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


@dataclass
class Traffic:
    """What came of it: asked and answered each time, lost, and passed though it is denied."""

    stopping: threading.Event = field(default_factory=threading.Event)
    answered: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def ask(self, client: Pod, server: Pod) -> None:
        """A datagram at a time to port 80, from one port; each is answered."""
        with open_socket(client, server.address, UDP) as dialling:
            dialling.settimeout(10)  # of a busy machine; what rules drop never comes
            dialling.connect((server.address, 80))
            while not self.stopping.is_set():
                try:
                    dialling.send(b"?")
                    dialling.recv(10)
                    self.answered["datagrams"] += 1
                except TimeoutError:
                    self.lost.append("datagram")

    def dial(self, name: str, client: Pod, server: Pod) -> None:
        """A connection after the other to port 81.

        Not a datagram from a port of its own: those that come in the instant in which rules are
        replaced may be lost, killed or not (docs/enforcement.md).
        """
        while not self.stopping.is_set():
            with open_socket(client, server.address, socket.SOCK_STREAM) as dialling:
                dialling.settimeout(10)
                try:
                    dialling.connect((server.address, 81))
                    dialling.sendall(b"?")
                    assert dialling.recv(1) == b"?"
                    self.answered[name] += 1
                except (OSError, AssertionError):
                    self.lost.append(name)

    def talk(self, client: Pod, server: Pod) -> None:
        """One connection that is as old as the rules."""
        with open_socket(client, server.address, socket.SOCK_STREAM) as dialling:
            dialling.settimeout(10)
            dialling.connect((server.address, 80))
            while not self.stopping.is_set():
                try:
                    dialling.sendall(b"?")
                    assert dialling.recv(1) == b"?"
                    self.answered["connection"] += 1
                except (OSError, AssertionError):
                    self.lost.append("connection")
                    return

    def knock(self, client: Pod, server: Pod) -> None:
        """Datagrams and SYNs to port 82, which no policy admits."""
        while not self.stopping.is_set():
            for kind in (UDP, socket.SOCK_STREAM):
                with open_socket(client, server.address, kind) as dialling:
                    dialling.settimeout(0.05)
                    with contextlib.suppress(TimeoutError):
                        dialling.connect((server.address, 82))
                        if kind == UDP:
                            dialling.send(b"let me in")
                        else:
                            self.passed.append("SYN")
            self.answered["knocks"] += 1
            self.stopping.wait(0.005)

    @contextlib.contextmanager
    def hear(self, server: Pod) -> Iterator[None]:
        """A server that notes what it is sent at port 82."""
        with open_socket(server, server.address, UDP) as listener:
            listener.bind((server.address, 82))

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while data := listener.recv(100):
                        self.passed.append(data.decode())

            with serving(listener, serve):
                yield


@contextlib.contextmanager
def udp_echo(server: Pod) -> Iterator[None]:
    with open_socket(server, server.address, UDP) as listener:
        listener.bind((server.address, 80))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, client = listener.recvfrom(100)
                    if not data:  # as after its shutdown
                        return
                    listener.sendto(data, client)

        with serving(listener, serve):
            yield


@contextlib.contextmanager
def running(traffic: Traffic, *what: Callable[[], None]) -> Iterator[None]:
    threads = [threading.Thread(target=one) for one in what]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        traffic.stopping.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.timeout(300)
def test_no_kill_opens_or_locks_a_pod(node: Node) -> None:
    client, governed, fresh = node.pods
    names = [f"{pod.name}={pod.address}" for pod in (governed, fresh, client)]
    command = [sys.executable, "-m", "tests.kernel.programming", str(KILLS), *names]
    traffic = Traffic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(udp_echo(governed))
        for pod, port in ((governed, 80), (governed, 81), (governed, 82), (fresh, 81)):
            stack.enter_context(tcp_echo(pod, pod.address, port))
        stack.enter_context(traffic.hear(governed))
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        stack.enter_context(
            running(
                traffic,
                lambda: traffic.talk(client, governed),
                lambda: traffic.ask(client, governed),
                lambda: traffic.dial("governed pod", client, governed),
                lambda: traffic.dial("fresh pod", client, fresh),
                lambda: traffic.knock(client, governed),
            )
        )
        lines = [line.split() for line in process.stdout]
        assert process.wait(30) == 0
    states = Counter(tuple(line) for line in lines)
    print(states, traffic.answered)
    assert len(lines) == KILLS
    assert {how for how, _, _ in lines} == {"killed"}
    assert {state for _, state, _ in lines} == {"1", "2"}
    assert {state for _, _, state in lines} <= {"1", "2", "none", "tracking"}
    assert len({state for _, _, state in lines}) > 2, "kills came at several moments"
    assert (traffic.lost, traffic.passed) == ([], [])
    assert min(traffic.answered.values()) > KILLS
    assert len(traffic.answered) == 5
