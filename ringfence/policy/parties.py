"""Which workloads of an inventory the ends of a rule are, whatever the ends are written as.

Judging needs no such list: it holds rules against connections. Previews and lint tell people whom
a rule concerns, and do need it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.workload import Backend, Item, ItemKind
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.layer import OrderedRule, RuleLayer


class Parties:
    """Finds the workloads at the ends of a layer's rules, as positions."""

    def __init__(self, layer: RuleLayer) -> None:
        self._layer = layer
        self._snapshot = layer.snapshot

    def consumers(self, rule: OrderedRule) -> BitMap:
        """The workloads that may open the connections that the rule speaks of."""
        return self._workloads(rule.consumer, rule.provider)

    def providers(self, rule: OrderedRule) -> BitMap:
        """The workloads that may be reached by them, or receive them for a node port."""
        return self._workloads(rule.provider, rule.consumer)

    def deciding(self, rule: OrderedRule) -> BitMap:
        """The workloads at which the rule may decide."""
        return rule.members & (self.consumers(rule) | self.providers(rule))

    def _workloads(self, end: ResolvedEnd, other: ResolvedEnd) -> BitMap:
        found = self._named(end)
        if end.own_node:
            nodes = self._layer.own_nodes[self._named(other).to_array()]
            found |= BitMap(nodes[nodes != NOWHERE])
        return found

    def _named(self, end: ResolvedEnd) -> BitMap:
        if end.anyone:
            return self._snapshot.subjects.copy()
        addressed = (self._within(*span) for span in end.ranges)
        return BitMap.union(end.items, *addressed, BitMap(self._serving(end)))

    def _within(self, first: int, last: int) -> BitMap:
        numbers, holders = self._addresses
        return BitMap(holders[bisect_left(numbers, first) : bisect_right(numbers, last)])

    def _serving(self, end: ResolvedEnd) -> Iterator[int]:
        """Backends of the end's Services, and the nodes that receive connections for them."""
        for position in end.services:
            item = self._snapshot.items[position]
            if item.service is None:
                continue
            for backend in item.service.backends:
                holder = self._holder(item, backend)
                if holder != NOWHERE:
                    yield holder
            ports = any(port.node_port for port in item.service.ports)
            if ports or item.service.external_addresses:
                yield from self._nodes.get(item.cluster, ())

    def _holder(self, service: Item, backend: Backend) -> int:
        return self._snapshot.at(backend.address, service.cluster) if backend.serving else NOWHERE

    @cached_property
    def _addresses(self) -> tuple[list[int], list[int]]:
        """Addresses of workloads as sorted numbers, and the position of each one's holder."""
        held = sorted(
            (int.from_bytes(address), position)
            for position in self._snapshot.subjects
            for address in self._snapshot.items[position].addresses
        )
        return [number for number, _ in held], [position for _, position in held]

    @cached_property
    def _nodes(self) -> dict[str, list[int]]:
        nodes: dict[str, list[int]] = {}
        for position, item in enumerate(self._snapshot.items):
            if item.kind is ItemKind.NODE:
                nodes.setdefault(item.cluster, []).append(position)
        return nodes
