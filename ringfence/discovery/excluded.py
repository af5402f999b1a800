"""Edges that the one who asks does not want proposed."""

import numpy as np
from pyroaring import BitMap

from ringfence.discovery.behaviour import Mask
from ringfence.discovery.observed import Observed
from ringfence.discovery.roles import Role
from ringfence.model.query import Query


def excluded(observed: Observed, query: Query | None) -> Mask | None:
    """The edges with an end all of whose workloads satisfy the query; None where none was asked."""
    if query is None:
        return None
    peers = observed.peers
    chosen: BitMap = peers.snapshot.select(query)
    out = np.array(
        [
            isinstance(peer, Role) and bool(peer.members) and peer.members <= chosen
            for peer in peers
        ],
        dtype=np.bool_,
    )
    return np.asarray(out[observed.consumer] | out[observed.provider])
