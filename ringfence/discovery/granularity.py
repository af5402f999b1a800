"""How finely policies tell ends and ports apart: each step allows all that the finer ones do.

very-fine  each host outside by its own address
fine       hosts outside are one where there are several; pods and Services apart
medium     and who may reach a provider may reach all of its ports that anybody uses
coarse     and a Service and the pods behind it are one, where these are of one role alone
very-coarse  and every port of the protocol
namespace  and whoever is in the consumer's namespace, and in the provider's
kubernetes-cluster  and whoever is in the scope
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ringfence.discovery.boundary import Boundary
from ringfence.discovery.drafts import Draft, united_why
from ringfence.discovery.ends import Ends, NamedEnd, namespace_query
from ringfence.discovery.observed import Observed
from ringfence.discovery.roles import Role
from ringfence.discovery.sockets import Socket, served
from ringfence.model.ids import ScopeName
from ringfence.model.policy import ClusterEnd, End, FilterEnd, ScopeEnd, ServiceEnd


@dataclass(frozen=True, slots=True)
class Granularity:
    """A boundary, and how far ports are generalised and policies compressed, each from 1 to 5."""

    boundary: Boundary = Boundary.FINE
    ports: int = 2
    compress: int = 3


FINE = Granularity()
_STEPS = {
    Boundary.MEDIUM: "all ports of the provider that anybody uses",
    Boundary.COARSE: "the pods behind the Service, however they are dialled",
    Boundary.VERY_COARSE: "every port of the protocol",
    Boundary.NAMESPACE: "everybody in the namespaces",
    Boundary.KUBERNETES_CLUSTER: "everybody in the scope",
}
"""What each step widens."""


class Widening:
    """Makes drafts as coarse as a boundary says, step by step, so that none loses an edge."""

    def __init__(self, observed: Observed, ends: Ends, scope: ScopeName) -> None:
        self._observed, self._ends = observed, ends
        self._scope = NamedEnd(scope, ScopeEnd(scope))
        self._roles = {role.cluster.name: role for role in observed.peers.roles}
        self._behind = cache(self._led_to)

    def widen(self, drafts: Sequence[Draft], boundary: Boundary) -> list[Draft]:
        """The drafts of the finest step as those of another; equal ones become one."""
        steps: dict[Boundary, Callable[[Sequence[Draft]], Iterable[Draft]]] = {
            Boundary.MEDIUM: self._all_ports_in_use,
            Boundary.COARSE: self._pods_of_services,
            Boundary.VERY_COARSE: self._every_port,
            Boundary.NAMESPACE: self._namespaces,
            Boundary.KUBERNETES_CLUSTER: self._whole_scope,
        }
        found = list(drafts)
        order = list(Boundary)
        for step in order[: order.index(boundary) + 1]:
            if step in steps:
                known = frozenset(found)
                said = f"{step}: {_STEPS[step]}"
                found = _united(
                    one if one in known else replace(one, why=(*one.why, said))
                    for one in steps[step](found)
                )
        return found

    def _all_ports_in_use(self, drafts: Sequence[Draft]) -> Iterable[Draft]:
        used: dict[tuple[NamedEnd, int], frozenset[int]] = {}
        for one in drafts:
            if not one.review:
                key = one.provider, one.protocol
                used[key] = used.get(key, frozenset()) | one.ports
        for one in drafts:
            more = used.get((one.provider, one.protocol), frozenset())
            yield one if one.review else replace(one, ports=one.ports | more)

    def _pods_of_services(self, drafts: Sequence[Draft]) -> Iterable[Draft]:
        found = [one if one.review else self._by_its_pods(one) for one in drafts]
        return self._all_ports_in_use(found)

    def _by_its_pods(self, draft: Draft) -> Draft:
        """A Service's draft as one for the pods behind it, which holds however they are dialled.

        Nodes judge by the Service what they receive for it, and one that leads to several roles
        would become several policies: these stay. They let the pods be dialled straight, too.
        """
        seen, end = self._observed, draft.provider.end
        if not isinstance(end, ServiceEnd):
            return draft
        behind, targets = self._behind(end, draft.protocol, draft.ports)
        edges = np.array(sorted(draft.edges), dtype=np.int64)
        led = behind | {*seen.provider[edges].tolist()}
        if not behind or len(led) > 1 or not isinstance(peer := seen.peers[min(led)], Role):
            return draft
        # None stands for every port.
        ports = targets | {*seen.port[edges].tolist()} if draft.ports else draft.ports
        return replace(draft, provider=self._ends.of(peer), ports=ports)

    def _led_to(
        self, end: ServiceEnd, protocol: int, dialled: frozenset[int]
    ) -> tuple[frozenset[int], frozenset[int]]:
        """The peers behind ports of a Service, all if none is told, and the ports of theirs.

        Neither where not all that it leads to can be told: it is published, or some backend is an
        address that nobody of the inventory holds.
        """
        peers = self._observed.peers
        behind = set[Socket]()
        for at in peers.snapshot.called(end.namespace, end.name):
            item = peers.snapshot.items[at]
            if item.service is None or item.service.is_published:
                return frozenset(), frozenset()
            meant = {
                port.name
                for port in item.service.ports
                if port.protocol == protocol and (port.port in dialled or not dialled)
            }
            its = tuple(one for one in item.service.backends if one.service_port in meant)
            found = served(replace(item, service=replace(item.service, backends=its)), peers)
            if len(found) < len(its):
                return frozenset(), frozenset()
            behind.update(found)
        return frozenset(peer for peer, _, _ in behind), frozenset(port for _, _, port in behind)

    def _every_port(self, drafts: Sequence[Draft]) -> Iterable[Draft]:
        return (one if one.review else replace(one, ports=frozenset()) for one in drafts)

    def _namespaces(self, drafts: Sequence[Draft]) -> Iterable[Draft]:
        return _both_ends(drafts, self._namespace)

    def _namespace(self, named: NamedEnd) -> NamedEnd:
        match named.end:
            case ClusterEnd(name):
                role = self._roles[name]
            case _:
                return named
        items = [self._observed.peers.snapshot.items[at] for at in role.members]
        places = {(item.cluster, item.namespace) for item in items}
        if len(places) != 1:
            return named
        ((cluster, namespace),) = places
        if not namespace:
            return named
        return NamedEnd(namespace, FilterEnd(namespace_query(cluster, namespace)), namespace)

    def _whole_scope(self, drafts: Sequence[Draft]) -> Iterable[Draft]:
        return _both_ends(drafts, self._in_scope)

    def _in_scope(self, named: NamedEnd) -> NamedEnd:
        inside = self._is_inside(named.end)
        return self._scope if inside else named

    def _is_inside(self, end: End) -> bool:
        return isinstance(end, ClusterEnd | ScopeEnd) or (
            isinstance(end, FilterEnd) and self._ends.holds(end.query)
        )


def _both_ends(drafts: Sequence[Draft], wider: Callable[[NamedEnd], NamedEnd]) -> Iterator[Draft]:
    """The drafts with other ends, but those that await review as they are."""
    for one in drafts:
        yield (
            one
            if one.review
            else replace(one, consumer=wider(one.consumer), provider=wider(one.provider))
        )


def _united(drafts: Iterable[Draft]) -> list[Draft]:
    """One draft for each two ends, protocol and review, with all ports; none stands for every."""
    found: dict[tuple[NamedEnd, NamedEnd, int, str], Draft] = {}
    for one in drafts:
        key = one.consumer, one.provider, one.protocol, one.review
        held = found.get(key)
        if held:
            ports = held.ports | one.ports if held.ports and one.ports else frozenset[int]()
            edges, why = held.edges | one.edges, united_why((held, one))
            one = replace(one, ports=ports, edges=edges, why=why)  # noqa: PLW2901
        found[key] = one
    return list(found.values())
