"""Rows of counts put together where chance may have made the difference between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Counts = NDArray[np.float64]

_STRAY = 8.0
"""What one of several members does by itself, so many times more rarely than others, is a stray."""
_SEVERAL = 3


@dataclass(frozen=True)
class Rows:
    """Groups of members by trait, arrays of shape (groups, traits)."""

    counts: Counts
    """How often it was seen to be so."""
    times: Counts
    """For how long it might have been seen."""
    holders: Counts
    """Of how many members."""
    sizes: Counts
    """How many members each group has, of shape (groups,)."""

    def take(self, rows: slice | Numbers | int) -> "Rows":
        """Some of the groups."""
        parts = (self.counts, self.times, self.holders, self.sizes)
        return Rows(*(np.atleast_1d(part[rows]) for part in parts))

    def added(self, group: Numbers) -> "Rows":
        """The groups put together, by the number of what each is in."""
        parts = (self.counts, self.times, self.holders, self.sizes)
        sums = [np.zeros((int(group.max(initial=-1)) + 1, *part.shape[1:])) for part in parts]
        for total, part in zip(sums, parts, strict=True):
            np.add.at(total, group, part)
        return Rows(*sums)


def join(rows: Rows, sure: float) -> Numbers:
    """Groups of rows that no trait tells apart, from 0 on; those that do nothing are one.

    Traits tell apart what would be one by chance once in e^`sure` times. The longest seen come
    first, and draw others that are like them.
    """
    found = np.zeros(len(rows.sizes), dtype=np.int64)
    idle = rows.counts.sum(1) == 0
    sums = Rows(*(np.zeros_like(part) for part in vars(rows).values()))
    weight = np.log1p(len(found) / np.maximum((rows.counts > 0).sum(0), 1))
    groups = 0
    for row in np.argsort(-rows.times.sum(1), kind="stable").tolist():
        if idle[row]:
            continue
        known = sums.take(slice(0, groups))
        one = rows.take(slice(row, row + 1))
        like = _likeness(known, one, weight) * ~_told_apart(known, one, sure)
        best = int(like.argmax()) if groups and like.max() > 0 else groups
        groups = max(groups, best + 1)
        for total, part in zip(vars(sums).values(), vars(rows).values(), strict=True):
            total[best] += part[row]
        found[row] = best
    found[idle] = groups
    return found


def _told_apart(known: Rows, one: Rows, sure: float) -> NDArray[np.bool_]:
    """Of several groups, whether one has what the row lacks or lacks what it has, beyond chance.

    If they were one, c sightings would all fall into its share s of the time with probability s^c.
    """
    whole = np.maximum(known.times + one.times, 1)
    apart = np.zeros(len(known.sizes), dtype=np.bool_)
    for has, lacks in ((one, known), (known, one)):
        share = np.maximum(has.times, 1) / whole
        seen = np.where(_stray(has), 0, has.counts) * _lacking(lacks, has)
        apart |= (-seen * np.log(share) > sure).any(1)
    return apart


def _stray(rows: Rows) -> NDArray[np.bool_]:
    """What one member alone of several does: it may be broken into, or lead the others."""
    return np.asarray((rows.holders == 1) & (rows.sizes[:, None] >= _SEVERAL))


def _lacking(rows: Rows, than: Rows) -> NDArray[np.bool_]:
    rarer = rows.counts * than.times * _STRAY < than.counts * rows.times
    return np.asarray((rows.counts == 0) | (_stray(rows) & rarer))


def _likeness(known: Rows, one: Rows, weight: Counts) -> Counts:
    """The cosine between rates; traits that few rows have weigh more."""
    theirs, own = (
        np.sqrt(rows.counts / np.maximum(rows.times, 1)) * weight for rows in (known, one)
    )
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(own)
    return np.asarray((theirs @ own[0]) / lengths)
