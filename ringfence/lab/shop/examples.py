"""Connections that show the published example policies at work, each beside its neighbours.

Without enforcement none of them times out. Once the policies that the shop needs are enforced, what
the five examples allow still opens, and what differs from them in one respect does not.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ringfence.lab import kubectl
from ringfence.lab.command import run
from ringfence.lab.config import LabConfig
from ringfence.lab.machine import find
from ringfence.lab.shop.manifests import (
    EXTERNAL_PORT,
    FRONT_END_NODE_PORT,
    NAMESPACE,
    UNUSED_EXTERNAL_PORT,
    UNUSED_NODE_PORT,
)
from ringfence.lab.state import State

_OPEN = "open"
_DIAL = """
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close(); print("open")
except OSError as error: print(error)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A TCP connection. `consumer` is a Deployment of the shop or a machine of the lab."""

    policy: str
    """What the example policy allows."""
    consumer: str
    provider: str
    """A DNS name in the cluster, or an address."""
    port: int
    allowed: bool
    """Whether the policy means this connection, rather than a neighbour of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an example: `result` is `open`, or an error such as `timed out` for a drop."""

    example: Example
    result: str

    @property
    def as_enforced(self) -> bool:
        """Whether it came out as it should where the shop's policies are enforced."""
        return (self.result == _OPEN) is self.example.allowed


def dial_all(config: LabConfig, record: State) -> list[Outcome]:
    """Try every example; raises LabError where a consumer cannot try."""
    pods = {
        pod["metadata"]["labels"].get("name"): pod["status"]
        for pod in kubectl.get(config, "pods", f"--namespace={NAMESPACE}")
    }
    names = {str(spec.address): spec.name for spec in config.node_specs}
    homes = {name: names[status["hostIP"]] for name, status in pods.items()}

    def dial(example: Example) -> Outcome:
        words = ["python3", "-c", _DIAL, example.provider, str(example.port)]
        if example.consumer in homes:
            target = f"deploy/{example.consumer}"
            argv = ["exec", f"--namespace={NAMESPACE}", target, "--", *words]
            return Outcome(example, run(kubectl.command(config, argv)).strip())
        machine = find(config, record, example.consumer)
        return Outcome(example, machine.run(words).strip())

    listed = examples(config, {name: status["podIP"] for name, status in pods.items()}, homes)
    with ThreadPoolExecutor(max_workers=6) as pool:
        return list(pool.map(dial, listed))


def examples(
    config: LabConfig, addresses: Mapping[str, str], homes: Mapping[str, str]
) -> list[Example]:
    """The five examples and their neighbours; addresses and nodes of pods by Deployment."""
    external = str(config.external.address)
    nodes = {spec.name: str(spec.address) for spec in config.node_specs}
    made: list[Example] = []

    def policy(text: str) -> Callable[[str, str, int, bool], None]:
        return lambda *parts: made.append(Example(text, *parts))

    direct = policy("payment to user-db, pod to pod")
    direct("payment", "user-db-direct", 27017, True)
    direct("payment", "user-db-direct", 27018, False)
    direct("payment", "orders-db", 27017, False)
    direct("catalogue", "user-db-direct", 27017, False)
    through_service = policy("front-end to Service carts")
    through_service("front-end", "carts", 80, True)
    through_service("front-end", "payment", 80, False)
    through_service("catalogue", "carts", 80, False)
    probe = policy("probes of a pod by its own node")
    probe(homes["front-end"], addresses["front-end"], 8079, True)
    for node in nodes:
        if node != homes["carts"]:
            probe(node, addresses["carts"], 80, False)
    node_port = policy("anyone to the NodePort of front-end")
    for address in nodes.values():
        node_port("external", address, FRONT_END_NODE_PORT, True)
        node_port("external", address, UNUSED_NODE_PORT, False)
    outside = policy("front-end to an external address")
    outside("front-end", external, EXTERNAL_PORT, True)
    outside("front-end", external, UNUSED_EXTERNAL_PORT, False)
    outside("carts", external, EXTERNAL_PORT, False)
    return made
