"""Who held an address within a span of time, for many pairs of both at once."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.inventory.seen_from import SeenFrom, meant
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId


@dataclass(frozen=True, slots=True)
class Holding:
    """One revision holds an address in [from_ns, to_ns); `shared` if only as a node's guest.

    Revision 0: the address is in one of its Kubernetes cluster's pod networks.
    """

    from_ns: int
    to_ns: int
    revision: RevisionId
    shared: bool
    cluster: ClusterId


SEVERAL = 2**64 - 1
"""What `locate` answers where more than one item held an address; no revision is so high."""


Octets = NDArray[np.uint8]
"""What rows are told apart by, in shape (n, any)."""

Segments = tuple[NDArray[np.int64], NDArray[np.uint64]]
"""An address's holders in time: ascending starts, and who holds it from each on (0: nobody)."""


def segments(holdings: Iterable[Holding], home: ClusterId) -> Segments:
    """One holder at a time, as seen from a cluster; SEVERAL where several others hold it.

    Of those that count an owner comes before a guest, the later before the earlier.
    """
    living = [holding for holding in holdings if holding.from_ns < holding.to_ns]
    beginning: dict[int, list[Holding]] = {}
    ending: dict[int, list[Holding]] = {}
    for holding in living:
        beginning.setdefault(holding.from_ns, []).append(holding)
        ending.setdefault(holding.to_ns, []).append(holding)
    starts, holders = list[int](), list[int]()
    active: set[Holding] = set()
    for start in sorted(beginning.keys() | ending.keys()):
        active.difference_update(ending.get(start, ()))
        active.update(beginning.get(start, ()))
        holder = _holder(active, home)
        if not holders or holders[-1] != holder:
            starts.append(start)
            holders.append(holder)
    return np.array(starts, dtype=np.int64), np.array(holders, dtype=np.uint64)


def _holder(active: Collection[Holding], home: ClusterId) -> int:
    held = [one for one in active if one.revision]
    owned = len(held) < len(active)
    clusters = meant({one.cluster for one in held}, home, owned=owned)
    if not clusters:
        return SEVERAL if held and not owned else 0
    mine = (one for one in held if one.cluster in clusters)
    return max(mine, key=lambda one: (not one.shared, one.from_ns, one.revision)).revision


def locate(
    addresses: NDArray[np.uint8],
    first_ns: NDArray[np.int64],
    last_ns: NDArray[np.int64],
    seen_from: SeenFrom,
    segments_of: Callable[[Address, ClusterId], Segments],
    item_of: Callable[[RevisionId], ItemKey],
) -> NDArray[np.uint64]:
    """The revisions that held addresses, shape (n, 16), each at some time within [first, last].

    Of several of one item it is the earliest; 0 where nobody held the address, SEVERAL where more
    than one item did. `segments_of` is asked once for each distinct address and cluster.
    """
    places, which = distinct_rows(seen_from.beside(addresses))
    asked = zip(addresses[places], seen_from.which[places].tolist(), strict=True)
    found = [segments_of(Address(one.tobytes()), seen_from.clusters[at]) for one, at in asked]
    counts = np.array([len(starts) for starts, _ in found], dtype=np.int64)
    if not counts.sum():
        return np.zeros(len(addresses), dtype=np.uint64)
    starts = np.concatenate([starts for starts, _ in found])
    holders = np.concatenate([holders for _, holders in found])
    floor = np.cumsum(counts) - counts
    # One search for all: (address, instant) pairs as single numbers, instants by their rank.
    ranks = np.unique(starts)
    width = len(ranks) + 1
    owner = np.repeat(np.arange(len(found)), counts)
    ordered = owner * width + np.searchsorted(ranks, starts, side="right")

    def spots(of: NDArray[np.int64], times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        wanted = of * width + np.searchsorted(ranks, times_ns, side="right")
        return np.asarray(np.searchsorted(ordered, wanted, side="right") - 1)

    # Most addresses change hands nowhere in the time of all rows, and are told once for them all.
    every = np.arange(len(found))
    begin, end = (
        spots(every, np.broadcast_to(instant, every.shape))
        for instant in (first_ns.min(), last_ns.max())
    )
    steady = np.where(begin >= floor, holders[begin], np.uint64(0))
    held = steady[which]
    rows = np.nonzero((begin != end)[which])[0]
    # An address's segments follow each other; before its first one nobody held it.
    begin = np.maximum(spots(which[rows], first_ns[rows]), floor[which[rows]])
    end = spots(which[rows], last_ns[rows])
    held[rows] = np.where(begin == end, holders[np.minimum(begin, len(holders) - 1)], np.uint64(0))
    changed = np.nonzero(begin < end)[0]
    spans, span = np.unique(np.stack([begin, end])[:, changed], axis=1, return_inverse=True)
    only = [_only(holders[first : last + 1], item_of) for first, last in spans.T.tolist()]
    held[rows[changed]] = np.array(only, dtype=np.uint64)[span]
    return held


def octets_of(*columns: NDArray[Any]) -> Octets:
    """Columns of n values each as rows of octets."""
    packed = (np.ascontiguousarray(one) for one in columns)
    told = [one.view(np.uint8).reshape(len(one), one[:1].nbytes or 1) for one in packed]
    return np.concatenate(told, axis=1)


def distinct(rows: Octets) -> tuple[pa.FixedSizeBinaryArray, NDArray[np.int64]]:
    """The distinct ones of rows of octets, such as addresses, and which of them each one is."""
    packed = pa.py_buffer(np.ascontiguousarray(rows, dtype=np.uint8))
    column = pa.Array.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, packed])
    encoded = column.dictionary_encode()  # by hashes: sorting would take most of the time
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def distinct_rows(rows: Octets) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """As `distinct`, with a place of each distinct one."""
    found, which = distinct(rows)
    places = np.zeros(len(found), dtype=np.intp)
    places[which] = np.arange(len(rows))
    return places, which


def _only(revisions: NDArray[np.uint64], item_of: Callable[[RevisionId], ItemKey]) -> int:
    """The first revision if all are of one item, else SEVERAL; 0 is nobody's and left out."""
    present = [RevisionId(revision) for revision in revisions.tolist() if revision]
    if SEVERAL in present:
        return SEVERAL
    items = {item_of(revision) for revision in present}
    return SEVERAL if len(items) > 1 else present[0] if present else 0
