"""Run the shop: its pods in the cluster, its customers and a server on the external host."""

import json
import sys
from pathlib import Path

from ringfence.lab import kubectl
from ringfence.lab.config import LabConfig
from ringfence.lab.machine import Machine
from ringfence.lab.shop import manifests, program

RATE = 4
"""Requests a second of the load generator, over all pages and nodes."""
_TIMEOUT = 120  # seconds until the shop is ready
_PROGRAM = Path(program.__file__)


def objects(config: LabConfig) -> list[dict[str, object]]:
    """The shop's Kubernetes objects."""
    return manifests.manifests(config.external.address)


def counters(config: LabConfig) -> Path:
    """JSON file in which the load generator counts its connections."""
    return config.run / "load.json"


def start_server(external: Machine) -> None:
    """Start the server that front-end calls on the external host, and one that nobody calls."""
    for port in (manifests.EXTERNAL_PORT, manifests.UNUSED_EXTERNAL_PORT):
        server = {"listen": port, "protocol": "line"}
        external.spawn(f"server-{port}", [sys.executable, _PROGRAM, "service", json.dumps(server)])


def start_load(config: LabConfig, external: Machine) -> None:
    """Start the load generator on the external host."""
    load = {
        "targets": [f"{n.address}:{manifests.FRONT_END_NODE_PORT}" for n in config.node_specs],
        "pages": manifests.PAGES,
        "rate": RATE,
        "counters": str(counters(config)),
    }
    external.spawn("load", [sys.executable, _PROGRAM, "load", json.dumps(load)])


def wait(config: LabConfig) -> None:
    """Wait until every Deployment of the shop is available."""
    condition = ["--for=condition=Available", "deployment", "--all", f"--timeout={_TIMEOUT}s"]
    kubectl.kubectl(config, "wait", f"--namespace={manifests.NAMESPACE}", *condition)


def start_intruder(config: LabConfig) -> None:
    """Start the pod that scans its neighbours and calls user-db, and wait until it runs."""
    kubectl.apply(config, manifests.intruder_manifests())
    condition = ["--for=condition=Ready", "pod/intruder", f"--timeout={_TIMEOUT}s"]
    kubectl.kubectl(config, "wait", f"--namespace={manifests.NAMESPACE}", *condition)


def stop_intruder(config: LabConfig) -> None:
    """Remove the intruder."""
    names = ["pod/intruder", "serviceaccount/intruder"]
    scope = f"--namespace={manifests.NAMESPACE}"
    kubectl.kubectl(config, "delete", scope, "--ignore-not-found", *names)
