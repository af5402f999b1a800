"""Whether who calls much the same calls this too: the company that an edge's consumer would be in.

Services of one kind call alike: each its registry, its configuration and its traces. Whoever looks
around is in nobody's company but by chance.
"""

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import Mask, Numbers, distinct
from ringfence.discovery.observed import Observed


def company(observed: Observed, known: Mask, asked: Mask) -> NDArray[np.float64]:
    """Of each asked edge, none of them known, what share of calls its likest company has in common.

    The company are the socket's other callers. The share is Jaccard's: of all that either of two
    calls what both do, by `known` edges; 0 of edges that are not asked.
    """
    seen = observed
    callers, caller = np.unique(seen.consumer, return_inverse=True)
    first, socket = distinct(seen.provider, seen.protocol, seen.port)
    calls = _Lists(caller[known], socket[known], len(callers))
    users = _Lists(socket[known], caller[known], len(first))
    found = np.zeros(len(known))
    edges = np.flatnonzero(asked & (users.many[socket] > 0))
    edges = edges[np.argsort(caller[edges], kind="stable")]
    begins = np.flatnonzero(np.diff(caller[edges], prepend=-1))
    for mine, its in zip(caller[edges[begins]], np.split(edges, begins[1:]), strict=False):
        others, starts = users.of(socket[its])
        shared = np.bincount(users.of(calls.of(mine[None])[0])[0], minlength=len(callers))
        both = shared[others]
        share = both / (calls.many[others] + calls.many[mine] - both)
        found[its] = np.maximum.reduceat(share, starts)
    return found


class _Lists:
    """Values by the group that each is in; groups are numbered from 0 to `count`."""

    def __init__(self, group: Numbers, values: Numbers, count: int) -> None:
        self.many = np.bincount(group, minlength=count)
        self._values = values[np.argsort(group, kind="stable")]
        self._begins = np.cumsum(self.many) - self.many

    def of(self, groups: Numbers) -> tuple[Numbers, Numbers]:
        """The values of some groups one after the other, and where each group's begin."""
        many = self.many[groups]
        starts = np.cumsum(many) - many
        at = np.arange(many.sum()) + np.repeat(self._begins[groups] - starts, many)
        return self._values[at], starts
