"""Which network held an address at an instant, by longest prefix, for many of both at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.holders import distinct
from ringfence.model.address import Network, parse_network
from ringfence.model.ids import RevisionId

Keys = NDArray[np.bytes_]
"""Addresses as keys of one width, whose order is that of the addresses."""

_KEY = "S16"
_V4 = parse_network("0.0.0.0/0")
_END = 1 << 128
_BEFORE = -(2**63)
_CACHED = 16


@dataclass(frozen=True, slots=True)
class Claim:
    """One revision speaks for a network in [from_ns, to_ns)."""

    from_ns: int
    to_ns: int
    network: Network
    revision: RevisionId


class Networks:
    """The claims of all times. Immutable."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self._claims = [claim for claim in claims if claim.from_ns < claim.to_ns]
        self._from = np.array([claim.from_ns for claim in self._claims], dtype=np.int64)
        self._to = np.array([claim.to_ns for claim in self._claims], dtype=np.int64)
        # Between two of these instants nothing changes.
        self._instants = np.unique(np.concatenate([self._from, self._to]))
        self._ranges: dict[int, _Ranges] = {}

    def locate(
        self,
        addresses: NDArray[np.uint8],
        first_ns: NDArray[np.int64],
        last_ns: NDArray[np.int64],
    ) -> NDArray[np.uint64]:
        """The revisions that spoke for addresses, shape (n, 16), at `first`, else at `last`; or 0.

        There must be some addresses.
        Unlike a workload's, an address in a network does not change hands: what is known of it
        changes, and the first that was known while the row was counted counts.
        """
        known, which = distinct(addresses)
        keys = np.frombuffer(known.buffers()[1], dtype=_KEY, count=len(known))
        found = self._at(keys, which, first_ns)
        left = np.nonzero(found == 0)[0]
        found[left] = self._at(keys, which[left], last_ns[left])
        return found

    def _at(
        self, keys: Keys, which: NDArray[np.int64], times_ns: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """Who spoke for `keys[which]`, each at its own time. Most rows are of one epoch."""
        epochs = np.searchsorted(self._instants, times_ns, side="right")
        found = np.zeros(len(which), dtype=np.uint64)
        for epoch in np.unique(epochs).tolist():
            here = np.nonzero(epochs == epoch)[0]
            found[here] = self._ranges_of(epoch).find(keys)[which[here]]
        return found

    def _ranges_of(self, epoch: int) -> "_Ranges":
        if epoch not in self._ranges:
            if len(self._ranges) >= _CACHED:
                self._ranges.pop(next(iter(self._ranges)))
            start = self._instants[epoch - 1] if epoch else _BEFORE
            rows = np.nonzero((self._from <= start) & (start < self._to))[0].tolist()
            claims = (self._claims[row] for row in rows)
            self._ranges[epoch] = _Ranges({one.network: one.revision for one in claims})
        return self._ranges[epoch]


class _Ranges:
    """Networks, each within another or apart from it, as disjoint ranges in order."""

    def __init__(self, revisions: dict[Network, RevisionId]) -> None:
        # No IPv6 block holds an IPv4 address, though the 16 bytes of ::/0 do.
        held = {_V4: RevisionId(0)} | revisions
        starts: dict[int, RevisionId] = {0: RevisionId(0)}
        around: list[Network] = []

        def leave(until: int) -> None:
            """Close the networks that end before `until`: what is around each goes on."""
            while around and around[-1].last < until:
                ended = around.pop()
                starts[ended.last + 1] = held[around[-1]] if around else RevisionId(0)

        for network in sorted(held, key=attrgetter("address", "prefix")):
            leave(network.first)
            starts[network.first] = held[network]
            around.append(network)
        leave(_END)
        starts.pop(_END, None)
        self._starts = np.array([start.to_bytes(16) for start in starts], dtype=_KEY)
        self._holders = np.array(list(starts.values()), dtype=np.uint64)

    def find(self, keys: Keys) -> NDArray[np.uint64]:
        """Who holds each address, 0 for nobody."""
        spots = np.searchsorted(self._starts, keys, side="right") - 1
        return np.asarray(self._holders[spots])
