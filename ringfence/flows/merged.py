"""Rows that tell of one conversation again and again, put together to one.

A file of flows has a row for each slot of time; what is judged of them is the same in most. A part
of the file after the other is put to what was read before, so that what is held grows with what is
distinct, not with the file.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.flows.connections import Records
from ringfence.flows.exported import COUNTS
from ringfence.inventory.holders import Octets, distinct_rows
from ringfence.model.errors import InputError

_ADDED = (*(name for name in COUNTS if name != "dropped"), "rtt_sum_ns")
_AGAIN = 2
"""By how much rows may have grown before they are put together once more."""
_FEW = 1_000_000
MOST_ADDED = 2**63
"""What counts do not add up to: not far above they would begin anew at 0."""


class Merging:
    """Conversations that come part by part; `apart` tells rows of one conversation from others."""

    def __init__(self, apart: Callable[[Records], Octets]) -> None:
        self._apart = apart
        self._parts: list[Records] = []
        self._rows = self._most = 0

    def add(self, part: Records) -> None:
        """Some more rows, with the columns of `flows.recorded.read_flows`."""
        part, _ = merged(part, self._apart(part))
        self._parts.append(part)
        self._rows += len(part)
        if self._rows > max(self._most, _FEW):
            self.all()

    def all(self) -> Records:
        """What was added, a row for each conversation, as its newest row has it."""
        joined = concatenated(self._parts)
        self._parts = []  # whose memory is wanted
        found, _ = merged(joined, self._apart(joined))
        self._parts, self._rows, self._most = [found], len(found), _AGAIN * len(found)
        return found


def merged(seen: Records, apart: Octets) -> tuple[Records, NDArray[np.intp]]:
    """Rows that are equal in `apart` as one: counts added, from the first time to the last.

    All else is as the newest row has it, of which the places are told.
    """
    places, which = distinct_rows(apart)
    if len(places) == len(seen):
        return seen, np.arange(len(seen))
    order = np.lexsort((seen.column("last_ns"), which))
    starts = np.searchsorted(which[order], np.arange(len(places)))
    newest = order[np.append(starts[1:], len(order)) - 1]

    def over(how: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(how.reduceat(values[order], starts))

    def added(name: str, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        if values.sum(dtype=np.float64) >= MOST_ADDED:
            raise InputError(
                f"{name}: over {MOST_ADDED} in all: correct the column or leave it out"
            )
        return over(np.add, values)

    samples, least = seen.column("rtt_samples"), seen.column("rtt_min_ns")
    measured = np.where(samples > 0, least, np.iinfo(least.dtype).max)
    told = {name: added(name, seen.column(name)) for name in _ADDED}
    told["first_ns"] = over(np.minimum, seen.column("first_ns"))
    told["rtt_min_ns"] = np.where(told["rtt_samples"] > 0, over(np.minimum, measured), 0)
    table = seen.table.take(pa.array(newest))
    for name, values in told.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values))
    return Records(table, added("dropped", seen.dropped), seen.translated[newest]), newest


def concatenated(parts: list[Records]) -> Records:
    """Conversations of several parts as one; there is one part at least."""
    return Records(
        pa.concat_tables([one.table for one in parts]).combine_chunks(),
        np.concatenate([one.dropped for one in parts]),
        np.concatenate([one.translated for one in parts]),
    )
