"""How many connections a window's pairs of records opened, and what became of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.pairs import Pairs
from ringfence.model.protocol import TCP

_IDLE_NS = 120 * 10**9
"""Silence after which a tuple is a new connection: the kernel's nf_conntrack_udp_timeout_stream."""


@dataclass(frozen=True)
class Counts:
    """Connections counted in this window, per pair: a consumer may use a port again."""

    opened: NDArray[np.int64]
    answered: NDArray[np.int64]
    refused: NDArray[np.int64]
    waiting: NDArray[np.int64]
    """Those opened, now or earlier, that got no answer yet."""
    repeated: NDArray[np.bool_]
    """A SYN of an earlier window was sent again."""

    def take(self, pairs: NDArray[np.int64]) -> "Counts":
        """Those of some pairs."""
        return Counts(*(column[pairs] for column in vars(self).values()))


def count(
    pairs: Pairs,
    known: NDArray[np.void],
    forward: NDArray[np.int64],
    reverse: NDArray[np.int64],
) -> Counts:
    """Count each opening and each answer once, in the window where it was first seen.

    A SYN before the answer repeats the opening; one after the answer is a new connection.
    `known` (KNOWN) is what earlier windows told, `forward` and `reverse` the records of each way.
    """
    tcp = pairs.either("protocol") == TCP
    idle = pairs.last_ns - known["last_ns"] > _IDLE_NS
    open_before = known["opened"] & ~(idle & ~tcp)
    unanswered = open_before & ~known["answered"]
    syns = pairs.field(forward, "syn").astype(np.int64)
    repeated = unanswered & ~idle & (syns > 0)
    opened = np.where(tcp, syns - repeated, ~open_before & (forward >= 0))
    pending = opened + unanswered
    replies = np.where(tcp, pairs.field(reverse, "synack"), reverse >= 0)
    answered = np.minimum(pending, replies)
    resets = np.where(tcp, pairs.field(reverse, "rst"), 0)
    refused = np.minimum(pending - answered, resets)
    return Counts(opened, answered, refused, pending - answered - refused, repeated)
