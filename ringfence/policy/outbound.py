"""What a policy becomes in its consumer's namespace: rules towards what is dialled, before DNAT."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange, disjoint
from ringfence.model.ranges import subtract
from ringfence.model.workload import ItemKind
from ringfence.policy.fronts import Front, but_ports, fits
from ringfence.policy.hop import Hop, everyone
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import Behind, SetId
from ringfence.policy.sets import EVERYWHERE, of_addresses, within
from ringfence.policy.who import NODE_PORTS, SERVICE_ADDRESSES, Ranges, Served, Who


class Outbound:
    """Makes the rules of consumers' namespaces."""

    def __init__(self, who: Who) -> None:
        self._who = who
        self._known: dict[tuple[object, ...], tuple[Hop, ...]] = {}
        self._in_front: dict[tuple[object, ...], list[tuple[Front, bool]]] = {}

    def rules(self, rule: OrderedRule, at: int) -> tuple[Hop, ...]:
        """The rules in the consumer's namespace: towards what is dialled."""
        end = rule.provider
        local = self._who.local(rule, rule.consumer, at, consumer=True)
        cluster = self._who.snapshot.items[at].cluster
        own = at if end.own_node or rule.consumer.own_node else NOWHERE
        part = rule.consumer.part, end.part, rule.ports
        key = (rule.decision.place, part, local, cluster, own, self._is_routed(at))
        if key not in self._known:
            self._known[key] = tuple(self._towards(rule, at, local))
        return self._known[key]

    def _is_routed(self, at: int) -> bool:
        """Whether a node translates what the workload dials, so that it sees who answers."""
        item = self._who.snapshot.items[at]
        routed = item.kind is ItemKind.POD and not item.host_network
        return routed or item.kind is ItemKind.NODE

    def _towards(self, rule: OrderedRule, at: int, local: SetId | None) -> Iterator[Hop]:
        end, home = rule.provider, self._who.snapshot.items[at].cluster
        if everyone(end, rule.consumer) and not rule.ports:
            yield Hop.of(rule, None, rule.protocol, (), local)
            return
        if end.services:
            cluster = home if end.same_cluster else ""
            fronts = self._who.fronts.of_services(end.services, rule.protocol, rule.ports)
            meant = [front for front in fronts if cluster in ("", front.service.cluster)]
            named, ranges = self._who.side(rule, at, consumer=False)
            if rule.consumer.own_node:
                yield from self._to_own_pods(rule, named, ranges, meant, local, home)
                return
            yield from self._to_fronts(rule, named, meant, local, home)
            yield from self._to_backends(rule, named, meant, local, home)
            return
        meaning, ranges = self._who.side(rule, at, consumer=False)
        for cluster, nodes, taken in self._taken(rule, ranges, home):
            if rule.action is Action.ALLOW:
                yield Hop(None, "admits node ports along with the nodes that it means")
                continue
            # A node port is met after DNAT, so denying a node must leave its node ports alone.
            ranges = subtract(ranges, nodes)
            meaning = f"{meaning} but nodes of {cluster}"
            meaning += "" if home == cluster else f" as {home} sees them"
            peers = self._who.sets.name(f"nodes of {meaning}", nodes)
            for protocol, ports in but_ports(rule.protocol, rule.ports, taken):
                yield Hop.of(rule, peers, protocol, ports, local)
            if rule.protocol is None:
                yield Hop(None, "denies nodes nothing but ICMP and protocols with ports")
        if end.ranges or end.anyone:
            meaning, ranges, hops = self._but_services(rule, meaning, ranges, local, home)
            yield from hops
        peers = self._who.sets.name(meaning, ranges)
        yield Hop.of(rule, peers, rule.protocol, rule.ports, local)
        meaning, ranges = self._who.side(rule, at, consumer=False)
        behind = self._behind(rule, meaning, ranges) if self._is_routed(at) else None
        yield from self._parted(rule, meaning, self._meant(rule, ranges, home), local, home, behind)

    def _but_services(
        self, rule: OrderedRule, meaning: str, ranges: Ranges, local: SetId | None, home: ClusterId
    ) -> tuple[str, Ranges, list[Hop]]:
        """The ranges without addresses of Services, and rules for what else is meant at these.

        What stands behind a Service is met after DNAT, never its own address.
        """
        self._who.snapshot.note(SERVICE_ADDRESSES)
        translated = self._who.fronts.translated(home)
        meaning, left, hops = (
            f"{meaning} but Services of {home}",
            subtract(ranges, translated.whole),
            [],
        )
        for addresses, taken in translated.ports:
            others = subtract(left, addresses)
            if others != left:
                peers = self._who.sets.name(f"{meaning} at {taken}", subtract(left, others))
                rest = but_ports(rule.protocol, rule.ports, taken)
                hops += [Hop.of(rule, peers, *dialled, local) for dialled in rest]
                left = others
        return meaning, left, hops

    def _behind(self, rule: OrderedRule, meaning: str, ranges: Ranges) -> Behind:
        """The providers as they answer behind a Service: who does is chosen after this hop."""
        peers = None if ranges == EVERYWHERE else self._who.sets.name(meaning, ranges)
        return Behind(peers, disjoint(rule.protocol, rule.ports))

    def _to_own_pods(
        self,
        rule: OrderedRule,
        named: str,
        ranges: Ranges,
        fronts: Iterable[Front],
        local: SetId | None,
        home: ClusterId,
    ) -> Iterator[Hop]:
        """The Services that a policy names, from a node as far as it runs the backends itself."""
        found, narrowed = [], []
        for front in fronts:
            mine = tuple(one for one in front.backends if within(one.address, ranges))
            if mine:
                found.append((front, len(mine) == len(front.backends)))
                narrowed.append(replace(front, backends=mine))
        yield from self._to_backends(rule, named, narrowed, local, home)
        yield from self._parted(rule, named, found, local, home)

    def _parted(
        self,
        rule: OrderedRule,
        named: str,
        fronts: Iterable[tuple[Front, bool]],
        local: SetId | None,
        home: ClusterId,
        behind: Behind | None = None,
    ) -> Iterator[Hop]:
        """Rules towards Services of which the rule means all backends, or only those `behind`."""
        whole: list[Front] = []
        for front, all_meant in fronts:
            if all_meant:
                whole.append(front)
            elif rule.action is Action.ALLOW or behind:
                text = partly_meant(front, rule.action, judged=behind is not None)
                yield from self._to_fronts(rule, named, [front], local, home, text, behind)
            else:
                yield Hop(None, partly_meant(front, rule.action, judged=False))
        yield from self._to_fronts(rule, named, whole, local, home)

    def _meant(
        self, rule: OrderedRule, ranges: Ranges, home: ClusterId
    ) -> list[tuple[Front, bool]]:
        """The Services of which the rule means a backend, and whether it means them all."""
        end = rule.provider
        if end.ranges or end.anyone or end.own_node:
            told = EVERYWHERE if end.anyone else end.ranges or ranges
            self._who.snapshot.note(Served(told))
        # Where addresses may be others', each entry notes itself what it depends on.
        place = rule.decision.place if self._who.are_foreign(home) else None
        key = ranges, rule.protocol, rule.ports, home, place
        if key not in self._in_front:
            self._in_front[key] = found = []
            for front in self._who.fronts.before(self._who.sets.holders(ranges)):
                meant = [
                    within(one.address, ranges)
                    and fits(one.protocol, one.port, rule.protocol, rule.ports)
                    and self._who.is_same(one.address, front.service.cluster, home)
                    for one in front.backends
                ]
                if any(meant):
                    found.append((front, all(meant)))
        return self._in_front[key]

    def _taken(
        self, rule: OrderedRule, ranges: Ranges, home: ClusterId
    ) -> list[tuple[ClusterId, Ranges, dict[int, list[int]]]]:
        """The nodes among the ranges by cluster, each with its node ports that the rule means."""
        among = self._who.nodes_among(ranges, home)
        if among:
            self._who.snapshot.note(NODE_PORTS)
        fronts, found = self._who.fronts, []
        for cluster in sorted({cluster for cluster, _ in among} & fronts.node_ports.keys()):
            if taken := fronts.taken(cluster, rule.protocol, rule.ports):
                nodes = of_addresses(node for home, node in among if home == cluster)
                found.append((cluster, nodes, taken))
        return found

    def _to_fronts(
        self,
        rule: OrderedRule,
        named: str,
        fronts: Iterable[Front],
        local: SetId | None,
        home: ClusterId,
        widening: str = "",
        behind: Behind | None = None,
    ) -> Iterator[Hop]:
        """Rules towards the addresses of Services and towards their node ports.

        `home` is the consumer's Kubernetes cluster.
        """
        dialled: dict[tuple[ClusterId, int, int], set[Address]] = {}
        node_ports: dict[tuple[ClusterId, int], set[int]] = {}
        for front in fronts:
            port, cluster = front.port, front.service.cluster
            key = cluster, port.protocol, port.port
            dialled.setdefault(key, set()).update(front.dialled_from(home))
            if port.node_port:
                node_ports.setdefault((cluster, port.protocol), set()).add(port.node_port)
        for (cluster, protocol, number), addresses in sorted(dialled.items()):
            if addresses:
                meaning = f"fronts of {named} {rule.ports} {cluster} {protocol}/{number} {widening}"
                meaning += "" if home == cluster else f" from {home}"
                peers = self._who.sets.name(meaning, of_addresses(addresses))
                ports = (PortRange(number, number),)
                yield Hop.of(rule, peers, protocol, ports, local, widening, behind)
        for (cluster, protocol), numbers in sorted(node_ports.items()):
            node_port = tuple(PortRange(number, number) for number in sorted(numbers))
            nodes = self._who.nodes(cluster, home)
            yield Hop.of(rule, nodes, protocol, node_port, local, widening, behind)

    def _to_backends(
        self,
        rule: OrderedRule,
        named: str,
        fronts: Iterable[Front],
        local: SetId | None,
        home: ClusterId,
    ) -> Iterator[Hop]:
        """Rules towards the backends: dialled directly, or by a socket-level load balancer."""
        dialled: dict[tuple[ClusterId, int, int], set[Address]] = {}
        for front in fronts:
            for backend in front.backends:
                key = front.service.cluster, backend.protocol, backend.port
                held = dialled.setdefault(key, set())
                if self._who.is_same(backend.address, front.service.cluster, home):
                    held.add(backend.address)
        for (cluster, protocol, port), addresses in sorted(dialled.items()):
            meaning = f"backends of {named} {rule.ports} {cluster} {protocol}/{port}"
            meaning += "" if home == cluster else f" from {home}"
            peers = self._who.sets.name(meaning, of_addresses(addresses))
            yield Hop.of(rule, peers, protocol, (PortRange(port, port),), local)


def partly_meant(front: Front, action: Action, *, judged: bool) -> str:
    """What a rule that means some backends of a Service admits beyond its policy.

    `judged` says that the consumer's node judges what it sends on to them.
    """
    name = f"{front.service.display}:{front.port.port}"
    if not judged:
        if action is Action.ALLOW:
            return f"admits all backends of Service {name}, of which it means only some"
        return f"does not deny Service {name}: it means only some of its backends"
    which = "the others" if action is Action.ALLOW else "those"
    elsewhere = front.port.node_port or front.external_addresses
    return (
        f"means only some backends of Service {name}: kube-proxy may pick {which}, which the"
        " consumer's node rejects if it has nftables"
        + (" and translates the connection itself" if elsewhere else "")
    )
