"""Call graphs of real applications, in the form of the corpus `appgraphs`."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ringfence.model.protocol import parse_one_protocol

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "corpora"
FOLDER = Path(os.environ.get("RINGFENCE_CORPORA", _BESIDE)) / "appgraphs"
Socket = tuple[int, int]
"""Protocol and port."""


@dataclass(frozen=True)
class Workload:
    id: str
    namespace: str
    """Empty of an end outside the cluster."""
    kind: str
    labels: dict[str, str]
    replicas: int
    role: str
    listens: tuple[Socket, ...]


@dataclass(frozen=True, order=True)
class Edge:
    """`consumer` opens connections to `provider`: ids of workloads, or names of parties."""

    consumer: str
    provider: str
    protocol: int
    port: int


@dataclass(frozen=True)
class Graph:
    name: str
    workloads: dict[str, Workload]
    edges: tuple[Edge, ...]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Graph:
    told = json.loads((FOLDER / f"{name}.json").read_text())
    workloads = {
        one["id"]: Workload(
            one["id"],
            one["namespace"] or "",
            one["kind"],
            one["labels"],
            one["replicas"],
            one["role"],
            tuple((parse_one_protocol(at["protocol"]), at["port"]) for at in one["listens"]),
        )
        for one in told["workloads"]
    }
    edges = tuple(
        Edge(one["consumer"], one["provider"], parse_one_protocol(one["protocol"]), one["port"])
        for one in told["edges"]
    )
    return Graph(name, workloads, edges)


def classes(names: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    """The role of each: those with equal neighbours, both ways, and ports are one."""
    told: dict[str, set[tuple[str, str, int, int]]] = {name: set() for name in names}
    for edge in edges:
        told[edge.consumer].add(("to", edge.provider, edge.protocol, edge.port))
        told[edge.provider].add(("from", edge.consumer, edge.protocol, edge.port))
    numbers: dict[frozenset[tuple[str, str, int, int]], int] = {}
    return {name: numbers.setdefault(frozenset(said), len(numbers)) for name, said in told.items()}
