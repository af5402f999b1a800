"""From the Kubernetes layer to rules in each pod's own namespace.

A namespace sees one hop (`ringfence.policy.translate`): a consumer's the address that was dialled,
a provider's the source that is left after masquerading. NetworkPolicy speaks of the ends behind
both. So a Service is judged here as its backends are, and gets a rule of its own where judging its
address as dialled would come out otherwise. Where only some of its backends are allowed it is
admitted whole, and the pod's node denies the others behind it; where nodes put their own address on
what they send to a backend an ALLOW admits those, and the rule for the pod's own node all that this
one sends; all are reported as widenings.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import AddressRange, subtract, union
from ringfence.model.verdict import Decision
from ringfence.model.workload import Backend
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.evaluate import Order
from ringfence.policy.fronts import Front, Fronts, fits
from ringfence.policy.handle import format_handle
from ringfence.policy.kubernetes.dialled import Decided, Dialled
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.layer import OrderedRule
from ringfence.policy.outbound import partly_meant
from ringfence.policy.program import Behind, Rule, SetId
from ringfence.policy.sets import AddressSets, family_of, of_addresses
from ringfence.policy.translate import Widening

Ranges = tuple[AddressRange, ...]
Places = tuple[int, ...]
"""Of rules in a layer, in order."""


@dataclass
class _Made:
    """The rules of pods that are alike, and what they admit beyond the policies."""

    rules: list[Rule] = field(default_factory=list)
    widenings: list[tuple[Decision, str]] = field(default_factory=list)


class KubernetesTranslator:
    """Turns a layer into the rules of each pod that it may deny something.

    Sets and fronts are those of the inventory, which other layers share.
    """

    def __init__(self, layer: KubernetesLayer, sets: AddressSets, fronts: Fronts) -> None:
        self._layer, self._sets, self._fronts = layer, sets, fronts
        self._snapshot = layer.snapshot
        self._order = Order(layer.rules)
        self._ends: dict[str, tuple[str, Ranges]] = {}
        """Who peers are, by how policies name them."""
        self._decisions: dict[str, Decision] = {}
        """By handle."""
        self._widenings: dict[Widening, None] = {}
        self._dialled = cache(lambda cluster: Dialled(cluster, fronts, sets))

    @property
    def widenings(self) -> tuple[Widening, ...]:
        """What the rules made so far admit beyond their policies."""
        return tuple(self._widenings)

    def rules(self, direction: Direction) -> dict[int, list[Rule]]:
        """The rules of pods by position, none of those that nothing is denied."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, rule in enumerate(self._layer.rules):
            for at in rule.members if rule.decides(direction) else ():
                places[at].append(place)
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for at, held in places.items():
            if self._order.denies[held].any():
                beside = self._beside(at) if direction is Direction.INBOUND else ()
                alike[tuple(held), beside].append(at)
        found: dict[int, list[Rule]] = {}
        for pods in alike.values():
            made = self._translate(tuple(places[pods[0]]), pods[0], direction)
            for at in pods:
                found[at] = made.rules
                key = self._snapshot.items[at].key
                for decision, text in made.widenings:
                    self._widenings[Widening(decision, key, text)] = None
        return found

    def _beside(self, at: int) -> tuple[object, ...]:
        """What tells the rules of a pod from those of another for which the same ones count."""
        behind = ((front.service.key, b.protocol, b.port) for front, b in self._masqueraded(at))
        return int(self._layer.own_nodes[at]), *behind

    def _masqueraded(self, at: int) -> list[tuple[Front, Backend]]:
        served = self._fronts.served_by(at)
        return [(front, backend) for front, backend in served if front.masquerades]

    def _translate(self, places: Places, at: int, direction: Direction) -> _Made:
        made = _Made()
        stages = []
        counting = [self._layer.rules[place] for place in places]
        for _, some in groupby(counting, key=lambda rule: rule.decision.stage):
            reached = _reached(some)
            stages.append([r for one in reached for r in self._stated(one, at, counting, made)])
        if direction is Direction.INBOUND:
            made.rules += self._from_nodes(counting, at, made)
        rules = self._in_order(stages)
        if direction is Direction.OUTBOUND:
            made.rules += self._to_services(rules, at, made)
        made.rules += rules
        return made

    def _in_order(self, stages: Sequence[list[Rule]]) -> list[Rule]:
        """One list of ALLOW and DENY: what PASS leaves to later stages stands in its place."""
        if not stages:
            return []
        later = self._in_order(stages[1:])
        found = []
        for rule in stages[0]:
            if rule.action is Action.PASS:
                found += [both for one in later if (both := self._both(rule, one))]
            else:
                found.append(rule)
        return found + later

    def _both(self, passed: Rule, later: Rule) -> Rule | None:
        """The later rule for what is passed, None where they have nothing in common."""
        protocol = passed.protocol if later.protocol is None else later.protocol
        if passed.protocol not in (None, protocol):
            return None
        ports = passed.ports if not later.ports else later.ports
        if passed.ports and later.ports:
            ports = tuple(
                PortRange(max(one.first, other.first), min(one.last, other.last))
                for one in passed.ports
                for other in later.ports
                if one.first <= other.last and other.first <= one.last
            )
            if not ports:
                return None
        peers = later.peers if passed.peers is None else passed.peers
        if passed.peers is not None and later.peers is not None:
            peers = self._sets.both(passed.peers, later.peers)
        return replace(later, protocol=protocol, ports=ports, peers=peers)

    def _stated(
        self, rule: OrderedRule, at: int, counting: Sequence[OrderedRule], made: _Made
    ) -> Iterator[Rule]:
        """What one of the rules that count says in the pod's namespace.

        Services as consumers dial them are left aside.
        """
        inbound = rule.direction is Direction.INBOUND
        end = rule.consumer if inbound else rule.provider
        handle = format_handle(rule.decision)
        self._decisions[handle] = rule.decision
        if end.anyone:
            yield Rule(handle, rule.action, rule.protocol, rule.ports, None)
            return
        meaning, ranges = self._peers(end, at)
        peers = self._sets.name(meaning, ranges)
        if inbound and rule.consumer.own_node and ranges:
            yield from self._own_node(rule, at, peers, counting, made)
        yield Rule(handle, rule.action, rule.protocol, rule.ports, peers)

    def _from_nodes(self, counting: Sequence[OrderedRule], at: int, made: _Made) -> Iterator[Rule]:
        """Rules ahead of the others, on the addresses that nodes put on what they send to the pod.

        Whoever it was, the pod sees a node. So nodes are admitted where anybody is.
        """
        for front, backend in self._masqueraded(at):
            passed, admitting = self._admitting(counting, at, backend)
            if admitting is None or (self._is_all(admitting.consumer, at, backend) and not passed):
                continue
            named, nodes = self._nodes(front.service.cluster)
            cause = _masquerading(front)
            for rule in passed:
                text = f"does not decide on node addresses: {cause}"
                made.widenings.append((rule.decision, text))
            text = f"admits node addresses to port {backend.port}: {cause}"
            made.widenings.append((admitting.decision, text))
            handle = format_handle(admitting.decision, widened=True)
            ports = (PortRange(backend.port, backend.port),)
            peers = self._sets.name(named, nodes)
            yield Rule(handle, Action.ALLOW, backend.protocol, ports, peers)

    def _is_all(self, end: ResolvedEnd, at: int, backend: Backend) -> bool:
        """Whether the end is every address from which the backend can be dialled."""
        everyone = family_of(backend.address)
        return end.anyone or not subtract(everyone, self._peers(end, at)[1])

    def _admitting(
        self, counting: Sequence[OrderedRule], at: int, backend: Backend
    ) -> tuple[list[OrderedRule], OrderedRule | None]:
        """The first rule that allows somebody at the backend, and those ahead that do not.

        Which speak of some sources, not of all; the pod's own node is left aside.
        """
        ahead: list[OrderedRule] = []
        for _, stage in groupby(counting, key=lambda rule: rule.decision.stage):
            passes = False
            for rule in stage:
                end = rule.consumer
                fit = fits(backend.protocol, backend.port, rule.protocol, rule.ports)
                if not fit or end.own_node or not (end.anyone or self._peers(end, at)[1]):
                    continue
                if rule.action is Action.ALLOW:
                    return ahead, rule
                passes |= rule.action is Action.PASS
                if not self._is_all(end, at, backend):
                    ahead.append(rule)
                elif passes:
                    break
                else:
                    return ahead, None
        return ahead, None

    def _own_node(
        self, own: OrderedRule, at: int, node: SetId, counting: Sequence[OrderedRule], made: _Made
    ) -> Iterator[Rule]:
        """Where the pod's node sends more than its own: later rules would deny some of that."""
        later = counting[counting.index(own) + 1 :]
        for front, backend in self._masqueraded(at):
            for rule in later:
                fit = fits(backend.protocol, backend.port, rule.protocol, rule.ports)
                if fit and (rule.consumer.anyone or rule.action is Action.DENY):
                    break
            if rule.action is not Action.DENY:
                continue
            text = f"admits all to port {backend.port} by way of the pod's own node"
            made.widenings.append((own.decision, f"{text}: {_masquerading(front)}"))
            ports = (PortRange(backend.port, backend.port),)
            widened = format_handle(own.decision, widened=True)
            yield Rule(widened, Action.ALLOW, backend.protocol, ports, node)

    def _peers(self, end: ResolvedEnd, at: int) -> tuple[str, Ranges]:
        """A name that holds as long as policies name these peers, and the addresses of now."""
        if end.own_node:
            node = int(self._layer.own_nodes[at])
            if node == NOWHERE:
                return "nobody", ()
            return f"node {self._snapshot.items[node].key}", self._sets.of_items([node])
        if end.part not in self._ends:
            cluster = self._snapshot.items[at].cluster
            ranges = union((*end.ranges, *self._sets.of_items(end.items)))
            self._ends[end.part] = f"{cluster} {end.part}", ranges
        return self._ends[end.part]

    # --- Services, which a consumer dials ---

    def _to_services(self, rules: Sequence[Rule], at: int, made: _Made) -> Iterator[Rule]:
        """Rules ahead of the others, for what these would get wrong before DNAT."""
        cluster = self._snapshot.items[at].cluster
        alike = " ".join(f"{r.handle} {r.protocol} {r.ports} {r.peers}" for r in rules)
        dialled: dict[tuple[str, Action, int, int], set[Address]] = defaultdict(set)
        node_ports: dict[tuple[ClusterId, str, Action, int], set[int]] = defaultdict(set)
        decided = self._dialled(cluster).decided(rules)
        for one in decided:
            if one.denied:
                yield from self._behind(one, cluster, alike)
        for one in decided:
            port, handle = one.front.port, one.rule.handle
            if one.denied:
                text = partly_meant(one.front, Action.ALLOW, judged=True)
                made.widenings.append((self._decisions[handle], text))
                handle = format_handle(self._decisions[handle], widened=True)
            for address in one.addresses:
                dialled[handle, one.rule.action, port.protocol, port.port].add(address)
            if port.node_port:
                key = one.front.service.cluster, handle, one.rule.action, port.protocol
                node_ports[key].add(port.node_port)
        for (handle, action, protocol, number), addresses in sorted(dialled.items()):
            meaning = f"Services {cluster} {protocol}/{number} {handle} {action} by {alike}"
            peers = self._sets.name(meaning, of_addresses(addresses))
            yield Rule(handle, action, protocol, (PortRange(number, number),), peers)
        for (where, handle, action, protocol), numbers in sorted(node_ports.items()):
            ports = tuple(PortRange(number, number) for number in sorted(numbers))
            yield Rule(handle, action, protocol, ports, self._sets.name(*self._nodes(where)))

    def _behind(self, one: Decided, cluster: ClusterId, alike: str) -> Iterator[Rule]:
        """What denies those backends of a Service that are denied, behind its address."""
        port, service = one.front.port, one.front.service.key
        denied: dict[tuple[str, int], set[Address]] = defaultdict(set)
        for rule, backend in one.denied:
            denied[rule.handle, backend.port].add(backend.address)
        own = f"Service {cluster} {service} {port.protocol}/{port.port} by {alike}"
        fronts = []
        if one.addresses:
            fronts.append((self._sets.name(own, of_addresses(one.addresses)), port.port))
        if port.node_port:
            nodes = self._sets.name(*self._nodes(one.front.service.cluster))
            fronts.append((nodes, port.node_port))
        for (handle, number), addresses in sorted(denied.items()):
            meaning = f"backends at {number} that {handle} denies of {own}"
            peers = self._sets.name(meaning, of_addresses(addresses))
            behind = Behind(peers, (PortRange(number, number),))
            for dialled, at in fronts:
                ports = (PortRange(at, at),)
                yield Rule(handle, Action.DENY, port.protocol, ports, dialled, behind=behind)

    def _nodes(self, cluster: ClusterId) -> tuple[str, Ranges]:
        addresses = self._fronts.node_addresses.get(cluster, ())
        return f"nodes of {cluster}", of_addresses(addresses)


def _reached(rules: Iterable[OrderedRule]) -> Iterator[OrderedRule]:
    """The rules of a stage up to the one that decides over everything."""
    for rule in rules:
        yield rule
        inbound = rule.direction is Direction.INBOUND
        if rule.protocol is None and (rule.consumer if inbound else rule.provider).anyone:
            return


def _masquerading(front: Front) -> str:
    return f"nodes masquerade what they receive for Service {front.service.display}"
