"""How well an edge fits those that are known: callers call, and what is used is used by more.

Of two edges that were seen alike, the one from a workload that calls many to a socket that many
call is likelier an application's own. In a random graph in which each end keeps its number of edges
(the configuration model) the chance of an edge is the product of the two, and whoever looks around
chooses without regard to them; so their ratio is told, as a power of ten.
"""

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import Mask, Numbers, distinct
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody

_BACKWARDS = 0.7
"""Calls hardly ever go in circles: the way back from who is called is a fifth as likely."""
_UNKNOWN = 0.5
"""Added to each number: who was not seen to call may still do so."""


def affinity(observed: Observed, known: Mask) -> NDArray[np.float64]:
    """For each edge how much likelier it is an application's than a stray, as a power of ten.

    Only `known` edges tell, and none of itself. A socket that nobody else uses says nothing: it is
    there for someone.
    """
    seen = observed
    calls = _others(seen.consumer, known)
    _, socket = distinct(seen.provider, seen.protocol, seen.port)
    users = _others(socket, known)
    ends = np.union1d(seen.consumer[known], seen.provider[known])
    fit = np.log10((calls + _UNKNOWN) / (known.sum() / max(len(ends), 1) + _UNKNOWN))
    usual = known.sum() / max(len(np.unique(socket[known])), 1)
    fit += np.where(users > 0, np.log10((users + _UNKNOWN) / (usual + _UNKNOWN)), 0.0)
    size = len(seen.peers)
    back = np.isin(
        seen.provider * size + seen.consumer, seen.consumer[known] * size + seen.provider[known]
    )
    stray = seen.peers.which(Anybody)
    return np.asarray(
        np.where(stray[seen.consumer], 0.0, np.clip(fit, -1.0, 1.0)) - _BACKWARDS * back
    )


def _others(group: Numbers, known: Mask) -> Numbers:
    """For each edge how many other known ones its group has."""
    return np.asarray(np.bincount(group, known)[group] - known)
