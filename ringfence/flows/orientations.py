"""What is remembered of a tuple from one window to the next."""

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.keys import Bytes, hashed, spots
from ringfence.model.flow import Method

METHODS = (Method.SYN, Method.SOCKET, Method.SERVICE, Method.DEGREE)
UNDECIDED = -1

KNOWN = np.dtype(
    [
        ("consumer", "i1"),  # 0: the lower end of the pair is the consumer, 1: the higher
        ("method", "u1"),  # index into METHODS
        ("opened", "?"),
        ("answered", "?"),  # or refused
        ("last_ns", "i8"),
    ]
)
UNKNOWN = np.array((UNDECIDED, len(METHODS), False, False, 0), dtype=KNOWN)


class Orientations:
    """What is known of each tuple from earlier windows, so that direction outlives its SYN.

    Keeps the `capacity` tuples heard of last. One object per agent, passed to each call of
    `conversations` in turn.
    """

    def __init__(self, capacity: int = 131_072) -> None:
        self._capacity = capacity
        # In the order of their hashes. Of tuples that share one, only the last is found.
        self._hashes = np.empty(0, dtype=np.uint64)
        self._keys: Bytes = np.empty(0, dtype="S48")
        # Read by `take`, not by index: numpy copies structures field by field then.
        self._known = np.empty(0, dtype=KNOWN)

    def __len__(self) -> int:
        """The number of tuples remembered."""
        return len(self._keys)

    def lookup(self, keys: Bytes) -> NDArray[np.void]:
        """What is known of each key, `UNKNOWN` where nothing is."""
        found = np.full(len(keys), UNKNOWN, dtype=KNOWN)
        spot = spots(hashed(keys), self._hashes)
        hit = np.nonzero(spot >= 0)[0]
        hit = hit[self._keys[spot[hit]] == keys[hit]]
        found[hit] = self._known.take(spot[hit])
        return found

    def remember(self, keys: Bytes, known: NDArray[np.void]) -> None:
        """Replace what is known of these keys, which are distinct."""
        hashes = hashed(keys)
        old = np.flatnonzero(spots(self._hashes, np.sort(hashes)) < 0)
        hashes = np.concatenate([hashes, self._hashes[old]])
        keys = np.concatenate([keys, self._keys[old]])
        known = np.concatenate([known, self._known.take(old)])
        order = np.argsort(hashes)
        if len(order) > self._capacity:
            newest = np.zeros(len(order), dtype=np.bool_)
            newest[np.argpartition(known["last_ns"], -self._capacity)[-self._capacity :]] = True
            order = order[newest[order]]
        self._hashes, self._keys, self._known = hashes[order], keys[order], known.take(order)
