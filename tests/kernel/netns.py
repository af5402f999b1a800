"""Network namespaces for tests: made under a random name, always taken away again.

    with node_with_pods(2) as node:
        node.pods[0].run("nc", "-z", node.pods[1].address, "80")

A node is a namespace that forwards between its pods, each joined to it by a veth pair, as a
routed CNI would do: pod i, counted from 1, has 10.99.i.2 and fd00:99:i::2, and its gateway, the
node's end of the pair, 10.99.i.1 and fd00:99:i::1.
"""

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ringfence.kernel import nft
from ringfence.kernel.netns import run_in
from ringfence.policy.backends.nftables_table import TAG

T = TypeVar("T")

SESSION = secrets.token_hex(4)
"""In the name of every namespace of this run, so that it knows its own."""


def ip(*arguments: str, stdin: str | None = None) -> str:
    return _run("ip", *arguments, stdin=stdin)


def _run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


@dataclass(frozen=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a command inside; it must succeed. Returns its standard output."""
        return _run("ip", "netns", "exec", self.name, *argv, stdin=stdin)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function inside, in a thread of its own."""
        return run_in(self.path, function)

    def nft(self, script: str) -> None:
        self.run("nft", "-f", "-", stdin=script)

    def ours(self, text: str) -> str:
        """The text with the names of our sets as they are now, after the rules that ask them."""
        listed = nft.list_table(self.path, elements=False) or ()
        names = [one[kind]["name"] for one in listed for kind in ("set", "map") if kind in one]
        by_stem = {name[: -TAG - 1]: name for name in names}
        return re.sub(r"\brf_\w+", lambda met: by_stem.get(met[0], met[0]), text)

    def ifindex(self, device: str) -> int:
        return int(self.run("cat", f"/sys/class/net/{device}/ifindex"))

    def counter(self, device: str, name: str) -> int:
        """One of the interface's own counters, for example `rx_packets`."""
        return int(self.run("cat", f"/sys/class/net/{device}/statistics/{name}"))


@dataclass(frozen=True)
class Pod(Namespace):
    """A namespace behind a veth pair: `eth0` inside, `host_device` on its node."""

    address: str
    address6: str
    gateway: str
    gateway6: str
    host_device: str
    host_ifindex: int


@dataclass(frozen=True)
class Node(Namespace):
    """A forwarding namespace and its pods."""

    pods: tuple[Pod, ...]


@contextlib.contextmanager
def bpf_file_system(at: Path) -> Iterator[Path]:
    """A BPF file system of its own.

    What is pinned in it is removed by name: a mount namespace made meanwhile, such as a lab's,
    has a copy of the mount, and the file system lives on in it.
    """
    at.mkdir()
    _run("mount", "-t", "bpf", "bpf", str(at))
    try:
        yield at
    finally:
        for pin in at.glob("*/*/*"):
            pin.unlink()
        _run("umount", str(at))


@contextlib.contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    """A fresh namespace with its loopback up; gone afterwards with all its interfaces."""
    name = f"rf-{role}-{SESSION}-{secrets.token_hex(2)}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield Namespace(name)
    finally:
        ip("netns", "delete", name)


@contextlib.contextmanager
def node_with_pods(count: int) -> Iterator[Node]:
    """A node with `count` pods, forwarding IPv4 and IPv6 between them."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(namespace("node"))
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        pods = tuple(
            join(node, stack.enter_context(namespace("pod")), i) for i in range(1, count + 1)
        )
        for pod in pods:
            await_carrier(pod)
        yield Node(node.name, pods)


def join(node: Namespace, pod: Namespace, number: int) -> Pod:
    """Make a namespace the pod of that number of a node, with a way to the others at once."""
    device = f"veth{number}"
    address, gateway = f"10.99.{number}.2", f"10.99.{number}.1"
    address6, gateway6 = f"fd00:99:{number}::2", f"fd00:99:{number}::1"
    ip("-n", node.name, "link", "add", device, "type", "veth",
       "peer", "name", "eth0", "netns", pod.name)  # fmt: skip
    for inside, name, own, own6, link_local in (
        (node, device, gateway, gateway6, "fe80::1"),
        (pod, "eth0", address, address6, "fe80::2"),
    ):
        ip("-n", inside.name, "-batch", "-", stdin=(
            f"link set {name} addrgenmode none\n"
            f"addr add {own}/24 dev {name}\n"
            f"addr add {own6}/64 dev {name} nodad\n"
            f"addr add {link_local}/64 dev {name} nodad\n"
            f"link set {name} up\n"
        ))  # fmt: skip
    ip("-n", pod.name, "-batch", "-", stdin=(
        f"route add default via {gateway}\n"
        f"route add ::/0 via {gateway6}\n"
    ))  # fmt: skip
    return Pod(pod.name, address, address6, gateway, gateway6, device, node.ifindex(device))


def await_carrier(where: Namespace, interface: str = "eth0") -> None:
    """Until the kernel has told itself of the carrier nothing is sent, and IPv6 does not answer."""
    deadline = time.monotonic() + 10
    while where.run("cat", f"/sys/class/net/{interface}/operstate").strip() != "up":
        assert time.monotonic() < deadline, f"{where.name}: no carrier"
        time.sleep(0.02)
