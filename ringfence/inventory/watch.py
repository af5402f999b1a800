"""Which of many queries an item may satisfy, so that not all of them are tried."""

from collections.abc import Iterator

from ringfence.model.labels import Labels
from ringfence.model.query import And, Compare, Operator, Or, Query

_Label = tuple[str, str]
"""Key and value."""


class Watch:
    """Queries by labels of which each needs one.

    Of an AND the part counts that the most queries tell apart by: the namespace rather than `app`.
    """

    def __init__(self) -> None:
        self._by_label: dict[_Label, list[Query]] = {}
        self._others: list[Query] = []
        """Those that may hold whatever labels there are."""

    def add(self, query: Query) -> None:
        """Watch another query."""
        ways = list(_needed(query))
        if not ways:
            self._others.append(query)
            return
        rarest = min(ways, key=lambda labels: max(map(self._weight, labels)))
        for label in rarest:
            self._by_label.setdefault(label, []).append(query)

    def candidates(self, labels: Labels) -> list[Query]:
        """The queries that labels may satisfy, and some that they do not."""
        found = dict.fromkeys(self._others)
        for key, values in labels.items():
            for value in values:
                found.update(dict.fromkeys(self._by_label.get((key, value), ())))
        return list(found)

    def _weight(self, label: _Label) -> int:
        return len(self._by_label.get(label, ()))


def _needed(query: Query) -> Iterator[frozenset[_Label]]:
    """Sets of labels of each of which an item that satisfies the query has one at least."""
    match query:
        case Compare(key, Operator.EQ | Operator.IN, values):
            yield frozenset((key, value) for value in values)
        case And(queries):
            for part in queries:
                yield from _needed(part)
        case Or(queries):
            parts = [next(_needed(part), None) for part in queries]
            if all(parts):
                yield frozenset(label for part in parts if part for label in part)
