"""Rows of counts put together where chance may have made the difference between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Groups of members by trait, arrays of shape (groups, traits)."""

    counts: Counts
    """How often it was seen to be so."""
    times: Counts
    """For how long it might have been seen."""

    def take(self, rows: slice | Numbers) -> "Rows":
        """Some of the groups."""
        return Rows(self.counts[rows], self.times[rows])

    def only(self, traits: NDArray[np.bool_]) -> "Rows":
        """Some of the traits."""
        return Rows(self.counts[:, traits], self.times[:, traits])

    def added(self, group: Numbers) -> "Rows":
        """The groups put together, by the number of what each is in."""
        shape = int(group.max(initial=-1)) + 1, self.counts.shape[1]
        sums = Rows(np.zeros(shape), np.zeros(shape))
        np.add.at(sums.counts, group, self.counts)
        np.add.at(sums.times, group, self.times)
        return sums


def join(rows: Rows, sure: float, marks: NDArray[np.bool_] | None = None) -> Numbers:
    """Groups of rows that no trait tells apart, from 0 on; those that do nothing are one.

    Traits tell apart what would be one by chance once in e^`sure` times, and so do `marks`: rows
    that have some of these traits, but none of them in common. The longest seen come first, and
    draw others that are like them.
    """
    found = np.zeros(len(rows.counts), dtype=np.int64)
    idle = rows.counts.sum(1) == 0
    sums = Rows(np.zeros_like(rows.counts), np.zeros_like(rows.times))
    weight = np.log1p(len(found) / np.maximum((rows.counts > 0).sum(0), 1))
    groups = 0
    for row in np.argsort(-rows.times.sum(1), kind="stable").tolist():
        if idle[row]:
            continue
        known = sums.take(slice(0, groups))
        one = rows.take(slice(row, row + 1))
        apart = _told_apart(known, one, sure)
        if marks is not None:
            apart |= _unlike(known.counts[:, marks] > 0, one.counts[:, marks] > 0)
        like = _likeness(known, one, weight) * ~apart
        best = int(like.argmax()) if groups and like.max() > 0 else groups
        groups = max(groups, best + 1)
        sums.counts[best] += rows.counts[row]
        sums.times[best] += rows.times[row]
        found[row] = best
    found[idle] = groups
    return found


def _unlike(known: NDArray[np.bool_], one: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where both have marks, and none in common."""
    return np.asarray(known.any(1) & one.any() & ~(known & one).any(1))


def _told_apart(known: Rows, one: Rows, sure: float) -> NDArray[np.bool_]:
    """Of several groups, whether one has what the row lacks or lacks what it has, beyond chance.

    If they were one, c sightings would all fall into its share s of the time with probability s^c.
    """
    whole = np.maximum(known.times + one.times, 1)
    apart = np.zeros(len(known.counts), dtype=np.bool_)
    for has, lacks in ((one, known), (known, one)):
        share = np.maximum(has.times, 1) / whole
        chance = np.where(lacks.counts == 0, has.counts, 0) * np.log(share)
        apart |= (chance < -sure).any(1)
    return apart


def _likeness(known: Rows, one: Rows, weight: Counts) -> Counts:
    """The cosine between rates; traits that few rows have weigh more."""
    theirs, own = (
        np.sqrt(rows.counts / np.maximum(rows.times, 1)) * weight for rows in (known, one)
    )
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(own)
    return np.asarray((theirs @ own[0]) / lengths)
