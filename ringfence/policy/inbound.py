"""What a policy becomes where connections arrive: rules on what is left of the consumer.

A provider's namespace sees the source that is left after masquerading; a node that receives a
connection for a Service sees both ends as sent, before DNAT.
"""

from collections.abc import Iterable, Iterator, Sequence

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import subtract
from ringfence.model.workload import Backend, ItemKind
from ringfence.policy.fronts import Front, fits
from ringfence.policy.hop import Hop, everyone
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import SetId
from ringfence.policy.sets import family_of, within
from ringfence.policy.who import Ranges, Who


class Inbound:
    """Makes the rules of providers' namespaces, and of nodes that receive for Services."""

    def __init__(self, who: Who) -> None:
        self._who = who
        self._known: dict[tuple[object, ...], tuple[Hop, ...]] = {}

    def rules(self, rule: OrderedRule, at: int) -> tuple[Hop, ...]:
        """The rules in the provider's namespace: from what is left of the consumer."""
        if rule.provider.services:
            return tuple(self._behind_services(rule, at))
        behind = [
            (front, backend)
            for front, backend in self._who.fronts.served_by(at)
            if fits(backend.protocol, backend.port, rule.protocol, rule.ports)
        ]
        local = self._who.local(rule, rule.provider, at, consumer=False)
        if behind:
            return tuple(self._from(rule, at, local, behind))
        own = at if rule.consumer.own_node or rule.provider.own_node else NOWHERE
        part = rule.consumer.part, rule.provider.part, rule.ports
        key = (rule.decision.place, part, local, own, self._home(at))
        if key not in self._known:
            self._known[key] = tuple(self._from(rule, at, local, ()))
        return self._known[key]

    def _from(
        self,
        rule: OrderedRule,
        at: int,
        local: SetId | None,
        behind: Sequence[tuple[Front, Backend]],
    ) -> Iterator[Hop]:
        for front, backend in behind:
            yield from self._masqueraded(rule, at, front, backend)
        peers, spared = self._sources(rule, at, (front for front, _ in behind))
        yield Hop.of(rule, peers, rule.protocol, rule.ports, local)
        if spared:
            yield Hop(None, spared)

    def _behind_services(self, rule: OrderedRule, at: int) -> Iterator[Hop]:
        """The rules of a backend of the Services that the policy names."""
        end = rule.provider
        fronts = self._who.fronts.of_services(end.services, rule.protocol, rule.ports)
        meant = {id(front) for front in fronts}
        for front, backend in self._who.fronts.served_by(at):
            if id(front) not in meant:
                continue
            text = ""
            if self._who.fronts.shared(backend, meant):
                text = f"port {backend.port} here, to which another port of a Service leads too"
                if rule.action is Action.DENY:
                    yield Hop(None, f"does not deny {text}")
                    continue
                text = f"admits its consumers to {text}"
            cluster = front.service.cluster if end.same_cluster else None
            peers, spared = self._sources(rule, at, [front], cluster)
            yield from self._masqueraded(rule, at, front, backend, named_by_policy=True)
            ports = (PortRange(backend.port, backend.port),)
            yield Hop.of(rule, peers, backend.protocol, ports, None, text)
            if spared:
                yield Hop(None, spared)

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
        anyone = everyone(rule.consumer, rule.provider)
        if rule.action is Action.ALLOW or anyone or not masquerading:
            return self._peers(rule, at, cluster), ""
        meaning, ranges = self._who.side(rule, at, consumer=True)
        homes = sorted({front.service.cluster for front in masquerading})
        nodes = [one for home in homes for one in self._who.nodes_in(home, self._home(at))[1]]
        foreign = self._who.foreign(cluster, rule.consumer, ranges)
        spared = subtract(ranges, (*nodes, *foreign))
        seen = "" if homes == [self._home(at)] else f" as {self._home(at)} sees them"
        named = f"{meaning} but nodes of {homes}{seen}, for {cluster}"
        peers = self._who.sets.name(named, spared)
        if not ranges:
            return peers, ""
        return peers, "does not deny node addresses: nodes masquerade what they receive for it"

    def _masqueraded(
        self,
        rule: OrderedRule,
        at: int,
        front: Front,
        backend: Backend,
        *,
        named_by_policy: bool = False,
    ) -> Iterator[Hop]:
        """Node addresses, where a node puts its own on what it sends to the backend.

        They are admitted ahead of the consumers, who may hold some of them. A Service of another
        namespace than the backend's admits them where the policy names it, or means consumers from
        outside the clusters, for whom there may be no other way: else whoever writes an
        EndpointSlice would open others' pods to all.
        """
        if rule.action is Action.DENY or rule.consumer.anyone:
            return
        ranges = self._who.side(rule, at, consumer=True)[1]
        if front.masquerades:
            named, nodes = self._who.nodes_in(front.service.cluster, self._home(at))
            cause = "nodes masquerade what they receive for"
        elif within(backend.address, ranges):
            named, nodes = self._who.own_node(at)
            cause = "nodes masquerade what pods send themselves through"
        else:
            return
        if not ranges or not subtract(family_of(backend.address), ranges):
            return
        service = front.service.display
        at_home = named_by_policy or self._who.fronts.is_at_home(front, backend)
        if front.masquerades and not at_home and self._are_inside(ranges):
            text = f"Service {service}, which is not of its namespace: no policy here names it"
            yield Hop(
                None, f"does not admit to port {backend.port} whom nodes masquerade for {text}"
            )
            return
        text = f"admits node addresses to port {backend.port}: {cause} Service {service}"
        ports, peers = (PortRange(backend.port, backend.port),), self._who.sets.name(named, nodes)
        yield Hop.of(rule, peers, backend.protocol, ports, None, text)

    def _home(self, at: int) -> ClusterId:
        return self._who.snapshot.items[at].cluster

    def _are_inside(self, ranges: Ranges) -> bool:
        """Whether pods and nodes hold all addresses of the ranges."""
        items = self._who.snapshot.items
        inside = [at for at in self._who.holders(ranges) if items[at].cluster]
        return not subtract(ranges, self._who.sets.of_items(inside))

    def received(self, rule: OrderedRule, at: int) -> Iterator[Hop]:
        """The rules of a node that receives connections for Services, before DNAT."""
        cluster = self._who.snapshot.items[at].cluster
        if rule.action is Action.DENY and rule.consumer.own_node:
            # Which pod a connection will reach, and so whose node it is, shows after DNAT.
            yield Hop(None, "does not deny here what nodes send to pods that they run")
            return
        sources = [(self._peers(rule, at, cluster if rule.provider.same_cluster else None), "")]
        if self._comes_from_pods(rule, cluster):
            text = "admits node addresses to node ports: nodes masquerade what their pods send"
            sources.append((self._who.nodes(cluster, cluster), text))
        fronts = [
            front
            for front in self._who.fronts.of_services(
                rule.provider.services, rule.protocol, rule.ports
            )
            if front.service.cluster == cluster
        ]
        for peers, text in sources:
            if rule.provider.anyone:
                yield Hop.of(rule, peers, rule.protocol, rule.ports, None, text)
            for front in fronts:
                port = front.port
                if port.node_port:
                    ports = (PortRange(port.node_port, port.node_port),)
                    yield Hop.of(rule, peers, port.protocol, ports, None, text)
                ports = (PortRange(port.port, port.port),)
                for local, served in self._balancers(rule, front):
                    some = self._who.sets.both(peers, served) if peers and served else peers
                    yield Hop.of(rule, some or served, port.protocol, ports, local, text)

    def _balancers(self, rule: OrderedRule, front: Front) -> Iterator[tuple[SetId, SetId | None]]:
        """The addresses that a node receives at for load balancers, and from where: None for all.

        An ALLOW admits from the source ranges alone; a DENY asks for none.
        """
        if not front.external_addresses:
            return
        if rule.action is Action.ALLOW:
            yield from self._who.served(front)
        else:
            yield self._who.balancer(front), None

    def _comes_from_pods(self, rule: OrderedRule, cluster: ClusterId) -> bool:
        """Whether an ALLOW names pods of the cluster, which other nodes may have masqueraded."""
        if rule.action is Action.DENY or rule.consumer.anyone:
            return False
        if rule.consumer.own_node:
            return True
        ranges = rule.consumer.ranges
        nodes = self._who.fronts.node_addresses.get(cluster, [])
        if ranges and all(within(node, ranges) for node in nodes):
            return False
        items = self._who.snapshot.items
        consumers = rule.consumer.items | self._who.holders(ranges)
        return any(items[at].kind is ItemKind.POD for at in consumers)

    def _peers(self, rule: OrderedRule, at: int, cluster: ClusterId | None = None) -> SetId | None:
        """The consumers as a set, None for anyone; only those of one cluster if one is given."""
        are_foreign = self._who.are_foreign(cluster)
        if everyone(rule.consumer, rule.provider) and not are_foreign:
            return None
        meaning, ranges = self._who.side(rule, at, consumer=True)
        if are_foreign:
            foreign = self._who.foreign(cluster, rule.consumer, ranges)
            meaning, ranges = f"{meaning} in {cluster}", subtract(ranges, foreign)
        return self._who.sets.name(meaning, ranges)
