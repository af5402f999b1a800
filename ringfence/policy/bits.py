"""Sets of rules as rows of bits, so that a few ANDs tell which rules many connections meet.

Bit i of a row, counted from the lowest bit of its first word, stands for the rule at place i.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
"""Rows of bits, shape (rows, words)."""

NONE = -1
_WORD = 64


def table(rows: int, rules: int) -> Bits:
    """That many rows without a bit, wide enough for that many rules."""
    return np.zeros((rows, -(-rules // _WORD)), dtype="<u8")


def mark(rows: Bits, at: Any, rule: int) -> None:
    """Set the rule's bit in the rows that `at`, anything numpy indexes by, chooses."""
    rows[at, rule // _WORD] |= np.uint64(1 << rule % _WORD)


def first(rows: Bits) -> NDArray[np.int32]:
    """The lowest place in each row, NONE where the row is empty."""
    if not rows.shape[1]:
        return np.full(len(rows), NONE, dtype=np.int32)
    at = (rows != 0).argmax(axis=1)
    word = np.take_along_axis(rows, at[:, None], axis=1)[:, 0]
    below = np.bitwise_count((word & -word) - np.uint64(1))
    return np.where(word != 0, at * _WORD + below, NONE).astype(np.int32)


def holding(rows: Bits, rule: int) -> NDArray[np.bool_]:
    """Which rows hold the rule."""
    word, bit = divmod(rule, _WORD)
    held: NDArray[np.bool_] = rows[:, word] & np.uint64(1 << bit) != 0
    return held


def places(row: Bits) -> list[int]:
    """All places in one row, in order."""
    held: list[int] = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()
    return held


def distinct(rows: Bits) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The positions of rows of which each is the first of its kind, and the kind of every row."""
    if not rows.shape[1]:
        return np.zeros(min(len(rows), 1), dtype=np.intp), np.zeros(len(rows), dtype=np.intp)
    keys = np.ascontiguousarray(rows).view(f"V{rows.shape[1] * rows.itemsize}").ravel()
    _, chosen, kinds = np.unique(keys, return_index=True, return_inverse=True)
    return chosen, kinds


def pack(held: NDArray[np.bool_]) -> Bits:
    """Rows of truth values, shape (rows, rules), as rows of bits."""
    rows, rules = held.shape
    packed = table(rows, rules)
    octets = np.packbits(held, axis=1, bitorder="little")
    packed.view(np.uint8)[:, : octets.shape[1]] = octets
    return packed


def unpack(rows: Bits, rules: int) -> NDArray[np.bool_]:
    """Rows of bits as truth values, shape (rows, rules)."""
    octets = np.ascontiguousarray(rows).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=rules, bitorder="little").view(np.bool_)
