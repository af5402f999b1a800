"""Named policies of what every cluster needs: DNS, probes, the API server and time."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ringfence.discovery.behaviour import Mask, Numbers
from ringfence.discovery.decide import Decisions
from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import Ends, NamedEnd, joined, query_of
from ringfence.discovery.facts import RESOLVERS
from ringfence.discovery.naming import LONGEST_NAME, SEVERAL, joined_name, place_of
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody, Named, Nodes, Outside, OwnNode, ServiceFront
from ringfence.discovery.reasons import Reason
from ringfence.discovery.roles import Role
from ringfence.model.address import Address, host_network
from ringfence.model.fqdn import host_name
from ringfence.model.ids import ScopeName
from ringfence.model.policy import (
    ApiServerEnd,
    CidrEnd,
    FilterEnd,
    OwnNodeEnd,
    ScopeEnd,
    ServiceEnd,
)
from ringfence.model.protocol import TCP, UDP, format_protocol

_API_PORT = 443
_DNS_PORT, _NTP_PORT = 53, 123
_FROM_OUTSIDE = "asked from outside, and by no API server that was seen"
_BY_ONE = "alone: one workload uses it, and no other's use says what it is"
_AMONG = 5
"""So many names of hosts are told of a policy that is for more."""
_LONG_ANSWERS = "resolvers turn to TCP when an answer is too long for UDP (RFC 7766)"


def core(observed: Observed, decisions: Decisions, ends: Ends, scope: ScopeName) -> list[Draft]:
    """One draft or few for each core service that was seen, and for declared probes."""
    making = _Core(observed, decisions, ends, scope)
    if ends.only_nodes:
        return [*making.api_server(), *making.kubelets()]
    return [
        *making.dns(),
        *making.probes(),
        *making.api_server(),
        *making.kubelets(),
        *making.time(),
    ]


class _Core:
    def __init__(
        self, observed: Observed, decisions: Decisions, ends: Ends, scope: ScopeName
    ) -> None:
        self._observed, self._decisions, self._ends = observed, decisions, ends
        self._scope = NamedEnd(scope, ScopeEnd(scope))

    def dns(self) -> Iterator[Draft]:
        """Resolvers turn to TCP when an answer is too long (RFC 7766), so both are let pass."""
        edges = self._edges(Reason.DNS)
        fronts = sorted(
            {
                (one.namespace, one.name)
                for one in self._services()
                if (one.namespace, one.name) in RESOLVERS
            }
        )
        for namespace, name in fronts if len(edges) else ():
            provider = NamedEnd(name, ServiceEnd(namespace, name), namespace)
            for protocol, said in ((UDP, "dns"), (TCP, "dns-tcp")):
                ports = frozenset({_DNS_PORT})
                known = frozenset(edges[self._observed.protocol[edges] == protocol].tolist())
                if not known and not self._opens(namespace, name, protocol):
                    continue
                why = _LONG_ANSWERS if protocol == TCP else ""
                yield Draft(
                    self._scope, provider, protocol, ports, known, name=said, description=why
                )
        yield from self._outside(edges, "dns-upstream", UDP, _DNS_PORT)
        yield from self._outside(edges, "dns-upstream-tcp", TCP, _DNS_PORT)

    def probes(self) -> Iterator[Draft]:
        """From the own node: what pods declare, whether it was seen or not, and what was seen."""
        seen, peers = self._observed, self._observed.peers
        wanted: dict[int, set[tuple[int, int]]] = {
            number: set(role.probe_ports) for number, role in enumerate(peers.roles)
        }
        edges = self._edges(Reason.PROBE)
        for edge in edges.tolist():
            if seen.seen.conversations[edge]:
                socket = int(seen.protocol[edge]), int(seen.port[edge])
                wanted.setdefault(int(seen.provider[edge]), set()).add(socket)
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for number, its in wanted.items():
            if its and self._ends.inside(peers[number]):
                alike.setdefault(tuple(sorted(its)), []).append(number)
        for sockets, numbers in sorted(alike.items()):
            for protocol in sorted({one for one, _ in sockets}):
                ports = frozenset(port for one, port in sockets if one == protocol)
                mine = np.isin(seen.provider[edges], numbers) & (seen.protocol[edges] == protocol)
                known = frozenset(edges[mine].tolist())
                own = NamedEnd("own-node", OwnNodeEnd())
                provider = self._roles(numbers)
                name = _probes(provider, protocol, ports)
                yield Draft(own, provider, protocol, ports, known, name=name)

    def api_server(self) -> Iterator[Draft]:
        """The workloads that talk to it."""
        edges = self._of_workloads(self._edges(Reason.API_SERVER))
        numbers = np.unique(self._observed.consumer[edges]).tolist()
        if numbers:
            provider = NamedEnd("api-server", ApiServerEnd())
            known = frozenset(edges.tolist())
            ports = frozenset({_API_PORT})
            yield Draft(self._roles(numbers), provider, TCP, ports, known, name="api-server")

    def kubelets(self) -> Iterator[Draft]:
        """The workloads that ask nodes for their figures; between nodes it is a fail-safe.

        Likewise whoever asked from outside, by its addresses: API servers do, others are reviewed.
        """
        seen, peers = self._observed, self._observed.peers
        edges = self._edges(Reason.KUBELET)
        yield from self._kubelets_from_outside(edges)
        edges = self._of_workloads(edges[~peers.which(Nodes, OwnNode)[seen.consumer[edges]]])
        numbers = np.unique(seen.consumer[edges]).tolist()
        for number in np.unique(seen.provider[edges]).tolist():
            mine = edges[seen.provider[edges] == number]
            consumer, provider = self._roles(numbers), self._ends.of(peers[number])
            ports, known = frozenset(seen.port[mine].tolist()), frozenset(mine.tolist())
            yield Draft(consumer, provider, TCP, ports, known, name="kubelets")

    def _kubelets_from_outside(self, edges: Numbers) -> Iterator[Draft]:
        seen, peers = self._observed, self._observed.peers
        asked = [peers[one] for one in np.unique(seen.provider[self._edges(Reason.API_SERVER)])]
        servers = {one.address for one in asked if isinstance(one, Outside)}
        for edge in edges[peers.which(Anybody)[seen.consumer[edges]]].tolist():
            nodes = peers[int(seen.provider[edge])]
            if not self._ends.inside(nodes):
                continue
            mine = (seen.pair_edge == edge) & (seen.by_source.conversations > 0)
            sources = {peers.address(one) for one in seen.pair_source[mine].tolist()}
            for its, review in ((sources & servers, ""), (sources - servers, _FROM_OUTSIDE)):
                if its:
                    yield Draft(
                        self._ends.of(Anybody(), sorted(its), each=not review),
                        self._ends.of(nodes),
                        TCP,
                        frozenset({int(seen.port[edge])}),
                        frozenset({edge}),
                        review=review,
                        name="kubelets",
                    )

    def time(self) -> Iterator[Draft]:
        """The clocks outside."""
        yield from self._outside(self._edges(Reason.NTP), "ntp", UDP, _NTP_PORT)

    def _outside(self, edges: Numbers, name: str, protocol: int, port: int) -> Iterator[Draft]:
        """Hosts outside by their addresses, together; a name of many addresses by itself.

        What one workload alone uses awaits review, for it may have chosen name and address itself.
        Such hosts are together, too, for each consumer, however many names it asks by.
        """
        seen, peers = self._observed, self._observed.peers
        to_outside = edges[peers.which(Outside, Named)[seen.provider[edges]]]
        to_outside = to_outside[seen.protocol[to_outside] == protocol]
        asked_by = self._inside(seen.consumer[to_outside])
        to_outside = to_outside[np.isin(seen.consumer[to_outside], asked_by)]
        alone = self._by_one(edges)[seen.provider[to_outside]]
        for consumer in np.unique(seen.consumer[to_outside[alone]]).tolist():
            mine = to_outside[alone & (seen.consumer[to_outside] == consumer)]
            its_name = f"{name}-from-{self._ends.of(peers[consumer]).name}"
            hosts = np.unique(seen.provider[mine]).tolist()
            made = (
                self._to_one(hosts[0], mine, name, port)
                if len(hosts) == 1
                else self._together(mine, its_name, port)
            )
            yield replace(made, review=_BY_ONE)
        to_outside = to_outside[~alone]
        changing = [
            host
            for host in np.unique(seen.provider[to_outside]).tolist()
            if not isinstance(self._host(host).end, CidrEnd)
        ]
        by_name = np.isin(seen.provider[to_outside], changing)
        for host in changing:
            yield self._to_one(host, to_outside[seen.provider[to_outside] == host], name, port)
        if not by_name.all():
            yield self._together(to_outside[~by_name], name, port)

    def _by_one(self, edges: Numbers) -> Mask:
        """Of each peer whether one workload, no node, uses it, itself or by way of its resolver.

        `edges` are all of the core service, whatever the protocol.
        """
        seen, peers = self._observed, self._observed.peers
        pairs = np.isin(seen.pair_edge, edges) & (seen.by_source.conversations > 0)
        used, source = seen.provider[seen.pair_edge[pairs]], seen.pair_source[pairs]
        # Of a peer's users the lowest number and the highest: one has them both.
        lowest = np.full(len(peers), np.iinfo(np.int64).max)
        highest = np.full(len(peers), -1)
        np.minimum.at(lowest, used, source)
        np.maximum.at(highest, used, source)
        provider, consumer = seen.provider[edges], seen.consumer[edges]
        its_lowest, its_highest = lowest[consumer], highest[consumer]
        np.minimum.at(lowest, provider, its_lowest)
        np.maximum.at(highest, provider, its_highest)
        alone = lowest >= highest
        alone[provider[peers.which(Nodes, OwnNode)[consumer]]] = False
        return np.asarray(alone)

    def _host(self, number: int) -> NamedEnd:
        host = self._observed.peers[number]
        return self._ends.of(host, self._observed.lasting(host))

    def _to_one(self, host: int, edges: Numbers, name: str, port: int) -> Draft:
        found = self._host(host)
        return self._to(NamedEnd(f"{name}-{found.name}", found.end), edges, port)

    def _together(self, edges: Numbers, name: str, port: int) -> Draft:
        """Hosts outside, all by the addresses that were seen."""
        peers = self._observed.peers
        hosts = [peers[one] for one in np.unique(self._observed.provider[edges]).tolist()]
        addresses = set[Address]()
        for host in hosts:
            match host:
                case Outside(address):
                    addresses.add(address)
                case Named():
                    addresses |= peers.named[host]
        end = CidrEnd(tuple(map(host_network, sorted(addresses))))
        made = self._to(NamedEnd(name, end), edges, port)
        names = sorted(
            filter(None, (host_name(one.name) for one in hosts if isinstance(one, Named)))
        )
        more = f" and {len(names) - _AMONG} more" if len(names) > _AMONG else ""
        told = f"among them {', '.join(names[:_AMONG])}{more}" if names else ""
        return replace(made, description=told)

    def _to(self, provider: NamedEnd, edges: Numbers, port: int) -> Draft:
        """What lets those who asked come to a host outside."""
        consumer = self._roles(np.unique(self._observed.consumer[edges]).tolist())
        ports, known = frozenset({port}), frozenset(edges.tolist())
        protocol = int(self._observed.protocol[edges[0]])
        return Draft(consumer, provider, protocol, ports, known, name=provider.name)

    def _edges(self, reason: Reason) -> Numbers:
        return np.flatnonzero(self._decisions.of(reason))

    def _inside(self, peers: Numbers) -> list[int]:
        found = np.unique(peers).tolist()
        return [one for one in found if self._ends.inside(self._observed.peers[one])]

    def _of_workloads(self, edges: Numbers) -> Numbers:
        """Those of the scope's workloads, and of any that come to the scope's nodes."""
        seen, peers = self._observed, self._observed.peers
        inside = np.array([self._ends.inside(one) for one in peers], dtype=bool)
        workloads = peers.which(Role, Nodes)
        consumer, provider = seen.consumer[edges], seen.provider[edges]
        asking = workloads[consumer] & (inside[consumer] | inside[provider])
        return np.asarray(edges[asking])

    def _opens(self, namespace: str, name: str, protocol: int) -> bool:
        """Whether a Service of the name has a port of DNS, or it is not told which it has."""
        snapshot = self._observed.peers.snapshot
        items = (snapshot.items[at] for at in snapshot.called(namespace, name))
        ports = [port for one in items if one.service for port in one.service.ports]
        return not ports or any(
            (port.protocol, port.port) == (protocol, _DNS_PORT) for port in ports
        )

    def _services(self) -> Iterable[ServiceFront]:
        snapshot = self._observed.peers.snapshot
        for at in snapshot.services:
            item = snapshot.items[at]
            yield ServiceFront(item.cluster, item.namespace, item.name, from_outside=False)

    def _roles(self, numbers: list[int]) -> NamedEnd:
        """Some peers as one end."""
        peers = [self._observed.peers[number] for number in numbers]
        if len(peers) == 1:
            return self._ends.of(peers[0])
        queries = [query for one in peers if (query := query_of(one)) is not None]
        ends = [self._ends.of(one) for one in peers]
        return NamedEnd(joined_name(ends), FilterEnd(joined(queries)), place_of(ends))


def _probes(provider: NamedEnd, protocol: int, ports: frozenset[int]) -> str:
    """After whom they lead to, and after the ports where those are too many to name."""
    if not provider.name.startswith(SEVERAL):
        return f"probes-to-{provider.name}"
    sockets = "-".join(map(str, (format_protocol(protocol).lower(), *sorted(ports))))
    return f"probes-{sockets}" if len(sockets) <= LONGEST_NAME else "probes"
