"""From intent to rules: what each enforced policy means in each workload's own namespace.

A rule in a namespace sees one hop. A consumer's sees the address that was dialled, before DNAT;
a provider's sees the source that is left after masquerading; a node's, before DNAT, sees both as
sent. Where a rule cannot be exact the kernel may allow more than the policy says, never less, and
every such widening is reported:

- a policy on workloads admits the Services in front of them: ALLOW if it means any of a Service's
  backends, DENY if it means all of them;
- a provider behind a masquerading NodePort or load balancer admits node addresses, and the rule
  of the node that receives the connection carries the true source;
- a pod that dials its own Service comes back from an address of its node, so an ALLOW that names
  the pod at both ends admits those;
- a policy on a Service meets at a backend whatever reaches the same target port, so a DENY is
  left to the consumers if another Service shares that port.

A LOG decides nothing and becomes no rule: what it matches is found among the flows that agents
report, whatever becomes of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import Decision
from ringfence.model.workload import Backend, ItemKind
from ringfence.policy.ends import ResolvedEnd, subtract
from ringfence.policy.fronts import Front, Fronts, but_ports, fits
from ringfence.policy.handle import format_handle
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import PolicySet
from ringfence.policy.program import Rule, SetId
from ringfence.policy.sets import AddressSets, of_addresses, within
from ringfence.policy.who import Ranges, Who


@dataclass(frozen=True, slots=True)
class Widening:
    """At a workload the rules of a decision admit more than it says; `text` says what."""

    decision: Decision
    workload: ItemKey
    text: str


@dataclass(frozen=True, slots=True)
class _Made:
    """A rule that a policy became, and what it admits beyond the policy, if anything.

    Without a rule, the policy denies less here than it says.
    """

    rule: Rule | None
    widening: str = ""


class Translator:
    """Turns the rules of a policy set into those of each workload's namespace, in order."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.sets = AddressSets(policy_set.snapshot)
        self.fronts = Fronts(policy_set.snapshot)
        self._who = Who(policy_set, self.sets, self.fronts)
        self._policy_set = policy_set
        self._snapshot = policy_set.snapshot
        self._service_ranges = of_addresses(
            address for front in self.fronts.all for address in front.addresses
        )
        self._made: dict[tuple[object, ...], list[_Made]] = {}
        self._widenings: dict[Widening, None] = {}

    @property
    def widenings(self) -> tuple[Widening, ...]:
        """What the rules made so far admit beyond their policies."""
        return tuple(self._widenings)

    def rules(self, direction: Direction) -> dict[int, list[Rule]]:
        """The rules of each governed workload's own namespace, by its position."""
        found: dict[int, list[Rule]] = {at: [] for at in self._policy_set.governed}
        for rule in self._policy_set.rules:
            if not rule.decides(direction) or rule.action is Action.LOG:
                continue
            outbound = direction is Direction.OUTBOUND
            for at in rule.members & self._meant(rule, outbound=outbound):
                made = self._outbound(rule, at) if outbound else self._inbound(rule, at)
                found[at] += self._keep(rule, at, made)
        return found

    def received(self) -> dict[int, list[Rule]]:
        """The rules of each governed node on what it receives for Services, before DNAT."""
        found: dict[int, list[Rule]] = {}
        for at in self._policy_set.governed:
            if self._snapshot.items[at].kind is ItemKind.NODE:
                found[at] = []
        for rule in self._policy_set.rules:
            if rule.action is Action.LOG or not rule.decides(Direction.INBOUND):
                continue
            if rule.provider.services or rule.provider.anyone:
                for at in rule.members & BitMap(found):
                    found[at] += self._keep(rule, at, self._received(rule, at))
        return found

    def _keep(self, rule: OrderedRule, at: int, made: Iterable[_Made]) -> Iterator[Rule]:
        for one in made:
            if one.widening:
                key = self._snapshot.items[at].key
                self._widenings[Widening(rule.decision, key, one.widening)] = None
            if one.rule is not None:
                yield one.rule

    def _meant(self, rule: OrderedRule, *, outbound: bool) -> BitMap:
        """The positions of the workloads that are the rule's own end in that direction."""
        end, other = (rule.consumer, rule.provider) if outbound else (rule.provider, rule.consumer)
        if end.anyone:
            return self._policy_set.governed
        found = end.items | self.sets.holders(end.ranges)
        if end.own_node:
            found |= self._who.nodes_of(other)
        if not outbound:
            for front in self.fronts.of_services(end.services, rule.protocol, rule.ports):
                found |= self.sets.holders(of_addresses(b.address for b in front.backends))
        return found

    def _outbound(self, rule: OrderedRule, at: int) -> list[_Made]:
        """The rules in the consumer's namespace: towards what is dialled."""
        end = rule.provider
        local = self._who.local(rule, rule.consumer, at, consumer=True)
        cluster = self._snapshot.items[at].cluster if end.same_cluster else None
        own = at if end.own_node or rule.consumer.own_node else NOWHERE
        part = rule.consumer.part, end.part, rule.ports
        key = (rule.decision.place, part, local, cluster, own)
        if key not in self._made:
            self._made[key] = list(self._towards(rule, at, local))
        return self._made[key]

    def _towards(self, rule: OrderedRule, at: int, local: SetId | None) -> Iterator[_Made]:
        end = rule.provider
        if _everyone(end, rule.consumer) and not rule.ports:
            yield _Made(self._rule(rule, None, rule.protocol, (), local))
            return
        if end.services:
            cluster = self._snapshot.items[at].cluster if end.same_cluster else ""
            fronts = self.fronts.of_services(end.services, rule.protocol, rule.ports)
            meant = [front for front in fronts if cluster in ("", front.service.cluster)]
            named = self._who.side(rule, at, consumer=False)[0]
            yield from self._to_fronts(rule, named, meant, local)
            yield from self._to_backends(rule, named, meant, local)
            return
        meaning, ranges = self._who.side(rule, at, consumer=False)
        nodes = of_addresses(
            address
            for cluster in sorted(self.fronts.node_ports)
            for address in self.fronts.node_addresses.get(cluster, ())
            if within(address, ranges)
        )
        taken = self.fronts.taken(rule.protocol, rule.ports) if nodes else {}
        if taken and rule.action is Action.ALLOW:
            yield _Made(None, "admits node ports along with the nodes that it means")
        elif taken:
            # A node port is met after DNAT, so denying a node must leave its node ports alone.
            ranges = subtract(ranges, nodes)
            meaning = f"{meaning} but nodes"
            peers = self.sets.name(f"nodes of {meaning}", nodes)
            for protocol, ports in but_ports(rule.protocol, rule.ports, taken):
                yield _Made(self._rule(rule, peers, protocol, ports, local))
            if rule.protocol is None:
                yield _Made(None, "denies nodes nothing but ICMP and protocols with ports")
        if end.ranges or end.anyone:
            # What stands behind a Service is met after DNAT, never its own address.
            meaning = f"{meaning} but Services"
            ranges = subtract(ranges, self._service_ranges)
        peers = self.sets.name(meaning, ranges)
        yield _Made(self._rule(rule, peers, rule.protocol, rule.ports, local))
        yield from self._through_fronts(rule, *self._who.side(rule, at, consumer=False), local)

    def _through_fronts(
        self, rule: OrderedRule, named: str, ranges: Ranges, local: SetId | None
    ) -> Iterator[_Made]:
        """The Services in front of the providers: their backends are chosen after this hop."""
        whole: list[Front] = []
        for front in self.fronts.before(self.sets.holders(ranges)):
            meant = [
                within(b.address, ranges) and fits(b.protocol, b.port, rule.protocol, rule.ports)
                for b in front.backends
            ]
            name = f"{front.service.display}:{front.port.port}"
            if all(meant):
                whole.append(front)
            elif any(meant) and rule.action is Action.ALLOW:
                text = f"admits all backends of Service {name}, of which it means only some"
                yield from self._to_fronts(rule, named, [front], local, text)
            elif any(meant):
                text = f"does not deny Service {name}: it means only some of its backends"
                yield _Made(None, text)
        yield from self._to_fronts(rule, named, whole, local)

    def _to_fronts(
        self,
        rule: OrderedRule,
        named: str,
        fronts: Iterable[Front],
        local: SetId | None,
        widening: str = "",
    ) -> Iterator[_Made]:
        """Rules towards the addresses of Services and towards their node ports."""
        dialled: dict[tuple[ClusterId, int, int], set[Address]] = {}
        node_ports: dict[tuple[ClusterId, int], set[int]] = {}
        for front in fronts:
            port, cluster = front.port, front.service.cluster
            key = cluster, port.protocol, port.port
            dialled.setdefault(key, set()).update(front.addresses)
            if port.node_port:
                node_ports.setdefault((cluster, port.protocol), set()).add(port.node_port)
        for (cluster, protocol, number), addresses in sorted(dialled.items()):
            if addresses:
                meaning = f"fronts of {named} {rule.ports} {cluster} {protocol}/{number} {widening}"
                peers = self.sets.name(meaning, of_addresses(addresses))
                ports = (PortRange(number, number),)
                yield _Made(self._rule(rule, peers, protocol, ports, local, widening), widening)
        for (cluster, protocol), numbers in sorted(node_ports.items()):
            node_port = tuple(PortRange(number, number) for number in sorted(numbers))
            nodes = self._who.nodes(cluster)
            yield _Made(self._rule(rule, nodes, protocol, node_port, local, widening), widening)

    def _to_backends(
        self, rule: OrderedRule, named: str, fronts: Iterable[Front], local: SetId | None
    ) -> Iterator[_Made]:
        """Rules towards the backends: dialled directly, or by a socket-level load balancer."""
        dialled: dict[tuple[ClusterId, int, int], set[Address]] = {}
        for front in fronts:
            for backend in front.backends:
                key = front.service.cluster, backend.protocol, backend.port
                dialled.setdefault(key, set()).add(backend.address)
        for (cluster, protocol, port), addresses in sorted(dialled.items()):
            meaning = f"backends of {named} {rule.ports} {cluster} {protocol}/{port}"
            peers = self.sets.name(meaning, of_addresses(addresses))
            yield _Made(self._rule(rule, peers, protocol, (PortRange(port, port),), local))

    def _inbound(self, rule: OrderedRule, at: int) -> Iterator[_Made]:
        """The rules in the provider's namespace: from what is left of the consumer."""
        if rule.provider.services:
            yield from self._behind_services(rule, at)
            return
        behind = [
            (front, backend)
            for front, backend in self.fronts.served_by(at)
            if fits(backend.protocol, backend.port, rule.protocol, rule.ports)
        ]
        peers, text = self._sources(rule, at, (front for front, _ in behind))
        local = self._who.local(rule, rule.provider, at, consumer=False)
        yield _Made(self._rule(rule, peers, rule.protocol, rule.ports, local), text)
        for front, backend in behind:
            yield from self._masqueraded(rule, at, front, backend)

    def _behind_services(self, rule: OrderedRule, at: int) -> Iterator[_Made]:
        """The rules of a backend of the Services that the policy names."""
        end = rule.provider
        fronts = self.fronts.of_services(end.services, rule.protocol, rule.ports)
        meant = {id(front) for front in fronts}
        for front, backend in self.fronts.served_by(at):
            if id(front) not in meant:
                continue
            text = ""
            if self.fronts.shared(backend):
                text = f"port {backend.port} here, to which another Service leads too"
                if rule.action is Action.DENY:
                    yield _Made(None, f"does not deny {text}")
                    continue
                text = f"admits its consumers to {text}"
            cluster = front.service.cluster if end.same_cluster else None
            peers, spared = self._sources(rule, at, [front], cluster)
            ports = (PortRange(backend.port, backend.port),)
            yield _Made(self._rule(rule, peers, backend.protocol, ports, None, text), text)
            if spared:
                yield _Made(None, spared)
            yield from self._masqueraded(rule, at, front, backend)

    def _sources(
        self,
        rule: OrderedRule,
        at: int,
        fronts: Iterable[Front],
        cluster: ClusterId | None = None,
    ) -> tuple[SetId | None, str]:
        """The consumers as a provider behind the fronts sees them, and the widening of a DENY.

        Whoever comes masqueraded comes from a node address, so a DENY must spare those.
        """
        masquerading = [front for front in fronts if front.masquerades]
        everyone = _everyone(rule.consumer, rule.provider)
        if rule.action is Action.ALLOW or everyone or not masquerading:
            return self._peers(rule, at, cluster), ""
        meaning, ranges = self._who.side(rule, at, consumer=True)
        homes = sorted({front.service.cluster for front in masquerading})
        nodes = [node for home in homes for node in self.fronts.node_addresses.get(home, ())]
        spared = subtract(ranges, (*of_addresses(nodes), *self._who.foreign(cluster)))
        peers = self.sets.name(f"{meaning} but nodes of {homes}, for {cluster}", spared)
        if not any(within(node, ranges) for node in nodes):
            return peers, ""
        return peers, "does not deny node addresses: nodes masquerade what they receive for it"

    def _masqueraded(
        self, rule: OrderedRule, at: int, front: Front, backend: Backend
    ) -> Iterator[_Made]:
        """Node addresses, where a node puts its own on what it sends to the backend."""
        if rule.action is Action.DENY or rule.consumer.anyone:
            return
        ranges = self._who.side(rule, at, consumer=True)[1]
        if front.masquerades:
            named, nodes = self._who.nodes_in(front.service.cluster)
            cause = "nodes masquerade what they receive for"
        elif within(backend.address, ranges):
            named, nodes = self._who.own_node(at)
            cause = "nodes masquerade what pods send themselves through"
        else:
            return
        if not subtract(nodes, ranges):
            return
        service = front.service.display
        text = f"admits node addresses to port {backend.port}: {cause} Service {service}"
        ports, peers = (PortRange(backend.port, backend.port),), self.sets.name(named, nodes)
        yield _Made(self._rule(rule, peers, backend.protocol, ports, None, text), text)

    def _received(self, rule: OrderedRule, at: int) -> Iterator[_Made]:
        """The rules of a node that receives connections for Services, before DNAT."""
        cluster = self._snapshot.items[at].cluster
        if rule.action is Action.DENY and rule.consumer.own_node:
            # Which pod a connection will reach, and so whose node it is, shows after DNAT.
            yield _Made(None, "does not deny here what nodes send to pods that they run")
            return
        sources = [(self._peers(rule, at, cluster if rule.provider.same_cluster else None), "")]
        if self._comes_from_pods(rule, cluster):
            text = "admits node addresses to node ports: nodes masquerade what their pods send"
            sources.append((self._who.nodes(cluster), text))
        fronts = [
            front
            for front in self.fronts.of_services(rule.provider.services, rule.protocol, rule.ports)
            if front.service.cluster == cluster
        ]
        for peers, text in sources:
            if rule.provider.anyone:
                yield _Made(self._rule(rule, peers, rule.protocol, rule.ports, None, text), text)
            for front in fronts:
                port = front.port
                if port.node_port:
                    ports = (PortRange(port.node_port, port.node_port),)
                    yield _Made(self._rule(rule, peers, port.protocol, ports, None, text), text)
                if front.external_addresses:
                    ports, local = (PortRange(port.port, port.port),), self.balancer(front)
                    yield _Made(self._rule(rule, peers, port.protocol, ports, local, text), text)

    def balancer(self, front: Front) -> SetId:
        """The set of a Service's load-balancer addresses."""
        meaning = f"load balancer of {front.service.key}"
        return self.sets.name(meaning, of_addresses(front.external_addresses))

    def _comes_from_pods(self, rule: OrderedRule, cluster: ClusterId) -> bool:
        """Whether an ALLOW names pods of the cluster, which other nodes may have masqueraded."""
        if rule.action is Action.DENY or rule.consumer.anyone:
            return False
        if rule.consumer.own_node:
            return True
        ranges = rule.consumer.ranges
        nodes = self.fronts.node_addresses.get(cluster, [])
        if ranges and all(within(node, ranges) for node in nodes):
            return False
        items = self._snapshot.items
        consumers = rule.consumer.items | self.sets.holders(ranges)
        return any(items[at].kind is ItemKind.POD for at in consumers)

    def _peers(self, rule: OrderedRule, at: int, cluster: ClusterId | None = None) -> SetId | None:
        """The consumers as a set, None for anyone; only those of one cluster if one is given."""
        foreign = self._who.foreign(cluster)
        if _everyone(rule.consumer, rule.provider) and not foreign:
            return None
        meaning, ranges = self._who.side(rule, at, consumer=True)
        if foreign:
            meaning, ranges = f"{meaning} in {cluster}", subtract(ranges, foreign)
        return self.sets.name(meaning, ranges)

    def _rule(
        self,
        rule: OrderedRule,
        peers: SetId | None,
        protocol: int | None,
        ports: tuple[PortRange, ...],
        local: SetId | None,
        widening: str = "",
    ) -> Rule:
        handle = self._handle(rule, widened=bool(widening))
        return Rule(handle, rule.action, protocol, ports, peers, local)

    def _handle(self, rule: OrderedRule, *, widened: bool = False) -> str:
        return format_handle(rule.decision, widened=widened)


def _everyone(end: ResolvedEnd, other: ResolvedEnd) -> bool:
    """Whether the end is every address: beside an own node it is only those that the node runs."""
    return end.anyone and not other.own_node
