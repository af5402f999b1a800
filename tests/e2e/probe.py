"""Dials from within a pod all the while, and tells when it came through and when not.

Its program runs in the pod's network namespace and needs neither kubelet nor container runtime.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.cluster import COMMAND, Lab

PORT = 7007
SERVER = f"""
import socket, threading
def echo(client):
    with client:
        while data := client.recv(64):
            client.sendall(data)
with socket.create_server(("", {PORT})) as server:
    while True:
        threading.Thread(target=echo, args=server.accept()[:1], daemon=True).start()
"""
_DIAL = """
import json, select, socket, sys, time
patience, most_s, port, *hosts = sys.argv[1:]
def came(dialled):  # whether any is answered in time
    until = time.monotonic() + float(patience)
    while dialled and (left := until - time.monotonic()) > 0:
        for one in select.select([], dialled, [], left)[1]:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                return True
            dialled.remove(one)
    return False
def once():
    dialled = [socket.socket() for _ in hosts]
    for one, host in zip(dialled, hosts):
        one.setblocking(False)
        one.connect_ex((host, int(port)))
    try:
        return came(dialled[:])
    finally:
        for one in dialled:
            one.close()
def held():
    try:
        kept.sendall(b".")
        return kept.recv(1) == b"."
    except OSError:
        return False
until, try_, last = time.monotonic() + float(most_s), once, None
if hosts[0] == "held":
    kept, try_ = socket.create_connection((hosts[1], int(port)), 2), held
    kept.settimeout(float(patience))
while not select.select([sys.stdin], [], [], 0.1)[0] and time.monotonic() < until:
    at = time.time()
    if (now := try_()) != last:
        print(json.dumps([at, now]), flush=True)
        last = now
print(json.dumps([time.time(), last]))
"""
_MOST_SECONDS = 150


@dataclass
class Probe:
    """What came of it: the instants (epoch, s) from which on it came through, or did not."""

    told: list[tuple[float, bool]] = field(default_factory=list)

    def spans(self, through: bool) -> list[tuple[float, float]]:
        """When it came through, or did not: from the first try of each span to the next one."""
        turns = zip(self.told, self.told[1:], strict=False)
        return [(at, until) for (at, was), (until, _) in turns if was is through]

    @property
    def always(self) -> bool:
        return bool(self.spans(True)) and not self.spans(False)

    @property
    def never(self) -> bool:
        return bool(self.spans(False)) and not self.spans(True)


@dataclass(frozen=True)
class PodNetwork:
    """A pod's network namespace, by its path on its node."""

    node: str
    netns: str
    address: str

    @contextmanager
    def dialling(self, *hosts: str, patience: float = 0.5) -> Iterator[Probe]:
        """Dial all the while, several a second; it is known what came of it in the end.

        `held` before the host: send over one connection, and wait for the echo.
        """
        inside = ("nsenter", f"--net={self.netns}", "python3", "-c", _DIAL)
        words = (str(patience), str(_MOST_SECONDS), str(PORT), *hosts)
        argv = [COMMAND, "lab", "exec", self.node, "--", *inside, *words]
        probe = Probe()
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as dialler:
            assert dialler.stdout
            try:
                first = dialler.stdout.readline()  # the first try is done
                yield probe
            finally:
                rest, _ = dialler.communicate("\n", timeout=30)
        probe.told += [tuple(json.loads(line)) for line in (first + rest).splitlines()]
        assert probe.told[-1][0] - probe.told[0][0] < _MOST_SECONDS - 1, "it took too long"

    def reaches(self, host: str) -> bool:
        """Whether it comes through now."""
        with self.dialling(host, patience=2) as probe:
            pass
        return probe.told[0][1]


_FIND = """
for netns in /run/netns/*; do
    nsenter --net=$netns ip -4 -o address | grep -q " $0/" && echo $netns
done; true
"""


WITNESS = f"""
import socket, sys, threading, time
def receive():
    with socket.create_server(("", {PORT})) as server:
        while True:
            print("received from", server.accept()[1][0], flush=True)
threading.Thread(target=receive, daemon=True).start()
while True:
    with socket.socket() as dialling:
        dialling.settimeout(0.2)
        if dialling.connect_ex((sys.argv[1], {PORT})) == 0:
            print("reached the server", flush=True)
    time.sleep(0.02)
"""
"""Dials the address that it is given and listens; prints what came of either."""


def network_of(lab: Lab, name: str, namespace: str) -> PodNetwork:
    """Of a running pod."""
    pod = lab.get("pod", "-n", namespace, name)
    node, address = pod["spec"]["nodeName"], pod["status"]["podIP"]
    netns = lab.on(node, "sh", "-c", _FIND, address).strip()
    assert netns.startswith("/run/netns/"), f"{name} is not on {node}"
    return PodNetwork(node, netns, address)


def pod(
    name: str,
    namespace: str,
    node: str,
    labels: dict[str, str],
    command: Sequence[str] = (),
    grace_s: int = 0,
) -> dict[str, Any]:
    """The manifest of a pod that stays, on a node; without grace it ends at once when told to."""
    container = {
        "name": "main",
        "image": "localhost/ringfence/shop:lab",
        "imagePullPolicy": "Never",
        "command": list(command or ("sleep", "infinity")),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": grace_s,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
