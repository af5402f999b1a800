"""What a policy becomes in its consumer's namespace: rules towards what is dialled, before DNAT."""

from collections.abc import Iterable, Iterator

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import subtract
from ringfence.policy.fronts import Front, but_ports, fits
from ringfence.policy.hop import Hop, everyone
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import SetId
from ringfence.policy.sets import of_addresses, within
from ringfence.policy.who import Ranges, Who


class Outbound:
    """Makes the rules of consumers' namespaces."""

    def __init__(self, who: Who) -> None:
        self._who = who
        self._service_ranges = of_addresses(
            address for front in who.fronts.all for address in front.addresses
        )
        self._known: dict[tuple[object, ...], list[Hop]] = {}

    def rules(self, rule: OrderedRule, at: int) -> list[Hop]:
        """The rules in the consumer's namespace: towards what is dialled."""
        end = rule.provider
        local = self._who.local(rule, rule.consumer, at, consumer=True)
        cluster = self._who.snapshot.items[at].cluster if end.same_cluster else None
        own = at if end.own_node or rule.consumer.own_node else NOWHERE
        part = rule.consumer.part, end.part, rule.ports
        key = (rule.decision.place, part, local, cluster, own)
        if key not in self._known:
            self._known[key] = list(self._towards(rule, at, local))
        return self._known[key]

    def _towards(self, rule: OrderedRule, at: int, local: SetId | None) -> Iterator[Hop]:
        end = rule.provider
        if everyone(end, rule.consumer) and not rule.ports:
            yield Hop.of(rule, None, rule.protocol, (), local)
            return
        if end.services:
            cluster = self._who.snapshot.items[at].cluster if end.same_cluster else ""
            fronts = self._who.fronts.of_services(end.services, rule.protocol, rule.ports)
            meant = [front for front in fronts if cluster in ("", front.service.cluster)]
            named = self._who.side(rule, at, consumer=False)[0]
            yield from self._to_fronts(rule, named, meant, local)
            yield from self._to_backends(rule, named, meant, local)
            return
        meaning, ranges = self._who.side(rule, at, consumer=False)
        for cluster in sorted(self._who.fronts.node_ports):
            taken = self._who.fronts.taken(cluster, rule.protocol, rule.ports)
            nodes = self._nodes_in(cluster, ranges) if taken else ()
            if nodes and rule.action is Action.ALLOW:
                yield Hop(None, "admits node ports along with the nodes that it means")
            elif nodes:
                # A node port is met after DNAT, so denying a node must leave its node ports alone.
                ranges = subtract(ranges, nodes)
                meaning = f"{meaning} but nodes of {cluster}"
                peers = self._who.sets.name(f"nodes of {meaning}", nodes)
                for protocol, ports in but_ports(rule.protocol, rule.ports, taken):
                    yield Hop.of(rule, peers, protocol, ports, local)
                if rule.protocol is None:
                    yield Hop(None, "denies nodes nothing but ICMP and protocols with ports")
        if end.ranges or end.anyone:
            # What stands behind a Service is met after DNAT, never its own address.
            meaning = f"{meaning} but Services"
            ranges = subtract(ranges, self._service_ranges)
        peers = self._who.sets.name(meaning, ranges)
        yield Hop.of(rule, peers, rule.protocol, rule.ports, local)
        yield from self._through_fronts(rule, *self._who.side(rule, at, consumer=False), local)

    def _nodes_in(self, cluster: ClusterId, ranges: Ranges) -> Ranges:
        """The addresses of a Kubernetes cluster's nodes that are among others."""
        nodes = self._who.fronts.node_addresses.get(cluster, ())
        return of_addresses(address for address in nodes if within(address, ranges))

    def _through_fronts(
        self, rule: OrderedRule, named: str, ranges: Ranges, local: SetId | None
    ) -> Iterator[Hop]:
        """The Services in front of the providers: their backends are chosen after this hop."""
        whole: list[Front] = []
        for front in self._who.fronts.before(self._who.sets.holders(ranges)):
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
                yield Hop(None, text)
        yield from self._to_fronts(rule, named, whole, local)

    def _to_fronts(
        self,
        rule: OrderedRule,
        named: str,
        fronts: Iterable[Front],
        local: SetId | None,
        widening: str = "",
    ) -> Iterator[Hop]:
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
                peers = self._who.sets.name(meaning, of_addresses(addresses))
                ports = (PortRange(number, number),)
                yield Hop.of(rule, peers, protocol, ports, local, widening)
        for (cluster, protocol), numbers in sorted(node_ports.items()):
            node_port = tuple(PortRange(number, number) for number in sorted(numbers))
            nodes = self._who.nodes(cluster)
            yield Hop.of(rule, nodes, protocol, node_port, local, widening)

    def _to_backends(
        self, rule: OrderedRule, named: str, fronts: Iterable[Front], local: SetId | None
    ) -> Iterator[Hop]:
        """Rules towards the backends: dialled directly, or by a socket-level load balancer."""
        dialled: dict[tuple[ClusterId, int, int], set[Address]] = {}
        for front in fronts:
            for backend in front.backends:
                key = front.service.cluster, backend.protocol, backend.port
                dialled.setdefault(key, set()).add(backend.address)
        for (cluster, protocol, port), addresses in sorted(dialled.items()):
            meaning = f"backends of {named} {rule.ports} {cluster} {protocol}/{port}"
            peers = self._who.sets.name(meaning, of_addresses(addresses))
            yield Hop.of(rule, peers, protocol, (PortRange(port, port),), local)
