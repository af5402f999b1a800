"""Whose a socket is: real processes with sockets in namespaces of their own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ringfence.kernel.netns import inode
from ringfence.kernel.processes import Process, Processes
from ringfence.kernel.sockets import sockets
from tests.kernel.netns import Namespace, namespace

NAMED = """
import ctypes, os, signal, socket, sys, time
def call_me(name):
    assert ctypes.CDLL(None).prctl(15, name, 0, 0, 0) == 0  # PR_SET_NAME
"""

FORKING_SERVER = """
call_me(b"parent")
kind = socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM
listener = socket.socket(socket.AF_INET, kind)
listener.bind(("127.0.0.1", 80))
kind == socket.SOCK_STREAM and listener.listen()
if not os.fork():
    call_me(b"worker")
    if kind == socket.SOCK_STREAM:
        dialled = socket.create_connection(("127.0.0.1", 80))
        accepted = listener.accept()
    print(os.getpid(), flush=True)
    signal.pause()
os.wait()
"""


@contextlib.contextmanager
def running(where: Namespace, script: str, *arguments: str) -> Iterator[tuple[int, str]]:
    """A Python process inside: its PID and the first line that it prints."""
    command = ["nsenter", f"--net={where.path}", sys.executable, "-c", NAMED + script, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def holders(where: Namespace, processes: Processes) -> dict[tuple[int, int], Process]:
    """The processes in a namespace by the ports of their sockets."""
    table = sockets(where.path)
    found = processes.holders({inode(where.path): table["inode"].tolist()})
    ports = zip(table["local_port"].tolist(), table["remote_port"].tolist(), strict=True)
    held = zip(ports, table["inode"].tolist(), strict=True)
    return {pair: found[number] for pair, number in held if number in found}


def test_a_listener_that_was_inherited_is_the_parents_and_a_connection_the_workers() -> None:
    with namespace("fork") as where, running(where, FORKING_SERVER, "tcp") as (parent, worker):
        found = holders(where, Processes())
        assert found.pop((80, 0)) == Process(parent, "parent", ())
        (client,) = {local for local, remote in found if remote == 80}
        assert found == dict.fromkeys(
            ((client, 80), (80, client)), Process(int(worker), "worker", ())
        )


def test_a_udp_socket_without_a_peer_has_a_holder() -> None:
    with namespace("udp") as where, running(where, FORKING_SERVER, "udp") as (parent, _):
        assert holders(where, Processes()) == {(80, 0): Process(parent, "parent", ())}


def test_a_name_of_any_bytes_is_a_text() -> None:
    script = (
        "call_me(bytes([0xFF, 0x1B, 0x0A, 0x0A]))\n"
        "it = socket.socket(); it.bind(('127.0.0.1', 80)); it.listen()\n"
        "print(flush=True); signal.pause()"
    )
    with namespace("name") as where, running(where, script):
        assert holders(where, Processes())[80, 0].name == "�\x1b\n\n"


def test_sockets_of_a_namespace_without_a_visible_process_are_nobodys() -> None:
    with namespace("unseen") as where, running(where, FORKING_SERVER, "tcp"):
        numbers = sockets(where.path)["inode"].tolist()
        elsewhere = Processes()
        assert elsewhere.holders({1: numbers}) == {}, "processes of other namespaces are left alone"
        assert elsewhere.unseen == {1}


@pytest.mark.parametrize("most", [1000, 100])
def test_no_more_open_files_are_listed_than_may_be(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is behind all others, where a look would find it first if it listed them all."""
    monkeypatch.setattr("ringfence.kernel.processes._MOST_FILES", most)
    script = (
        "call_me(b'hoarder'); others = [os.open('/dev/null', 0) for _ in range(200)]\n"
        "it = socket.socket(); it.bind(('127.0.0.1', 80)); it.listen()\n"
        "print(flush=True); signal.pause()"
    )
    with namespace("files") as where, running(where, script) as (pid, _):
        reached = {(80, 0): Process(pid, "hoarder", ())} if most > 200 else {}
        assert holders(where, Processes()) == reached
