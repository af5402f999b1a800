"""Rows of counts put together where chance may have made the difference between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import Mask, Numbers

Counts = NDArray[np.float32]
_TRIED = 16
"""How many groups, the most like it first, a row is held against."""
_EVEN = 2.0
"""How many times as often as another a replica may do a thing: load is not spread evenly."""
_LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Rows:
    """Groups of members by trait, arrays of shape (groups, traits)."""

    counts: Counts
    """How often it was seen to be so."""
    times: Counts
    """For how long it might have been seen."""

    def take(self, row: int | Numbers) -> "Rows":
        """One of the groups, arrays of shape (traits,), or some of them."""
        return Rows(self.counts[row], self.times[row])

    def only(self, traits: Mask) -> "Rows":
        """Some of the traits."""
        return Rows(self.counts[:, traits], self.times[:, traits])

    def added(self, group: Numbers) -> "Rows":
        """The groups put together, by the number of what each is in."""
        shape = int(group.max(initial=-1)) + 1, self.counts.shape[1]
        sums = Rows(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        np.add.at(sums.counts, group, self.counts)
        np.add.at(sums.times, group, self.times)
        return sums


@dataclass(frozen=True)
class Telling:
    """How traits tell rows apart, masks of shape (traits,)."""

    lacked: Mask
    """One has it and the other does not."""
    rated: Mask
    """One has it more often than the other."""
    marks: tuple[Mask, ...] = ()
    """Both have some of these traits, but none of them in common."""


def join(rows: Rows, sure: float, telling: Telling) -> Numbers:
    """Groups of rows that no trait tells apart, from 0 on; those that do nothing are one.

    Marks tell by themselves, all else if what would be one were so by chance once in e^`sure`
    times. The longest seen come first, and draw others that are like them, which a process in
    common alone does not make them: anything may be run by one.
    """
    found = np.zeros(len(rows.counts), dtype=np.int64)
    idle = rows.counts.sum(1) == 0
    sums = Rows(np.zeros_like(rows.counts), np.zeros_like(rows.times))
    having = np.maximum((rows.counts > 0).sum(0), 1)
    weight = np.log1p(len(found) / having) * telling.lacked
    lengths = np.zeros(len(found))
    groups = 0
    for row in np.argsort(-rows.times.sum(1), kind="stable").tolist():
        if idle[row]:
            continue
        one = rows.take(row)
        has = np.nonzero(one.counts)[0]
        theirs = _rates(Rows(sums.counts[:groups, has], sums.times[:groups, has]))
        like = (theirs * weight[has] ** 2) @ _rates(one)[has] / np.maximum(lengths[:groups], _LEAST)
        best = groups
        for group in np.argsort(-like, kind="stable")[:_TRIED].tolist():
            known = sums.take(group)
            if like[group] > 0 and not _told_apart(known, one, sure, telling):
                best = group
                break
        groups = max(groups, best + 1)
        sums.counts[best] += one.counts
        sums.times[best] += one.times
        lengths[best] = np.linalg.norm(_rates(sums.take(best)) * weight)
        found[row] = best
    found[idle] = groups
    return found


def _told_apart(known: Rows, one: Rows, sure: float, telling: Telling) -> bool:
    for mark in telling.marks:
        ours, theirs = one.counts[mark] > 0, known.counts[mark] > 0
        if ours.any() and theirs.any() and not (ours & theirs).any():
            return True
    for more, less in ((one, known), (known, one)):
        tells = np.where(less.counts == 0, telling.lacked, telling.rated)
        at = np.nonzero((more.counts > 0) & tells)[0]
        has, lacks = more.counts[at], less.counts[at]
        its = np.maximum(more.times[at], 1) * np.where(lacks > 0, _EVEN, 1.0)
        if (_surprise(has, lacks, its / (its + less.times[at])) > sure).any():
            return True
    return False


def _surprise(has: Counts, lacks: Counts, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far chance would put so many of all sightings into a share of the time: -ln of it.

    By Chernoff's bound; where the rest of the time has none, c of them fall into a share s of it
    with probability s^c.
    """
    part = has / (has + lacks)
    rest = np.maximum(1 - part, _LEAST) / np.maximum(1 - share, _LEAST)
    return np.where(part > share, has * np.log(part / share) + lacks * np.log(rest), 0)


def _rates(rows: Rows) -> Counts:
    """The roots, so that what is done all the time does not drown the rest."""
    return np.asarray(np.sqrt(rows.counts / np.maximum(rows.times, 1)))
