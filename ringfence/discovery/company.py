"""Whether who calls much the same calls this too: the company that an edge's consumer would be in.

Services of one kind call alike: each its registry, its configuration and its traces. Whoever looks
around is in nobody's company but by chance.
"""

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import distinct
from ringfence.discovery.observed import Mask, Observed


def company(observed: Observed, known: Mask, asked: Mask) -> NDArray[np.float64]:
    """Of each asked edge, none of them known, what share of calls its likest company has in common.

    The company are the socket's other callers. The share is Jaccard's: of all that either of two
    calls what both do, by `known` edges; 0 of edges that are not asked.
    """
    seen = observed
    callers, caller = np.unique(seen.consumer, return_inverse=True)
    first, socket = distinct(seen.provider, seen.protocol, seen.port)
    users = np.bincount(socket, known, minlength=len(first))
    shared, column = np.unique(socket[known & (users[socket] > 1)], return_inverse=True)
    calls = np.zeros((len(callers), len(shared)), dtype=np.bool_)
    calls[caller[known & (users[socket] > 1)], column] = True
    packed, many = np.packbits(calls, axis=1), np.bincount(caller, known, minlength=len(callers))
    by_socket = np.flatnonzero(known)[np.argsort(socket[known], kind="stable")]
    begins = np.searchsorted(socket[by_socket], np.arange(len(first) + 1))
    found = np.zeros(len(known))
    for edge in np.flatnonzero(asked & (users[socket] > 0)).tolist():
        mine, its = caller[edge], socket[edge]
        others = caller[by_socket[begins[its] : begins[its + 1]]]
        both = np.bitwise_count(packed[others] & packed[mine]).sum(axis=1, dtype=np.int64)
        found[edge] = np.max(both / (many[others] + many[mine] - both))
    return found
