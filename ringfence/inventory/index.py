"""Filters over many items at once: a bitmap of positions for each value of each label.

A query over 100,000 items then costs a few set operations. Of an `and` the parts that are looked
up come first; those that test values one by one are left with the values of the rows that remain.
"""

from collections.abc import Iterable

from pyroaring import BitMap

from ringfence.model.labels import Labels
from ringfence.model.query import (
    And,
    Compare,
    Everything,
    Not,
    Operator,
    Or,
    Query,
    comparisons,
    value_matches,
)

_LOOKED_UP = frozenset({Operator.EQ, Operator.NE, Operator.IN, Operator.EXISTS})


class LabelIndex:
    """Positions 0..n-1 of labelled things, by label key and value. Immutable."""

    def __init__(self, labelled: Iterable[Labels]) -> None:
        self._labels = list(labelled)
        by_key: dict[str, dict[str, list[int]]] = {}
        for position, labels in enumerate(self._labels):
            for key, values in labels.items():
                by_value = by_key.setdefault(key, {})
                for value in values:
                    by_value.setdefault(value, []).append(position)
        self._values = {
            key: {value: BitMap(positions) for value, positions in by_value.items()}
            for key, by_value in by_key.items()
        }
        self._having = {key: _union(by_value.values()) for key, by_value in self._values.items()}
        self._all = BitMap(range(len(self._labels)))

    def select(self, query: Query) -> BitMap:
        """The positions whose labels satisfy the query."""
        return self._among(query, self._all)

    def _among(self, query: Query, rows: BitMap) -> BitMap:
        """Those of the rows that satisfy the query, as a set of its own."""
        match query:
            case Everything():
                return rows.copy()
            case And(queries):
                for part in sorted(queries, key=_tests):
                    rows = self._among(part, rows)
                return rows
            case Or(queries):
                return _union(self._among(part, rows) for part in queries)
            case Not(inner):
                return rows - self._among(inner, rows)
            case Compare(key, Operator.NE, values):
                return rows - self._among(Compare(key, Operator.EQ, values), rows)
            case Compare(key, Operator.EXISTS):
                return rows & self._having.get(key, BitMap())
            case Compare(key, Operator.EQ | Operator.IN, values):
                by_value = self._values.get(key, {})
                return rows & _union(by_value[value] for value in values if value in by_value)
            case Compare(key):
                by_value = self._values.get(key, {})
                candidates = self._candidates(query, rows)
                return rows & _union(
                    by_value[value] for value in candidates if value_matches(query, value)
                )

    def _candidates(self, compare: Compare, rows: BitMap) -> Iterable[str]:
        """The distinct values of the label: those of the rows alone, if rows are fewer."""
        by_value = self._values.get(compare.key, {})
        if len(rows) >= len(by_value):
            return by_value
        return {value for at in rows for value in self._labels[at].get(compare.key, ())}


def _tests(query: Query) -> bool:
    """Whether values have to be tested one by one."""
    return any(compare.operator not in _LOOKED_UP for compare in comparisons(query))


def _union(bitmaps: Iterable[BitMap]) -> BitMap:
    return BitMap.union(BitMap(), *bitmaps)
