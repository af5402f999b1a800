"""Rows of counts put together where chance may have made the difference between them."""

import numpy as np
from numpy.typing import NDArray

_SURE = 8.0
"""Of one role, what tells two of its parts apart would be seen once in e^8 times."""

Counts = NDArray[np.float64]


def join(counts: Counts, times: Counts) -> NDArray[np.int64]:
    """Groups of rows that no column tells apart, from 0 on; those without any count are one.

    `counts` and `times` have the shape (rows, columns): how often each was seen to do it, and for
    how long it might have been. The longest seen come first, and draw others that are like them.
    """
    found = np.zeros(len(counts), dtype=np.int64)
    sums, spans = np.zeros_like(counts), np.zeros_like(times)
    idle = counts.sum(1) == 0
    weight = np.log1p(len(counts) / np.maximum((counts > 0).sum(0), 1))
    groups = 0
    for row in np.argsort(-times.sum(1), kind="stable").tolist():
        if idle[row]:
            continue
        known = slice(0, groups)
        apart = _told_apart(sums[known], spans[known], counts[row], times[row])
        like = _likeness(sums[known], spans[known], counts[row], times[row], weight) * ~apart
        best = int(like.argmax()) if groups and like.max() > 0 else groups
        groups = max(groups, best + 1)
        sums[best] += counts[row]
        spans[best] += times[row]
        found[row] = best
    found[idle] = groups
    return found


def _told_apart(sums: Counts, spans: Counts, count: Counts, time: Counts) -> NDArray[np.bool_]:
    """Of several groups, whether one has what the row lacks or lacks what it has, beyond chance.

    If they were one, c sightings would all fall into its share s of the time with probability s^c.
    """
    lacks = np.where(sums == 0, count, 0), np.where(count == 0, sums, 0)
    whole = np.maximum(spans + time, 1)
    shares = np.maximum(time, 1) / whole, np.maximum(spans, 1) / whole
    chance = lacks[0] * np.log(shares[0]) + lacks[1] * np.log(shares[1])
    return np.asarray((chance < -_SURE).any(1))


def _likeness(
    sums: Counts, spans: Counts, count: Counts, time: Counts, weight: Counts
) -> NDArray[np.float64]:
    """The cosine between rates; columns in which few rows have any weigh more."""
    theirs = np.sqrt(sums / np.maximum(spans, 1)) * weight
    own = np.sqrt(count / np.maximum(time, 1)) * weight
    return np.asarray(theirs @ own / (np.linalg.norm(theirs, axis=1) * np.linalg.norm(own)))
