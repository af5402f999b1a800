"""What is remembered of a tuple from one window to the next."""

import numpy as np
from numpy.typing import NDArray

from ringfence.model.flow import Method

Bytes = NDArray[np.bytes_]
"""Keys of one fixed width; as they have equal length, numpy's null padding confuses none."""

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
        self._keys: Bytes = np.empty(0, dtype="S41")
        self._known = np.empty(0, dtype=KNOWN)

    def __len__(self) -> int:
        """The number of tuples remembered."""
        return len(self._keys)

    def lookup(self, keys: Bytes) -> NDArray[np.void]:
        """What is known of each key, `UNKNOWN` where nothing is."""
        found = np.full(len(keys), UNKNOWN, dtype=KNOWN)
        if len(self._keys):
            spot = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            hit = self._keys[spot] == keys
            found[hit] = self._known[spot[hit]]
        return found

    def remember(self, keys: Bytes, known: NDArray[np.void]) -> None:
        """Replace what is known of these keys, which are distinct."""
        old = ~np.isin(self._keys, keys)
        keys = np.concatenate([keys, self._keys[old]])
        known = np.concatenate([known, self._known[old]])
        if len(keys) > self._capacity:
            newest = np.argsort(known["last_ns"], kind="stable")[-self._capacity :]
            keys, known = keys[newest], known[newest]
        order = np.argsort(keys, kind="stable")
        self._keys, self._known = keys[order], known[order]
