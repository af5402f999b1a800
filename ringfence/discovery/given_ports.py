"""One policy for a Service and for the ports that the pods behind it give out besides.

A policy for pods holds however they are dialled, so where whoever uses a Service is given ports of
the pods behind it, a policy for these pods stands for both.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ringfence.discovery.behaviour import Mask, Numbers
from ringfence.discovery.drafts import Draft, united_why
from ringfence.discovery.ends import NamedEnd
from ringfence.discovery.observed import Observed
from ringfence.discovery.sockets import served
from ringfence.model.policy import ServiceEnd


def with_given(drafts: Sequence[Draft], observed: Observed, given: Mask) -> list[Draft]:
    """The drafts, those of a Service joined with those of ports that are `given` out to the same.

    They allow what they did: it is left alone where the Service leads to others too.
    """
    fronts: dict[tuple[NamedEnd, int], list[int]] = defaultdict(list)
    for at, one in enumerate(drafts):
        if isinstance(one.provider.end, ServiceEnd) and not one.review:
            fronts[one.consumer, one.protocol].append(at)
    services, found = _Services(observed), dict(enumerate(drafts))
    for at, one in enumerate(drafts):
        its = fronts.get((one.consumer, one.protocol), [])
        edges = np.array(sorted(one.edges), dtype=np.int64)
        if isinstance(one.provider.end, ServiceEnd) or not its or not given[edges].any():
            continue
        providers = np.unique(observed.provider[edges]).tolist()
        for front in [front for front in its if front in found]:
            other, held = drafts[front], found[at]
            behind = services.behind(other, providers)
            if behind is not None:
                found[at] = replace(
                    held,
                    ports=held.ports and held.ports | behind,
                    edges=held.edges | other.edges,
                    why=united_why((other, held)),
                )
                del found[front]
    return list(found.values())


class _Services:
    """What was dialled through each Service, by namespace and name, and who serves it."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        snapshot, fronts = observed.peers.snapshot, observed.fronts
        self._items = defaultdict(list)
        for item in (snapshot.items[at] for at in snapshot.services):
            self._items[item.namespace, item.name].append(item)
        self._fronts = defaultdict(list)
        for number, front in enumerate(fronts):
            self._fronts[front.namespace, front.name].append(number)
        self._order: Numbers = np.argsort(observed.route_front, kind="stable")
        self._sorted = observed.route_front[self._order]
        self._told = cache(self._of)

    def behind(self, draft: Draft, providers: list[int]) -> frozenset[int] | None:
        """The ports behind a draft's Service; None unless it leads to this one peer alone."""
        seen, end = self._observed, draft.provider.end
        if not isinstance(end, ServiceEnd):
            return None
        peers, routes = self._told(end)
        edges = seen.route_edge[routes]
        mine = seen.protocol[edges] == draft.protocol
        if draft.ports:
            mine &= np.isin(seen.route_port[routes], sorted(draft.ports))
        led = np.unique(seen.provider[edges[mine]]).tolist()
        if len(led) > 1 or not (peers == led == providers):
            return None
        return frozenset(seen.port[edges[mine]].tolist())

    def _of(self, end: ServiceEnd) -> tuple[list[int], Numbers]:
        """The peers that serve it now, and the routes through it."""
        key = end.namespace, end.name
        every = (served(item, self._observed.peers) for item in self._items[key])
        peers = {peer for its in every for peer, _, _ in its}
        spans = (np.searchsorted(self._sorted, [one, one + 1]) for one in self._fronts[key])
        routes = [self._order[first:last] for first, last in spans]
        return sorted(peers), np.concatenate([self._order[:0], *routes])
