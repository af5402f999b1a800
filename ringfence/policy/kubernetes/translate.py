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
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from ringfence.inventory.living import Alteration, Living
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import AddressRange, subtract, union
from ringfence.model.verdict import Decision
from ringfence.model.workload import Backend, ItemKind
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fronts import Front, Fronts, fits
from ringfence.policy.handle import format_handle
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.dialled import Decided, Dialled
from ringfence.policy.kubernetes.kept import KeptPolicies, Stated, denies
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.layer import OrderedRule
from ringfence.policy.outbound import partly_meant
from ringfence.policy.program import Behind, Rule, SetId
from ringfence.policy.sets import AddressSets, family_of, of_addresses
from ringfence.policy.translate import Widening

Ranges = tuple[AddressRange, ...]


@dataclass
class _Made:
    """The rules of pods that are alike, and what they admit beyond the policies."""

    rules: list[Rule] = field(default_factory=list)
    widenings: list[tuple[Decision, str]] = field(default_factory=list)


class KubernetesTranslator:
    """Turns a cluster's policies into the rules of each pod that they may deny something.

    Sets and fronts are those of the inventory, which other layers share. As it changes they are
    brought up to date first.
    """

    def __init__(
        self, layer: KubernetesLayer, living: Living, sets: AddressSets, fronts: Fronts
    ) -> None:
        assert isinstance(layer.cluster, LiveCluster)
        self._living, self._sets, self._fronts = living, sets, fronts
        self._cluster = LiveCluster(living, layer.cluster.name)
        self._ends: dict[str, Ranges] = {}
        """Who peers are, by how policies name them."""
        self._dialled: Dialled | None = None
        self._widenings: dict[Direction, dict[int, list[tuple[Decision, str]]]] = {
            direction: {} for direction in Direction
        }
        self.widened_anew = True
        """Whether the inventory's last change gave other widenings."""
        self._policies = KeptPolicies(self._cluster, layer.policies, layer.source, self._state)

    @property
    def pods(self) -> Collection[int]:
        """Those that a policy selects."""
        return self._policies.pods

    @property
    def widenings(self) -> Iterator[Widening]:
        """What the rules made so far admit beyond their policies."""
        for by_pod in self._widenings.values():
            for at, found in by_pod.items():
                key = self._living.items[at].key
                yield from (Widening(decision, key, text) for decision, text in found)

    def follow(self, alterations: Collection[Alteration]) -> set[int] | None:
        """The inventory has changed so; the positions for which `rules` may be others.

        None, with nothing of it holding any more, where all must be made anew.
        """
        self._ends.clear()
        self.widened_anew = False
        found = self._policies.follow(alterations)
        if found is None:
            return None
        for one in alterations:
            for address in one.addresses:
                found.update(self._living.holding(address))
            if one.kind is ItemKind.SERVICE and one.before != one.after:
                # What any pod dials may come to somebody else.
                self._dialled = None
                found.update(self._policies.pods)
        return found

    def rules(self, direction: Direction, pods: Iterable[int]) -> dict[int, list[Rule]]:
        """The rules of these positions, none of those that nothing is denied."""
        alike: dict[object, list[int]] = defaultdict(list)
        of_first: dict[object, list[Stated]] = {}
        widened = self._widenings[direction]
        before = {at: widened.pop(at) for at in pods if at in widened}
        for at in sorted(pods):
            counting = self._policies.counting(at, direction)
            if not denies(counting):
                continue
            beside = self._beside(at) if direction is Direction.INBOUND else ()
            key = tuple(map(id, counting)), beside
            of_first.setdefault(key, counting)
            alike[key].append(at)
        found: dict[int, list[Rule]] = {}
        for which, some in alike.items():
            made = self._translate(of_first[which], some[0], direction)
            for at in some:
                found[at] = made.rules
                if made.widenings:
                    widened[at] = made.widenings
        self.widened_anew |= before != {at: widened[at] for at in pods if at in widened}
        return found

    def _beside(self, at: int) -> tuple[object, ...]:
        """What tells the rules of a pod from those of another for which the same ones count."""
        behind = ((front.service.key, b.protocol, b.port) for front, b in self._masqueraded(at))
        return self._living.runner(at), *behind

    def _masqueraded(self, at: int) -> list[tuple[Front, Backend]]:
        served = self._fronts.served_by(at)
        return [(front, backend) for front, backend in served if front.masquerades]

    def _translate(self, counting: Sequence[Stated], at: int, direction: Direction) -> _Made:
        made = _Made()
        rules = [one.rule for one in counting]
        stages = []
        for _, some in groupby(counting, key=lambda one: one.rule.decision.stage):
            reached = _reached(some)
            stages.append([r for one in reached for r in self._stated(one, at, rules, made)])
        if direction is Direction.INBOUND:
            made.rules += self._from_nodes(rules, at, made)
        in_order = self._in_order(stages)
        if direction is Direction.OUTBOUND and (decided := self._decided(in_order)):
            made.rules += self._to_services(decided, in_order, counting, made)
        made.rules += in_order
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

    def _state(self, rule: OrderedRule) -> Stated:
        """What a rule says in a pod's namespace, Services as consumers dial them left aside."""
        end = rule.consumer if rule.direction is Direction.INBOUND else rule.provider
        peers = None
        if not (end.anyone or end.own_node):
            peers = self._sets.name(f"{self._cluster.name} {end.part}", self._peers(end))
        handle = format_handle(rule.decision)
        return Stated(rule, Rule(handle, rule.action, rule.protocol, rule.ports, peers))

    def _stated(
        self, one: Stated, at: int, counting: Sequence[OrderedRule], made: _Made
    ) -> Iterator[Rule]:
        """What one of the rules that count says in the namespace of a pod."""
        if not one.rule.consumer.own_node:
            yield one.said
            return
        node = self._living.runner(at)
        meaning = "nobody" if node == NOWHERE else f"node {self._living.items[node].key}"
        ranges = self._of_node(at)
        peers = self._sets.name(meaning, ranges)
        if ranges:
            yield from self._own_node(one.rule, at, peers, counting, made)
        yield replace(one.said, peers=peers)

    def _from_nodes(self, counting: Sequence[OrderedRule], at: int, made: _Made) -> Iterator[Rule]:
        """Rules ahead of the others, on the addresses that nodes put on what they send to the pod.

        Whoever it was, the pod sees a node. So nodes are admitted where anybody is.
        """
        for front, backend in self._masqueraded(at):
            passed, admitting = self._admitting(counting, backend)
            if admitting is None or (self._is_all(admitting.consumer, backend) and not passed):
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

    def _is_all(self, end: ResolvedEnd, backend: Backend) -> bool:
        """Whether the end is every address from which the backend can be dialled."""
        everyone = family_of(backend.address)
        return end.anyone or not subtract(everyone, self._peers(end))

    def _admitting(
        self, counting: Sequence[OrderedRule], backend: Backend
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
                if not fit or end.own_node or not (end.anyone or self._peers(end)):
                    continue
                if rule.action is Action.ALLOW:
                    return ahead, rule
                passes |= rule.action is Action.PASS
                if not self._is_all(end, backend):
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

    def _peers(self, end: ResolvedEnd) -> Ranges:
        """The addresses of now of an end that is not everybody's, nor the own node's."""
        if end.part not in self._ends:
            self._ends[end.part] = union((*end.ranges, *self._sets.of_items(end.items)))
        return self._ends[end.part]

    def _of_node(self, at: int) -> Ranges:
        node = self._living.runner(at)
        return () if node == NOWHERE else self._sets.of_items([node])

    # --- Services, which a consumer dials ---

    def _decided(self, rules: Sequence[Rule]) -> list[Decided]:
        if self._dialled is None:
            self._dialled = Dialled(self._cluster.name, self._fronts, self._sets)
        return self._dialled.decided(rules)

    def _to_services(
        self,
        decided: Sequence[Decided],
        rules: Iterable[Rule],
        counting: Iterable[Stated],
        made: _Made,
    ) -> Iterator[Rule]:
        """Rules ahead of the others, for what these would get wrong before DNAT."""
        cluster = self._cluster.name
        decisions = {one.said.handle: one.rule.decision for one in counting}
        alike = " ".join(map(_text, rules))
        dialled: dict[tuple[str, Action, int, int], set[Address]] = defaultdict(set)
        node_ports: dict[tuple[ClusterId, str, Action, int], set[int]] = defaultdict(set)
        for one in decided:
            if one.denied:
                yield from self._behind(one, cluster, alike)
        for one in decided:
            port, handle = one.front.port, one.rule.handle
            if one.denied:
                text = partly_meant(one.front, Action.ALLOW, judged=True)
                made.widenings.append((decisions[handle], text))
                handle = format_handle(decisions[handle], widened=True)
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


def _reached(counting: Iterable[Stated]) -> Iterator[Stated]:
    """The rules of a stage up to the one that decides over everything."""
    for one in counting:
        yield one
        rule = one.rule
        inbound = rule.direction is Direction.INBOUND
        if rule.protocol is None and (rule.consumer if inbound else rule.provider).anyone:
            return


def _text(rule: Rule) -> str:
    return f"{rule.handle} {rule.protocol} {rule.ports} {rule.peers}"


def _masquerading(front: Front) -> str:
    return f"nodes masquerade what they receive for Service {front.service.display}"
