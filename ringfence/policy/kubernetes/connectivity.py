"""Who may open which connections to whom, for all workloads of a folder of manifests at once.

Judged are classes of workloads that no policy can tell apart, ranges of outside addresses and
ranges of ports, each against each, by the rules and the walk that judge observed connections.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.verdict import Stage
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.kubernetes.axes import (
    NOTHING,
    Mask,
    PortCells,
    address_cells,
    format_range,
    port_ranges,
)
from ringfence.policy.kubernetes.cluster import Cluster, KubernetesLabels, Pod
from ringfence.policy.kubernetes.exposure import (
    Exposure,
    ExposureReport,
    Representatives,
)
from ringfence.policy.kubernetes.ingress import Published
from ringfence.policy.kubernetes.policies import KubernetesPolicy, PolicyRule
from ringfence.policy.kubernetes.port_names import allowed_names, outbound_names
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.soundness import refuse_gaps, refuse_names_outside, refuse_ties
from ringfence.policy.kubernetes.topology import Workload
from ringfence.policy.kubernetes.walk import Rows, walk
from ringfence.policy.layer import OrderedRule

INGRESS_CONTROLLER = "{ingress-controller}"
_NOBODY = Representatives()
_CONTROLLER = Pod("ingress-controller-namespace", "ingress-controller", {})
"""Nobody knows who it is: a pod without labels, in a namespace without labels."""


class Edge(NamedTuple):
    """Connections that are allowed. Ends are workloads, ranges or the ingress controller."""

    source: str
    target: str
    connections: str


class Pair(NamedTuple):
    """Two ends, `published` the second where it is an ingress controller that connects to it.

    `consumer` and `provider` are the numbers of their classes, or of ranges after all classes.
    """

    source: str
    target: str
    consumer: int
    provider: int
    published: Workload | None = None


class Connectivity:
    """What policies permit among workloads, and between them and addresses outside.

    With `focus`, a protocol and ports, only what is permitted on all of it, and no other ports.
    Raises PolicyError where policies tell pods of one workload apart, and for two of a tier with
    one priority.
    """

    def __init__(
        self,
        namespaces: Mapping[str, KubernetesLabels],
        workloads: Mapping[Workload, Sequence[Pod]],
        policies: Sequence[KubernetesPolicy],
        published: Published,
        beside: Representatives = _NOBODY,
        focus: tuple[int, PortRange] | None = None,
    ) -> None:
        self.policies = policies
        self.workloads = sorted(workloads, key=lambda one: one.display)
        everyone = [pod for pods in workloads.values() for pod in pods]
        others = [one.pod for one in beside.pods]
        cluster = Cluster(
            {**namespaces, **beside.namespaces},
            [*everyone, _CONTROLLER, *others],
            required=beside.required,
        )
        self._beside = beside
        self._outbound_names = outbound_names(policies)
        refuse_gaps(cluster, workloads, policies)
        refuse_names_outside(policies)
        self.layer = KubernetesLayer(cluster, policies)
        refuse_ties(self.layer)
        self.ranges = address_cells(policies, list(Direction))
        self._told_apart = {
            direction: {
                one[0]: f"{format_range(one)}[External]"
                for one in address_cells(policies, [direction])
            }
            for direction in Direction
        }
        self.published = published
        targets = [
            (TCP, PortRange(port, port))
            for by in published.values()
            for ports in by.values()
            for port in ports
        ]
        asked = [focus] if focus else []
        self.ports = PortCells([*port_ranges(self.layer.rules), *targets, *asked])
        self.focus = self.ports.mask(*((focus[0], [focus[1]]) if focus else (None, [])))
        self._classify(cluster, workloads)
        self._judge()

    def _classify(self, cluster: Cluster, workloads: Mapping[Workload, Sequence[Pod]]) -> None:
        """Give each workload the number of its class, whose first pod stands for all."""
        numbers: dict[tuple[object, ...], int] = {}
        self._class: dict[Workload, int] = {}
        standing = [_CONTROLLER, *(one.pod for one in self._beside.pods)]
        for workload in self.workloads:
            pod = workloads[workload][0]
            told = (pod.namespace, frozenset(pod.labels.items()), frozenset(pod.ports))
            if told not in numbers:
                numbers[told] = len(standing)
                standing.append(pod)
            self._class[workload] = numbers[told]
        self._positions = [cluster.position(pod.key) for pod in standing]

    def _judge(self) -> None:
        """Fill `_outbound` and `_inbound`: [class, peer], the cells of ports that it allows."""
        self._governing: dict[tuple[int, Direction], list[OrderedRule]] = {}
        absent = self._positions[1 : 1 + len(self._beside.pods)]
        present = BitMap(self._positions) - BitMap(absent)
        selectable = present | BitMap(absent[1:])
        for rule in self.layer.rules:
            assert rule.direction is not None
            # Absent pods may come with NetworkPolicies of their own; administrators' are there.
            of_namespace = rule.decision.stage is Stage.NETWORK_POLICY
            for at in rule.members & (present if of_namespace else selectable):
                self._governing.setdefault((at, rule.direction), []).append(rule)
        self._masks: dict[int, tuple[Mask, Mask]] = {}
        self._outbound, self._inbound = (
            self._judged([self.governing(own, direction) for own in range(len(self._positions))])
            for direction in (Direction.OUTBOUND, Direction.INBOUND)
        )

    def governing(self, own: int, direction: Direction) -> Sequence[OrderedRule]:
        """The rules that decide for a class in a direction, in order."""
        return self._governing.get((self._positions[own], direction), [])

    def _judged(self, governing: Iterable[Sequence[OrderedRule]]) -> NDArray[np.uint8]:
        """What classes allow, each by the rules that govern it; many have the same."""
        known: dict[tuple[int, ...], NDArray[np.uint8]] = {}
        found = []
        for rules in governing:
            places = tuple(rule.decision.place for rule in rules)
            if places not in known:
                known[places] = self._allowed(rules)
            found.append(known[places])
        return np.stack(found)

    def _allowed(self, rules: Sequence[OrderedRule]) -> NDArray[np.uint8]:
        """What the rules allow: [peer], the cells of ports. Judged is what they tell apart."""
        if not rules:
            everything = np.packbits(np.ones(len(self.ports), dtype=np.bool_))
            return np.tile(everything, (len(self._positions) + len(self.ranges), 1))
        masks = {rule.decision.place: self.spoken_of(rule) for rule in rules}
        peers, peer_of = _distinct(np.stack([one[0] for one in masks.values()]))
        cells, cell_of = _distinct(np.stack([one[1] for one in masks.values()]))
        row_peer, row_cell = np.divmod(np.arange(len(peers) * len(cells)), len(cells))

        def matching(rule: OrderedRule, rows: Rows) -> Rows:
            spoken_of, ports = masks[rule.decision.place]
            return rows[spoken_of[peers][row_peer[rows]] & ports[cells][row_cell[rows]]]

        numbered = [(rule.decision.place, rule) for rule in rules]
        places = walk(numbered, len(row_peer), np.arange(len(row_peer)), matching)
        allows = np.array([one.action is Action.ALLOW for one in self.layer.rules] + [True])
        allowed = allows[places].reshape(len(peers), len(cells))[:, cell_of]
        packed: NDArray[np.uint8] = np.packbits(allowed, axis=1)[peer_of]
        return packed

    def spoken_of(self, rule: OrderedRule) -> tuple[Mask, Mask]:
        """The peers and the cells of ports that the rule speaks of."""
        place = rule.decision.place
        if place not in self._masks:
            inbound = rule.direction is Direction.INBOUND
            end = rule.consumer if inbound else rule.provider
            self._masks[place] = self.peers(end), self.ports.mask(rule.protocol, rule.ports)
        return self._masks[place]

    def peers(self, end: ResolvedEnd) -> Mask:
        """Which classes, and after them which ranges of addresses, the end holds."""
        if end.anyone:
            return np.ones(len(self._positions) + len(self.ranges), dtype=np.bool_)
        inside = np.isin(self._positions, end.items.to_array())
        outside = np.zeros(len(self.ranges), dtype=np.bool_)
        for first, last in end.ranges:
            # Ranges begin and end where cells do.
            outside[
                bisect_left(self.ranges, (first, 0)) : bisect_left(self.ranges, (last + 1, 0))
            ] = True
        return np.concatenate([inside, outside])

    def edges(self) -> Iterator[Edge]:
        """Everything that is allowed, but a workload to itself."""
        texts = [workload.display for workload in self.workloads]
        classes = np.array([self._class[one] for one in self.workloads], dtype=np.intp)
        if not len(classes):
            return
        inbound = self._inbound[classes]
        for at, source in enumerate(texts):
            own = classes[at]
            allowed = self._outbound[own, classes] & inbound[:, own]
            yield from self._told(source, texts, allowed, skip=at)
            outside, allowed = self._outside(own, Direction.OUTBOUND)
            yield from self._told(source, outside, allowed)
            outside, allowed = self._outside(own, Direction.INBOUND)
            for edge in self._told(source, outside, allowed):
                yield Edge(edge.target, source, edge.connections)
        for workload in self.published:
            allowed = self._from_controllers(workload)
            yield from self._told(INGRESS_CONTROLLER, [workload.display], allowed)

    def _from_controllers(self, workload: Workload) -> NDArray[np.uint8]:
        """What ingress controllers may open to a workload that is published: [1, cells]."""
        mask = self.single_ports(set().union(*self.published[workload].values()))
        own = self._class[workload]
        return self._inbound[own, :1] & self._outbound[:1, own] & np.packbits(mask)

    def blocked(self) -> list[Workload]:
        """Workloads that are published and that policies let nobody reach who is not known."""
        return [one for one in self.published if not self._from_controllers(one).any()]

    def single_ports(self, ports: Iterable[int]) -> Mask:
        """The cells of some TCP ports, at least one."""
        return self.ports.mask(TCP, [PortRange(port, port) for port in ports])

    def _focused(self, allowed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Of each row of cells those in focus, none where one of these is not allowed."""
        if self.focus.all():
            return allowed
        wanted = np.packbits(self.focus)
        focused: NDArray[np.uint8] = wanted * ((allowed & wanted) == wanted).all(axis=1)[:, None]
        return focused

    @property
    def in_focus(self) -> str:
        """The connections in focus, as text."""
        return self.ports.text(np.packbits(self.focus).tobytes())

    def exposure(self) -> ExposureReport:
        """To whom workloads are exposed of those that are not here: `beside`, and outside.

        Left out are workloads that are protected and exposed to nobody of the cluster.
        """
        found: dict[Direction, list[Exposure]] = {direction: [] for direction in Direction}
        unprotected = []
        for workload in self.workloads:
            own, name = self._class[workload], workload.display
            absent = {one: list(self._exposed(name, own, one)) for one in Direction}
            open_ends = [one for one in Direction if not self._is_protected(own, one)]
            unprotected += [(name, direction) for direction in open_ends]
            for direction in Direction if open_ends or any(absent.values()) else ():
                outside = self._told(name, *self._outside(own, direction))
                found[direction] += absent[direction]
                found[direction] += (
                    Exposure(name, edge.target, edge.connections) for edge in outside
                )
        return ExposureReport(found, unprotected)

    def _is_protected(self, own: int, direction: Direction) -> bool:
        return any(one.decision.policy for one in self.governing(own, direction))

    def _exposed(self, name: str, own: int, direction: Direction) -> Iterator[Exposure]:
        """The whole cluster, and whoever of it is exposed to otherwise."""
        peers = range(1, 1 + len(self._beside.pods))
        texts = [self._exposed_ports(own, peer, direction) for peer in peers]
        for at, (one, text) in enumerate(zip(self._beside.pods, texts, strict=True)):
            differs = text != (texts[0] if at else NOTHING)
            if differs and (text != NOTHING or self.focus.all()):
                yield Exposure(name, one.display, text)

    def _exposed_ports(self, own: int, peer: int, direction: Direction) -> str:
        judged, of_peer = self._outbound, self._inbound
        if direction is Direction.INBOUND:
            judged, of_peer = of_peer, judged
        (allowed,) = self._focused(judged[own, peer : peer + 1] & of_peer[peer : peer + 1, own])
        names = self._outbound_names if direction is Direction.OUTBOUND else frozenset()
        if not names or not self.focus.all():
            return self.ports.text(allowed.tobytes())
        cells = np.unpackbits(allowed, count=len(self.ports)).astype(np.bool_)

        def names_peer(rule: PolicyRule) -> bool:
            return bool(self.peers(self.layer.resolve(rule.peers, rule.action))[peer])

        told = allowed_names(self.layer, self._positions[own], names_peer, names)
        return self.ports.text_with_names(cells, told)

    def _outside(self, own: int, direction: Direction) -> tuple[list[str], NDArray[np.uint8]]:
        """The ranges outside that rules of the direction tell apart, and what is allowed."""
        judged = self._outbound if direction is Direction.OUTBOUND else self._inbound
        texts, peers = zip(*self._ranges(direction), strict=True)
        return list(texts), judged[own][list(peers)]

    def _ranges(self, direction: Direction) -> Iterator[tuple[str, int]]:
        """The ranges outside that rules of the direction tell apart, and which peers they are."""
        told_apart = self._told_apart[direction]
        for at, one in enumerate(self.ranges, len(self._positions)):
            if one[0] in told_apart:
                yield told_apart[one[0]], at

    def pairs(self) -> Iterator[Pair]:
        """Every pair of ends whose connections `edges` tells, allowed or not; none is `blocked`."""
        for one in self.workloads:
            own = self._class[one]
            for other in self.workloads:
                if other is not one:
                    yield Pair(one.display, other.display, own, self._class[other])
            for text, outside in self._ranges(Direction.OUTBOUND):
                yield Pair(one.display, text, own, outside)
            for text, outside in self._ranges(Direction.INBOUND):
                yield Pair(text, one.display, outside, own)
        for one in self.published:
            if self._from_controllers(one).any():
                yield Pair(INGRESS_CONTROLLER, one.display, 0, self._class[one], one)

    def is_outside(self, end: int) -> bool:
        """Whether an end of a pair is a range of addresses, for which nobody decides."""
        return end >= len(self._positions)

    def _told(
        self, source: str, targets: Sequence[str], allowed: NDArray[np.uint8], skip: int = -1
    ) -> Iterator[Edge]:
        allowed = self._focused(allowed)
        packed, width = np.ascontiguousarray(allowed).tobytes(), allowed.shape[1]
        for at in np.flatnonzero(allowed.any(axis=1)).tolist():
            if at != skip:
                cells = packed[at * width : (at + 1) * width]
                yield Edge(source, targets[at], self.ports.text(cells))


def _distinct(masks: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of [rule, element]: an element for each distinct column, and the one for each element."""
    columns = np.ascontiguousarray(np.packbits(masks, axis=0).T)
    keys = columns.view(f"V{columns.shape[1]}").ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which
