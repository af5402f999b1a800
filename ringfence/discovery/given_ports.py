"""One policy for a Service and for the ports that the pods behind it give out besides.

A policy for pods holds however they are dialled, so where whoever uses a Service is given ports of
the pods behind it, a policy for these pods stands for both.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ringfence.discovery.behaviour import Numbers
from ringfence.discovery.drafts import Draft, united_why
from ringfence.discovery.observed import Mask, Observed
from ringfence.discovery.sockets import served
from ringfence.model.policy import ServiceEnd


def with_given(drafts: Sequence[Draft], observed: Observed, given: Mask) -> list[Draft]:
    """The drafts, those of a Service joined with those of ports that are `given` out to the same.

    They allow what they did: it is left alone where the Service leads to others too.
    """
    found = list(drafts)
    for one in drafts:
        at = np.array(sorted(one.edges), dtype=np.int64)
        providers = np.unique(observed.provider[at]).tolist()
        if one.review or not given[at].any() or len(providers) != 1:
            continue
        for other in drafts:
            if (one.consumer, one.protocol) != (other.consumer, other.protocol) or other.review:
                continue
            behind = _behind(observed, other, providers[0])
            if behind is not None and (other.ports or not one.ports):
                found.remove(other)
                held = found.index(one)
                one = replace(  # noqa: PLW2901
                    one,
                    ports=one.ports and one.ports | behind,
                    edges=one.edges | other.edges,
                    why=united_why((other, one)),
                )
                found[held] = one
    return found


def _behind(observed: Observed, draft: Draft, provider: int) -> frozenset[int] | None:
    """The ports behind a draft's Service; None unless it is one that leads to this peer alone."""
    end, seen = draft.provider.end, observed
    if not isinstance(end, ServiceEnd):
        return None
    snapshot = seen.peers.snapshot
    items = [snapshot.items[at] for at in snapshot.services]
    named = [one for one in items if (one.namespace, one.name) == (end.namespace, end.name)]
    peers = {peer for item in named for peer, _, _ in served(item, seen.peers)}
    fronts = [(one.namespace, one.name) == (end.namespace, end.name) for one in seen.fronts]
    routes: Numbers = np.flatnonzero(np.array([*fronts, False])[seen.route_front])
    edges = seen.route_edge[routes]
    mine = seen.protocol[edges] == draft.protocol
    if draft.ports:
        mine &= np.isin(seen.route_port[routes], sorted(draft.ports))
    if peers != {provider} or (seen.provider[edges[mine]] != provider).any():
        return None
    return frozenset(seen.port[edges[mine]].tolist())
