"""A window in slices: a flow map that is full holds more than an agent has memory to judge at once.

Whoever scans ports chooses how many records there are, and which. So records are sorted and cut,
not dealt out by a hash, which a sender could have put them all into one slice.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.keys import Bytes, join, octets
from ringfence.flows.pairs import ports_of

SLICE = 16_384
"""Records; some 60 MB while they become conversations, each of them another."""


def slices(records: NDArray[np.void], most: int = SLICE) -> Iterator[NDArray[np.void]]:
    """Records (FLOW_DTYPE) in slices of about `most`, at least one; equal sets make equal slices.

    All records of a tuple at an interface, both ways, are in one slice, for they make one
    conversation: a slice has up to one tuple's records more than `most`.
    """
    if len(records) <= most:
        yield records
        return
    for rows in _cut(_tuples(records), most):
        yield records[rows]


def _cut(keys: Bytes, most: int) -> list[NDArray[np.int64]]:
    """Rows in the order of their keys, cut behind each `most` where the next key begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(keys))
    cuts = starts[np.searchsorted(starts, np.arange(most, len(keys), most))]
    return [rows for rows in np.split(order, np.unique(cuts)) if len(rows)]


def _tuples(records: NDArray[np.void]) -> Bytes:
    """Interface, protocol and both ends, the same for both ways."""
    sport, dport = ports_of(records)
    source = join(records["src"], octets(sport, ">u2"))
    target = join(records["dst"], octets(dport, ">u2"))
    low, high = np.where(source > target, [target, source], [source, target])
    return join(
        octets(records["ifindex"], ">u4"),
        records["protocol"],
        octets(low, low.dtype.str),
        octets(high, high.dtype.str),
    )
