"""How a running lab is: its machines, their processes, and what Kubernetes says of them."""

import json
from dataclasses import dataclass
from typing import Any

from ringfence.lab import kubectl
from ringfence.lab.config import LabConfig, MachineSpec, NodeSpec
from ringfence.lab.shop import run as shop
from ringfence.lab.state import State


@dataclass(frozen=True)
class MachineStatus:
    """One machine. ``pods`` counts ready and all pods; it is None where none can run, as is
    ``pod_network``, the addresses of a node's pods.
    """

    name: str
    address: str
    running: tuple[str, ...]
    ended: tuple[str, ...]
    ready: bool
    """All its processes run, and Kubernetes calls a node Ready."""
    pods: tuple[int, int] | None
    pod_network: str | None


@dataclass(frozen=True)
class Status:
    """The whole lab."""

    machines: tuple[MachineStatus, ...]
    cni: str
    """How pods of one node reach those of another."""
    api: str
    """URL of the Kubernetes API on the host's loopback."""
    external: str
    """Address of the host outside the cluster."""
    load: dict[str, Any] | None
    """The load generator's own count of its connections."""


def status(config: LabConfig, record: State) -> Status:
    """Look at a running lab; raises LabError if its API does not answer."""
    ready = {n["metadata"]["name"]: _condition(n) for n in kubectl.get(config, "nodes")}
    pods = kubectl.get(config, "pods", "--all-namespaces")
    counters = shop.counters(config)
    return Status(
        machines=tuple(_machine(spec, record, ready, pods) for spec in config.machines),
        cni=config.cni,
        api=f"https://127.0.0.1:{config.api_port}",
        external=str(config.external.address),
        load=json.loads(counters.read_text()) if counters.exists() else None,
    )


def _machine(
    spec: MachineSpec, record: State, ready: dict[str, bool], pods: list[dict[str, Any]]
) -> MachineStatus:
    own = [p for p in record.processes if p.name.startswith(f"{spec.name}/")]
    running = tuple(p.name.partition("/")[2] for p in own if p.alive)
    ended = tuple(p.name.partition("/")[2] for p in own if not p.alive)
    here = [_condition(p) for p in pods if p["spec"].get("nodeName") == spec.name]
    return MachineStatus(
        name=spec.name,
        address=str(spec.address),
        running=running,
        ended=ended,
        ready=not ended and ready.get(spec.name, True),
        pods=(sum(here), len(here)) if spec.name in ready else None,
        pod_network=str(spec.pods) if isinstance(spec, NodeSpec) else None,
    )


def _condition(item: dict[str, Any]) -> bool:
    """Whether a node or a pod is Ready."""
    conditions = item["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
