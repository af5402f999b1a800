"""The ports that a Kubernetes cluster declares, on which somebody therefore answers."""

from collections import Counter
from collections.abc import Iterator, Mapping

from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.workload import Item

PortSet = frozenset[tuple[int, int]]
"""(protocol, port) pairs."""


class DeclaredPorts:
    """By Kubernetes cluster the ports of Services, node ports, target ports and container ports."""

    def __init__(self) -> None:
        self._of: dict[ItemKey, tuple[ClusterId, PortSet]] = {}
        self._declared: dict[ClusterId, Counter[tuple[int, int]]] = {}

    def take(self, items: Mapping[ItemKey, Item | None]) -> bool:
        """Items are so now, or no more for None; whether other ports are declared than before."""
        changed = False
        for key, item in items.items():
            before = self._of.pop(key, None)
            now = (item.cluster, frozenset(_ports(item))) if item else None
            if now and now[1]:
                self._of[key] = now
            if now != before:
                changed |= self._count(now, 1)
                changed |= self._count(before, -1)
        return changed

    def of(self, cluster: ClusterId) -> PortSet:
        """The ports that a Kubernetes cluster declares."""
        return frozenset(self._declared.get(cluster, ()))

    def _count(self, ports: tuple[ClusterId, PortSet] | None, more: int) -> bool:
        """Count those that declare the ports; whether one is new, or is declared no more."""
        if ports is None:
            return False
        counts, changed = self._declared.setdefault(ports[0], Counter()), False
        for port in ports[1]:
            counts[port] += more
            changed |= counts[port] == (more > 0)
            if not counts[port]:
                del counts[port]
        return changed


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
