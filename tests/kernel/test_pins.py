"""What a capture leaves to the next one, whether it was killed or ended, until it is removed."""

import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringfence.flows.record import Hook
from ringfence.kernel.bpf import BpfObject, object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.errors import BpfError
from ringfence.kernel.pins import Pins, on_bpf_file_system
from ringfence.kernel.tc import TcxLinks
from tests.kernel import observe
from tests.kernel.netns import Namespace, Node, Pod, bpf_file_system, ip, node_with_pods
from tests.kernel.traffic import ping

Flows = np.ndarray[Any, Any]
_ECHO = 8

SCRIPT = """
import sys
from pathlib import Path
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.pins import Pins
capture = FlowCapture(object_path("flow"), pins=Pins(Path(sys.argv[1])))
capture.open()
for ifindex in sys.argv[2:]:
    capture.attach(int(ifindex))
print("attached", flush=True)
for line in sys.stdin:
    getattr(capture, line.strip())()
    print("done", flush=True)
"""


class Doomed:
    """A capture in a process of its own, on which nothing is done when it is killed."""

    def __init__(self, pin_dir: Path, node: Node) -> None:
        ifindexes = [str(pod.host_ifindex) for pod in node.pods]
        command = ["nsenter", f"--net={node.path}", sys.executable, "-c", SCRIPT, str(pin_dir)]
        self._process = subprocess.Popen(
            [*command, *ifindexes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._await("attached")

    def call(self, method: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{method}\n")
        self._process.stdin.flush()
        self._await("done")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _await(self, word: str) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == f"{word}\n"


@pytest.fixture
def pin_dir(tmp_path: Path) -> Iterator[Path]:
    with bpf_file_system(tmp_path / "bpf") as mounted:
        yield mounted / "ringfence"


@contextlib.contextmanager
def doomed(pin_dir: Path, node: Node) -> Iterator[Doomed]:
    running = Doomed(pin_dir, node)
    try:
        yield running
    finally:
        running.kill()


@contextlib.contextmanager
def successor(
    pin_dir: Path, node: Node, path: Path | None = None, **sizes: Any
) -> Iterator[FlowCapture]:
    capture = FlowCapture(path or object_path("flow"), pins=Pins(pin_dir), **sizes)
    node.call(capture.open)
    try:
        yield capture
    finally:
        node.call(capture.remove)
        capture.close()


def echoes(flows: Flows, pod: Pod) -> int:
    """Echo requests counted on their way in at a pod's interface."""
    at = (flows["ifindex"] == pod.host_ifindex) & (flows["hook"] == Hook.INGRESS)
    return int(flows["packets"][at & (flows["protocol"] == 1) & (flows["sport"] == _ECHO)].sum())


def programs_on(where: Namespace, ifindex: int) -> list[int]:
    """The ids of the TCX programs at an interface's ingress, in order."""
    ids, count = (ctypes.c_uint32 * 64)(), ctypes.c_uint32(64)
    query = ctypes.CDLL("libbpf.so.1").bpf_prog_query
    assert where.call(lambda: query(ifindex, 46, 0, None, ids, ctypes.byref(count))) == 0
    return ids[: count.value]


def send(node: Node, count: int) -> None:
    for _ in range(count):
        assert ping(node.pods[0], node.pods[1].address)


def test_the_next_goes_on_counting_where_one_was_killed(pin_dir: Path) -> None:
    with node_with_pods(2) as node:
        client = node.pods[0]
        with doomed(pin_dir, node) as first:
            send(node, 2)
            first.call("drain")
            send(node, 3)
            first.call("take")  # and killed before anybody has it for sure
            send(node, 4)
        send(node, 5)
        with successor(pin_dir, node) as capture:
            assert len(programs_on(node, client.host_ifindex)) == 1
            assert echoes(capture.left(), client) == 3
            assert echoes(capture.left(), client) == 3
            send(node, 6)
            capture.done()
            assert len(capture.left()) == 0
            assert echoes(capture.drain(), client) == 4 + 5 + 6
            audit = capture.audit()
            seen = audit[(audit["ifindex"] == client.host_ifindex) & (audit["hook"] == 0)]
            assert seen["skbs"] >= 2 + 3 + 4 + 5 + 6
        assert programs_on(node, client.host_ifindex) == []
        assert not pin_dir.exists()


def test_the_next_goes_on_counting_where_one_ended(pin_dir: Path) -> None:
    with node_with_pods(2) as node:
        client = node.pods[0]
        first = FlowCapture(object_path("flow"), pins=Pins(pin_dir))
        node.call(first.open)
        observe.attach(first, node)
        send(node, 2)
        first.drain()
        send(node, 3)
        first.close()
        send(node, 4)
        with successor(pin_dir, node) as capture:
            assert len(capture.left()) == 0
            assert echoes(capture.drain(), client) == 3 + 4


def test_programs_of_others_stay_in_their_place(pin_dir: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "next.c", tmp_path / "next.o"
    source.write_text('__attribute__((section("tc"), used)) int next(void *skb) { return -1; }')
    subprocess.run(["clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", target], check=True)
    with node_with_pods(1) as node, contextlib.ExitStack() as others:
        ifindex = node.pods[0].host_ifindex

        def join() -> None:
            """As the first of all that are there."""
            foreign = BpfObject(target, {})
            others.callback(foreign.close)
            ingress = {Hook.INGRESS: foreign.program_fd("next")}
            others.callback(TcxLinks(ifindex, ingress).close)

        node.call(join)
        with doomed(pin_dir, node):
            node.call(join)
            first, killed, last = programs_on(node, ifindex)
        with successor(pin_dir, node):
            before, ours, after = programs_on(node, ifindex)
            assert (before, after) == (first, last)
            assert ours != killed
        assert programs_on(node, ifindex) == [first, last]


def test_interfaces_that_vanished_meanwhile_are_told_for_the_last_time(pin_dir: Path) -> None:
    with node_with_pods(3) as node:
        client, _, gone = node.pods
        with doomed(pin_dir, node):
            send(node, 1)
            assert ping(gone, client.address)
        ip("-n", node.name, "link", "delete", gone.host_device)
        # Another interface may get the number of one that is gone.
        ip("-n", node.name, "link", "add", "other", "index", str(gone.host_ifindex),
           "type", "veth")  # fmt: skip
        with successor(pin_dir, node) as capture:
            assert echoes(capture.take(), gone) == 1
            assert capture.attached == {pod.host_ifindex for pod in node.pods}
            assert len(programs_on(node, gone.host_ifindex)) == 1
            node.call(lambda: capture.detach(gone.host_ifindex))
            assert gone.host_ifindex in capture.departed()["ifindex"]
            assert gone.host_ifindex not in capture.departed()["ifindex"]


def test_while_one_lives_another_is_refused_and_disturbs_nothing(pin_dir: Path) -> None:
    with node_with_pods(2) as node:
        with doomed(pin_dir, node) as first:
            second = FlowCapture(object_path("flow"), pins=Pins(pin_dir))
            with pytest.raises(BpfError, match="another agent runs on this node"):
                node.call(second.open)
            send(node, 2)
            first.call("take")
        with successor(pin_dir, node) as capture:
            assert echoes(capture.left(), node.pods[0]) == 2


def test_another_release_of_the_program_goes_on_with_the_same_maps(
    pin_dir: Path, tmp_path: Path
) -> None:
    """As a compiler's next release would make it, and switched to read DNS servers' answers."""
    rebuilt = tmp_path / "flow.bpf.o"
    rebuilt.write_bytes(object_path("flow").read_bytes() + bytes(8))
    with node_with_pods(2) as node:
        client = node.pods[0]
        with doomed(pin_dir, node):
            send(node, 2)
            before = programs_on(node, client.host_ifindex)
        send(node, 3)
        with successor(pin_dir, node, rebuilt, dns=True) as capture:
            (ours,) = programs_on(node, client.host_ifindex)
            assert [ours] != before
            send(node, 4)
            assert echoes(capture.drain(), client) == 2 + 3 + 4


def test_pins_of_a_loader_with_other_maps_are_removed(pin_dir: Path) -> None:
    with node_with_pods(2) as node:
        with doomed(pin_dir, node):
            send(node, 1)
        with successor(pin_dir, node, max_flows=1000) as capture:
            assert capture.attached == frozenset()
            assert len(capture.take()) == 0
            assert programs_on(node, node.pods[0].host_ifindex) == []


def test_a_removal_that_is_killed_leaves_nothing_to_take_over(pin_dir: Path) -> None:
    with node_with_pods(2) as node:
        with doomed(pin_dir, node):
            send(node, 1)
        (own,) = pin_dir.iterdir()
        own.rename(pin_dir / "ended")
        (pin_dir / "ended" / "flows_0").unlink()
        with successor(pin_dir, node) as capture:
            assert capture.attached == frozenset()
            assert len(capture.take()) == 0
        assert not pin_dir.exists()


def test_a_directory_elsewhere_is_told_from_one_that_keeps_pins(
    pin_dir: Path, tmp_path: Path
) -> None:
    assert on_bpf_file_system(pin_dir)
    assert not on_bpf_file_system(tmp_path / "ringfence")
    with pytest.raises(BpfError, match="cannot"):
        FlowCapture(object_path("flow"), pins=Pins(tmp_path / "nowhere" / "ringfence")).open()
