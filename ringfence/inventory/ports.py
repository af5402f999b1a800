"""The ports that a Kubernetes cluster declares, on which somebody therefore answers."""

from collections.abc import Iterable, Iterator

from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item

PortSet = frozenset[tuple[int, int]]
"""(protocol, port) pairs."""


def declared_ports(items: Iterable[Item]) -> dict[ClusterId, PortSet]:
    """By Kubernetes cluster the ports of Services, node ports, target ports and container ports."""
    found: dict[ClusterId, set[tuple[int, int]]] = {}
    for item in items:
        found.setdefault(item.cluster, set()).update(_ports(item))
    return {cluster: frozenset(ports) for cluster, ports in found.items()}


def _ports(item: Item) -> Iterator[tuple[int, int]]:
    for container in item.containers:
        yield container.protocol, container.port
    if item.service is None:
        return
    for port in item.service.ports:
        yield port.protocol, port.port
        if port.node_port:
            yield port.protocol, port.node_port
    for backend in item.service.backends:
        yield backend.protocol, backend.port
