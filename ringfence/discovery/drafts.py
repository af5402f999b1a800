"""From decided edges to drafts of policies: one for each pair of ends, with all of its ports."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ringfence.discovery.behaviour import Numbers
from ringfence.discovery.decide import Decisions
from ringfence.discovery.ends import Ends, NamedEnd
from ringfence.discovery.observed import DIRECT, Observed
from ringfence.discovery.peers import Anybody, Peer, ServiceFront
from ringfence.discovery.reasons import Outcome
from ringfence.inventory.outside import address_types
from ringfence.model.address import Address
from ringfence.model.evidence import Evidence
from ringfence.model.policy import OutsideEnd
from ringfence.model.protocol import TCP, UDP


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy in the making. `edges` are those that it is for; `review` says why it waits."""

    consumer: NamedEnd
    provider: NamedEnd
    protocol: int
    ports: frozenset[int]
    edges: frozenset[int]
    review: str = ""
    name: str = ""
    """Of a core service; empty where the ends make the name."""
    description: str = ""
    """Why it is there although nothing of it need have been seen."""
    why: tuple[str, ...] = ()
    """Why its ends and ports are as broad as they are."""


def united_why(drafts: Iterable[Draft]) -> tuple[str, ...]:
    """Why the ends and ports of some drafts are as they are, each reason once."""
    return tuple(dict.fromkeys(why for one in drafts for why in one.why))


@dataclass
class Drafting:
    """Makes drafts of what was observed. `each_address`: of hosts outside each is an end."""

    observed: Observed
    ends: Ends
    each_address: bool = False

    def drafts(self, decisions: Decisions) -> list[Draft]:
        """A draft for each two ends and protocol that any edge needs, in order of the edges."""
        found: dict[tuple[NamedEnd, NamedEnd, int, str], Draft] = {}
        for route in self._needed(decisions):
            edge, review = int(self.observed.route_edge[route]), ""
            if decisions.outcome[edge] == Outcome.REVIEW:
                review = "; ".join(decisions.reasons(edge))
            one = replace(self.draft(route), review=review)
            key = one.consumer, one.provider, one.protocol, one.review
            held = found.get(key)
            if held:
                ports, edges = one.ports | held.ports, one.edges | held.edges
                one = replace(one, ports=ports, edges=edges, why=united_why((held, one)))
            found[key] = one
        return list(found.values())

    def _needed(self, decisions: Decisions) -> Iterator[int]:
        """The routes of edges that are no noise, but those that another route's policy covers."""
        seen = self.observed
        wanted = np.isin(decisions.outcome, (Outcome.ALLOW, Outcome.REVIEW))[seen.route_edge]
        # A Service's policy lets its backends be dialled straight too.
        worked = seen.by_route.conversations > 0
        own = np.array([*(not one.from_outside for one in seen.fronts), False], dtype=bool)
        by_service = seen.route_edge[own[seen.route_front] & worked]
        covered = np.bincount(by_service, minlength=len(seen)) > 0
        wanted &= worked & ~((seen.route_front == DIRECT) & covered[seen.route_edge])
        inside = np.array(
            [self.ends.inside(seen.peers[number]) for number in range(len(seen.peers))], dtype=bool
        )
        decides = inside[seen.provider] | (inside[seen.consumer] & (not self.ends.only_nodes))
        received = np.array([*map(self.ends.receives, seen.fronts), False], dtype=bool)
        wanted &= decides[seen.route_edge] | received[seen.route_front]
        return iter(np.flatnonzero(wanted).tolist())

    def draft(self, route: int) -> Draft:
        """What lets one route pass: its own two ends, protocol and port."""
        seen = self.observed
        edge, front = int(seen.route_edge[route]), int(seen.route_front[route])
        consumer: Peer = seen.peers[int(seen.consumer[edge])]
        provider: Peer = (
            seen.peers[int(seen.provider[edge])] if front == DIRECT else seen.fronts[front]
        )
        port = seen.port[edge] if front == DIRECT else seen.route_port[route]
        addresses = self._addresses(edge) if isinstance(consumer, Anybody) else ()
        published = front != DIRECT and self._is_published(seen.fronts[front])
        if published and not (self.each_address and all(map(_is_private, addresses))):
            addresses = ()
        source = self.ends.of(consumer, addresses, each=self.each_address)
        why = ["dialled at its own address" if front == DIRECT else "dialled through its Service"]
        if isinstance(consumer, Anybody):
            anyone = isinstance(source.end, OutsideEnd)
            why.append("any host outside" if anyone else "each host outside by its address")
            if anyone and published:
                why[-1] += ", for the Service is published"
        return Draft(
            source,
            self.ends.of(provider, seen.lasting(provider)),
            int(seen.protocol[edge]),
            frozenset({int(port)}) if seen.protocol[edge] in (TCP, UDP) else frozenset(),
            frozenset({edge}),
            why=tuple(why),
        )

    def _is_published(self, front: ServiceFront) -> bool:
        """Whether nodes receive for a Service: then it is there for whoever comes."""
        snapshot = self.observed.peers.snapshot
        items = (snapshot.items[at] for at in snapshot.called(front.namespace, front.name))
        specs = (item.service for item in items if item.cluster == front.cluster)
        return front.from_outside or any(spec.is_published for spec in specs if spec)

    def _addresses(self, edge: int) -> Sequence[Address]:
        seen = self.observed
        first, last = np.searchsorted(seen.pair_edge, [edge, edge + 1])
        worked = seen.by_source.conversations[first:last] > 0
        return [seen.peers.address(one) for one in seen.pair_source[first:last][worked].tolist()]


def _is_private(address: Address) -> bool:
    """Whether a host outside is one of the organisation's own, by its address."""
    return "private" in address_types(address)


def evidence_of(observed: Observed, draft: Draft) -> Evidence | None:
    """What was seen of a draft's edges together."""
    if not draft.edges:
        return None
    at = np.array(sorted(draft.edges), dtype=np.int64)
    seen = observed.seen
    sources = _sources(observed, at)
    return Evidence(
        conversations=int(seen.conversations[at].sum()),
        intervals=int(seen.intervals[at].max()),
        sources=len(np.unique(sources)),
        bytes=int(seen.bytes[at].sum()),
        first_ns=int(seen.first_ns[at].min()),
        last_ns=int(seen.last_ns[at].max()),
        confidence=confidence(int(seen.intervals[at].min()), int(seen.sources[at].min())),
        why="; ".join(draft.why),
    )


def _sources(observed: Observed, edges: Numbers) -> Numbers:
    """The parties that had conversations on some edges, one may stand several times."""
    first, last = (np.searchsorted(observed.pair_edge, edges, side) for side in ("left", "right"))
    count = last - first
    pairs = np.repeat(last - np.cumsum(count), count) + np.arange(count.sum())
    return observed.pair_source[pairs[observed.by_source.conversations[pairs] > 0]]


def confidence(intervals: int, sources: int) -> float:
    """How sure an edge is needed: Laplace's rule over intervals and sources, two decimals."""
    told = max(intervals, 0) + max(sources - 1, 0)
    return min(round((told + 1) / (told + 2), 2), 0.99) if told else 0.5
