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
from ringfence.model.protocol import PortRange
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.errors import PolicyError
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
from ringfence.policy.kubernetes.policies import KubernetesPolicy, Pods
from ringfence.policy.kubernetes.rules import KubernetesLayer
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
        self.workloads = sorted(workloads, key=lambda one: one.display)
        everyone = [pod for pods in workloads.values() for pod in pods]
        others = [one.pod for one in beside.pods]
        cluster = Cluster(
            {**namespaces, **beside.namespaces},
            [*everyone, _CONTROLLER, *others],
            required=beside.required,
        )
        self._beside = beside
        _refuse_gaps(cluster, workloads, policies)
        self.layer = KubernetesLayer(cluster, policies)
        _refuse_ties(self.layer)
        self.ranges = address_cells(policies, list(Direction))
        self._told_apart = {
            direction: {
                one[0]: f"{format_range(one)}[External]"
                for one in address_cells(policies, [direction])
            }
            for direction in Direction
        }
        self._published = published
        targets = [
            (protocol, PortRange(port, port))
            for ports in published.values()
            for protocol, port in ports
        ]
        asked = [focus] if focus else []
        self.ports = PortCells([*port_ranges(self.layer.rules), *targets, *asked])
        self._focus = np.packbits(self.ports.mask(focus[0], [focus[1]])) if focus else None
        self._classify(cluster, workloads)
        self._judge()

    def _classify(self, cluster: Cluster, workloads: Mapping[Workload, Sequence[Pod]]) -> None:
        """Give each workload the number of its class, whose first pod stands for all."""
        self._known = 1 + len(self._beside.pods)
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
        by_position: dict[tuple[int, Direction], list[OrderedRule]] = {}
        standing = BitMap(self._positions)
        for rule in self.layer.rules:
            assert rule.direction is not None
            for at in rule.members & standing:
                by_position.setdefault((at, rule.direction), []).append(rule)
        self._governed = {
            key for key, rules in by_position.items() if any(one.decision.policy for one in rules)
        }
        self._masks: dict[int, tuple[Mask, Mask]] = {}
        self._outbound, self._inbound = (
            self._judged([by_position.get((at, direction), []) for at in self._positions])
            for direction in (Direction.OUTBOUND, Direction.INBOUND)
        )

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
        masks = {rule.decision.place: self._mask(rule) for rule in rules}
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

    def _mask(self, rule: OrderedRule) -> tuple[Mask, Mask]:
        """The peers and the cells of ports that the rule speaks of."""
        place = rule.decision.place
        if place not in self._masks:
            inbound = rule.direction is Direction.INBOUND
            end = rule.consumer if inbound else rule.provider
            self._masks[place] = self._peers(end), self.ports.mask(rule.protocol, rule.ports)
        return self._masks[place]

    def _peers(self, end: ResolvedEnd) -> Mask:
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
        for workload, ports in self._published.items():
            mask = np.zeros(len(self.ports), dtype=np.bool_)
            for protocol, port in ports:
                mask |= self.ports.mask(protocol, [PortRange(port, port)])
            allowed = self._inbound[self._class[workload], :1] & np.packbits(mask)
            yield from self._told(INGRESS_CONTROLLER, [workload.display], allowed)

    def exposure(self) -> ExposureReport:
        """To whom workloads are exposed of those that are not here: `beside`, and outside."""
        found: dict[Direction, list[Exposure]] = {direction: [] for direction in Direction}
        unprotected = []
        for workload in self.workloads:
            own, name = self._class[workload], workload.display
            for direction in Direction:
                if (self._positions[own], direction) not in self._governed:
                    unprotected.append((name, direction))
                judged = self._outbound if direction is Direction.OUTBOUND else self._inbound
                texts = [self.ports.text(one.tobytes()) for one in judged[own, 1 : self._known]]
                peers = zip(self._beside.pods, texts, strict=True)
                told = [
                    (one.display, text)
                    for one, text in peers
                    if text != (NOTHING if one is self._beside.pods[0] else texts[0])
                ]
                outside = self._told(name, *self._outside(own, direction))
                told += ((edge.target, edge.connections) for edge in outside)
                found[direction] += (Exposure(name, *one) for one in told)
        return ExposureReport(found, unprotected)

    def _outside(self, own: int, direction: Direction) -> tuple[list[str], NDArray[np.uint8]]:
        """The ranges outside that rules of the direction tell apart, and what is allowed."""
        judged = self._outbound if direction is Direction.OUTBOUND else self._inbound
        ranges = self._told_apart[direction]
        starts = [at for at, one in enumerate(self.ranges) if one[0] in ranges]
        return list(ranges.values()), judged[own, len(self._positions) :][starts]

    def _told(
        self, source: str, targets: Sequence[str], allowed: NDArray[np.uint8], skip: int = -1
    ) -> Iterator[Edge]:
        if self._focus is not None:
            allowed = self._focus * ((allowed & self._focus) == self._focus).all(axis=1)[:, None]
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


def _refuse_ties(layer: KubernetesLayer) -> None:
    """Upstream leaves open which of two policies of one tier and priority comes first."""
    for names in layer.ties:
        raise PolicyError(f"{', '.join(names)}: expected a priority of its own for each")


def _refuse_gaps(
    cluster: Cluster,
    workloads: Mapping[Workload, Sequence[Pod]],
    policies: Iterable[KubernetesPolicy],
) -> None:
    """One pod cannot stand for a workload of which a selector takes some pods and not others."""
    mixed = {
        workload: BitMap(cluster.position(pod.key) for pod in pods)
        for workload, pods in workloads.items()
        if any(pod.labels != pods[0].labels for pod in pods)
    }
    for policy in policies if mixed else ():
        peers = [peer for rule in policy.rules for peer in rule.peers or ()]
        for selected in [policy.subject, *(peer for peer in peers if isinstance(peer, Pods))]:
            found = cluster.select(selected)
            for workload, pods in mixed.items():
                if found & pods and pods - found:
                    raise PolicyError(
                        f"{policy.display} selects some pods of {workload.display} and not others: "
                        "expected pods of one owner to have the labels that policies ask for alike"
                    )
