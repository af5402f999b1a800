"""Of which rows of a file its inventory leaves in doubt who they are of.

Each kind of doubt is told once, with how many rows it concerns and one of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.connections import Records
from ringfence.inventory.holders import SEVERAL, distinct_rows
from ringfence.inventory.recorded import Recorded
from ringfence.model.address import Address, format_address
from ringfence.model.instant import format_instant
from ringfence.model.words import counted

_ENDS = ("first_consumer", "provider", "dialled")
_SHARED = (
    "of addresses that several Kubernetes clusters hold, and nothing tells in which they were"
    " seen: these are nobody's"
)
_TWICE = "of addresses that two pods of one Kubernetes cluster hold at once: the later counts"
_UNKNOWN = (
    "of Kubernetes clusters that the inventory has nothing of, taken for those of another where"
    " that alone holds their addresses"
)
_BEYOND = "outside of the time that the inventory tells of"

Mask = NDArray[np.bool_]


@dataclass
class _Doubt:
    rows: int
    example: str


class Doubts:
    """What is in doubt of rows that are told in parts."""

    def __init__(self, held: Recorded) -> None:
        self._held, self._found = held, dict[str, _Doubt]()
        self._twice = held.timeline.as_known().pods_at_once()

    def add(self, seen: Records) -> None:
        """Some more rows, as `flows.recorded` reads them."""
        first_ns, last_ns = seen.column("first_ns"), seen.column("last_ns")
        middle_ns = first_ns + (last_ns - first_ns) // 2
        beyond = (first_ns >= self._held.until_ns) | (last_ns < self._held.since_ns)
        self._count(_BEYOND, seen, beyond)
        seen_from, timeline = seen.seen_from, self._held.timeline
        unknown = [one != "" and not timeline.knows(one) for one in seen_from.clusters]
        self._count(_UNKNOWN, seen, np.array([*unknown, False])[seen_from.which])
        shared, twice = (np.zeros(len(seen), dtype=np.bool_) for _ in range(2))
        for end in _ENDS:
            nobody = np.flatnonzero(seen.column(f"{end}_revision") == 0)
            if len(nobody):
                at_ns, addresses = middle_ns[nobody], seen.column(end)[nobody]
                homes = seen_from.take(nobody)
                held = timeline.resolve_or_several(addresses, at_ns, at_ns, homes)
                shared[nobody[held == SEVERAL]] = True
            twice |= self._at_once(seen, end, middle_ns)
        self._count(_SHARED, seen, shared)
        self._count(_TWICE, seen, twice)

    def lines(self) -> list[str]:
        """What is to be told, a line for each kind."""
        return [
            f"{counted(one.rows, 'row')} {what}, such as {one.example}"
            for what, one in sorted(self._found.items())
        ]

    def _at_once(self, seen: Records, end: str, at_ns: NDArray[np.int64]) -> Mask:
        found = np.zeros(len(seen), dtype=np.bool_)
        if not self._twice:
            return found
        addresses, clusters = seen.column(end), seen.seen_from
        known = np.array(list({address for _, address in self._twice}), dtype="V16")
        packed = np.ascontiguousarray(addresses).view("V16").ravel()
        rows = np.flatnonzero(np.isin(packed, known))
        places, which = distinct_rows(clusters.take(rows).beside(addresses[rows]))
        parts = np.split(rows[np.argsort(which)], np.cumsum(np.bincount(which))[:-1])
        for row, part in zip(rows[places].tolist(), parts, strict=True) if len(rows) else ():
            held = clusters.clusters[clusters.which[row]], Address(addresses[row].tobytes())
            for first, after in self._twice.get(held, ()):
                found[part] |= (first <= at_ns[part]) & (at_ns[part] < after)
        return found

    def _count(self, what: str, seen: Records, rows: Mask) -> None:
        some = np.flatnonzero(rows)
        if len(some):
            doubt = self._found.setdefault(what, _Doubt(0, _written(seen, int(some[0]))))
            doubt.rows += len(some)


def _written(seen: Records, row: int) -> str:
    ends = [Address(seen.column(end)[row].tobytes()) for end in ("first_consumer", "provider")]
    cluster = seen.table["kubernetes_cluster"][row].as_py()
    where = f" in {cluster}" if cluster else ""
    first = format_instant(int(seen.column("first_ns")[row]))
    return f"{' to '.join(map(format_address, ends))}{where} at {first}"
