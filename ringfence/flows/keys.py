"""Tuples as keys of octets, so that numpy compares whole tuples at once, and which are equal.

Equal keys are found by a hash: sorting integers costs a tenth of sorting octets. Senders choose
what is in a tuple, so that the hash alone decides nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.bytes_]
"""Keys of one fixed width, a multiple of eight; numpy's null padding confuses none."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8


class Groups(NamedTuple):
    """Rows with equal keys, side by side in `order`, where each group begins at one of `starts`."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def one(self) -> NDArray[np.int64]:
        """A row of each group."""
        return self.order[self.starts]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many rows each group has."""
        return np.diff(self.starts, append=len(self.order))

    @property
    def which(self) -> NDArray[np.int64]:
        """The group of each row."""
        found = np.empty(len(self.order), dtype=np.int64)
        found[self.order] = np.repeat(np.arange(len(self.starts)), self.sizes)
        return found


def octets(values: NDArray[np.generic], kind: str) -> NDArray[np.uint8]:
    """Each value as a row of bytes, big-endian so that keys sort as their values do."""
    packed = np.ascontiguousarray(values.astype(kind, copy=False))
    return packed.view(np.uint8).reshape(len(packed), packed.dtype.itemsize)


def join(*parts: NDArray[np.generic]) -> Bytes:
    """One key per row out of columns of octets, shape (n, width), and of single bytes."""
    widths = [part.shape[1] if part.ndim > 1 else 1 for part in parts]
    width = -(-sum(widths) // _WORD) * _WORD
    joined = np.zeros((len(parts[0]), width), dtype=np.uint8)
    end = 0
    for part, wide in zip(parts, widths, strict=True):
        start, end = end, end + wide
        joined[:, start:end] = part.reshape(len(part), wide)
    return joined.view(f"S{width}").reshape(len(joined))


def group(keys: Bytes) -> Groups:
    """Which keys are equal; the groups are in no order that means anything."""
    hashes = hashed(keys)
    order = np.argsort(hashes)
    groups = Groups(order, _starts(hashes[order]))
    one, which = groups.one, groups.which
    if all((word[one][which] == word).all() for word in _words(keys)):
        return groups
    order = np.argsort(keys)
    return Groups(order, _starts(keys[order]))


def hashed(keys: Bytes) -> NDArray[np.uint64]:
    """A hash of each key."""
    hashes = np.zeros(len(keys), dtype=np.uint64)
    for word in _words(keys):
        hashes ^= word
        hashes *= _MULTIPLIER
        hashes ^= hashes >> np.uint64(32)
    return hashes


def spots(values: NDArray[np.generic], ordered: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where each value is in an ordered column, -1 where it is not."""
    if not len(ordered):
        return np.full(len(values), -1, dtype=np.int64)
    spot = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[spot] == values, spot, -1)


def _words(keys: Bytes) -> NDArray[np.uint64]:
    """The keys word by word, shape (words of a key, n)."""
    packed = np.ascontiguousarray(keys).view(np.uint64)
    return packed.reshape(len(keys), keys.dtype.itemsize // _WORD).T


def _starts(ordered: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where in an ordered column another value begins."""
    if not len(ordered):
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.nonzero(ordered[1:] != ordered[:-1])[0] + 1])
