"""How soon a change of a Kubernetes NetworkPolicy decides over connections, on the lab.

Two pods on two nodes; one opens connections to the other all the time. From the API server's answer
to a change, how long until the first connection that comes out as it now should? First with no
other policy, then with 640 that select both pods; and how many rules and sets they are.

Needs a lab where Ringfence enforces these policies: `ringfence lab up --bare`,
`ringfence lab install`, `ringfence netpol enforce --cluster lab`.
Run: `.venv/bin/python -m bench.live_netpol [changes] [policies]`.
"""

import base64
import http.client
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringfence.lab import cluster, images, kubectl, machine
from ringfence.lab.config import LabConfig

NAMESPACE = "bench"
PORT = 8080
TIMEOUT = 0.03  # seconds, of one connection; a dropped one takes that long
_SETTLE = 10.0  # seconds that many policies may take until all are in force
_SERVE = f"import socketserver; socketserver.TCPServer(('', {PORT}), lambda *a: 0).serve_forever()"
_DIAL = f"""
import socket, sys, time
while True:
    began = time.time_ns()
    try: socket.create_connection((sys.argv[1], {PORT}), {TIMEOUT}).close(); word = "open"
    except OSError: word = "closed"
    print(began, word, flush=True)
    time.sleep(0.001)
"""


class Api:
    """One kept connection to the lab's Kubernetes API."""

    def __init__(self, config: LabConfig) -> None:
        held = json.loads(config.kubeconfig.read_text())
        authority = held["clusters"][0]["cluster"]["certificate-authority-data"]
        user = held["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            context.load_cert_chain(pair.name)
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", config.api_port, context=context
        )

    def call(self, method: str, path: str, body: Any = None) -> int:
        """The wall-clock time of the answer, in nanoseconds."""
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        at_ns = time.time_ns()
        told = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {told.decode()}")
        return at_ns


class Dialler:
    """Connections from one pod to the other, as they come out."""

    def __init__(self, config: LabConfig, address: str) -> None:
        argv = ["exec", f"--namespace={NAMESPACE}", "client", "--", "python3", "-uc", _DIAL]
        self._process = subprocess.Popen(
            kubectl.command(config, [*argv, address]), stdout=subprocess.PIPE, text=True
        )
        self._seen: list[tuple[int, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, word = line.split()
            self._seen.append((int(at), word))

    def first(self, word: str, after_ns: int, seconds: float = 30) -> float:
        """Milliseconds from a time until a connection began that came out so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for at, seen in reversed(self._seen):
                if at < after_ns:
                    break
                if seen == word:
                    first = next(a for a, w in self._seen if a >= after_ns and w == word)
                    return (first - after_ns) / 1e6
            time.sleep(0.02)
        raise SystemExit(f"no connection came out {word} within {seconds} s")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def pod(name: str, node: str, *argv: str) -> dict[str, Any]:
    container = {"name": "main", "image": images.reference("shop"), "imagePullPolicy": "Never"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{**container, "command": list(argv)}],
        },
    }


def policy(name: str, selector: dict[str, Any], ingress: list[Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def filler(number: int) -> dict[str, Any]:
    """A policy of both pods like no other."""
    peer = {"podSelector": {"matchLabels": {"app": f"peer-{number}"}}}
    block = {"ipBlock": {"cidr": f"198.18.{number // 250}.{number % 250}/32"}}
    ports = [{"protocol": "TCP", "port": 10000 + number}]
    return policy(f"filler-{number}", {}, [{"from": [peer, block], "ports": ports}])


@contextmanager
def two_pods(config: LabConfig) -> Iterator[dict[str, str]]:
    """Their addresses."""
    namespace: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE},
    }
    first, *_, last = config.node_specs
    server = pod("server", last.name, "python3", "-c", _SERVE)
    client = pod("client", first.name, "sleep", "infinity")
    try:
        kubectl.apply(config, [namespace, server, client])
        ready = ["--for=condition=Ready", "pod", "--all", f"--namespace={NAMESPACE}"]
        kubectl.kubectl(config, "wait", *ready, "--timeout=60s")
        pods = kubectl.get(config, "pods", f"--namespace={NAMESPACE}")
        yield {one["metadata"]["name"]: one["status"]["podIP"] for one in pods}
    finally:
        kubectl.kubectl(config, "delete", "namespace", NAMESPACE)


def measure(api: Api, dialler: Dialler, changes: int, *, create_denies: bool) -> None:
    """Create and delete a policy of the server again and again."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
    select = {"matchLabels": {"app": "server"}}
    one = policy("one", select, [] if create_denies else [{"ports": [{"port": PORT}]}])
    words = ["closed", "open"] if create_denies else ["open", "closed"]
    taken: dict[str, list[float]] = {"open": [], "closed": []}
    for _ in range(changes):
        taken[words[0]].append(dialler.first(words[0], api.call("POST", path, one)))
        time.sleep(0.5)
        taken[words[1]].append(dialler.first(words[1], api.call("DELETE", f"{path}/one")))
        time.sleep(0.5)
    for word, what in (("closed", "denied"), ("open", "allowed")):
        found = sorted(taken[word])
        print(
            f"  to the first connection {what}: p50 {statistics.median(found):.0f} ms,"
            f" p90 {found[int(0.9 * (len(found) - 1))]:.0f} ms, longest {found[-1]:.0f} ms"
        )


def count(config: LabConfig, addresses: dict[str, str]) -> None:
    """Rules and sets of each pod, of whoever made them."""
    _, record = cluster.running(config)
    for name, address in addresses.items():
        spec = next(s for s in config.node_specs if address.startswith(str(s.pods)[:-4]))
        node = machine.find(config, record, spec.name)
        script = (
            "for ns in /run/netns/*; do"
            f" nsenter --net=$ns ip -4 -o address | grep -qF ' {address}/' &&"
            " nsenter --net=$ns nft -j list ruleset && break; done"
        )
        found = json.loads(node.run(["sh", "-c", script]))["nftables"]
        kinds = [next(iter(one)) for one in found]
        sets = kinds.count("set") + kinds.count("map")
        print(f"  {name}: {kinds.count('rule')} rules, {sets} sets and maps")


def main() -> None:
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    policies = int(sys.argv[2]) if len(sys.argv) > 2 else 640
    config, _ = cluster.running(LabConfig())
    api = Api(config)
    with two_pods(config) as addresses:
        dialler = Dialler(config, addresses["server"])
        dialler.first("open", time.time_ns())
        print(f"No other policy, {changes} changes:")
        measure(api, dialler, changes, create_denies=True)
        print(f"{policies} policies of both pods:")
        path = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
        for number in range(policies):
            api.call("POST", path, filler(number))
        time.sleep(_SETTLE)
        count(config, addresses)
        measure(api, dialler, changes, create_denies=False)
        dialler.stop()


if __name__ == "__main__":
    main()
