"""Filters over many items at once: a bitmap of positions for each value of each label.

A query over 100,000 items then costs a few set operations, plus one test per distinct value of
the compared label, never one per item.
"""

from collections.abc import Iterable

from pyroaring import BitMap

from ringfence.model.labels import Labels
from ringfence.model.query import And, Compare, Everything, Not, Operator, Or, Query, value_matches


class LabelIndex:
    """Positions 0..n-1 of labelled things, by label key and value. Immutable."""

    def __init__(self, labelled: Iterable[Labels]) -> None:
        self._values: dict[str, dict[str, BitMap]] = {}
        count = 0
        for position, labels in enumerate(labelled):
            count += 1
            for key, values in labels.items():
                by_value = self._values.setdefault(key, {})
                for value in values:
                    by_value.setdefault(value, BitMap()).add(position)
        self._all = BitMap(range(count))

    def select(self, query: Query) -> BitMap:
        """The positions whose labels satisfy the query."""
        match query:
            case Everything():
                return self._all.copy()
            case And(queries):
                return BitMap.intersection(*(self.select(part) for part in queries))
            case Or(queries):
                return BitMap.union(*(self.select(part) for part in queries))
            case Not(inner):
                return self._all - self.select(inner)
            case Compare(key, Operator.NE, values):
                return self._all - self.select(Compare(key, Operator.EQ, values))
            case Compare(key, Operator.EQ | Operator.IN, values):
                by_value = self._values.get(key, {})
                return _union(by_value[value] for value in values if value in by_value)
            case Compare(key):
                by_value = self._values.get(key, {})
                return _union(
                    held for value, held in by_value.items() if value_matches(query, value)
                )


def _union(bitmaps: Iterable[BitMap]) -> BitMap:
    return BitMap.union(BitMap(), *bitmaps)
