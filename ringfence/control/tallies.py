"""Counts judged conversations by cause, without a look at each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ringfence.control.deciding import Deciding
from ringfence.flows.connections import Records
from ringfence.flows.disposition import Dispositions
from ringfence.inventory.timeline import Timeline
from ringfence.model.flow import Category
from ringfence.model.ids import RevisionId
from ringfence.model.tally import UNTOWARD, Cause, Tally, placeless
from ringfence.model.verdict import Decision, EndRole
from ringfence.model.workload import Item, ItemKind

ItemOf = Callable[[int], Item | None]
MOST_CAUSES = 2_000
"""Of one category in one time; the conversations of rarer ones are told without their ends."""
_UNJUDGED = (Category.UNANSWERED, Category.PENDING)
_NOBODY = "outside"


def tally(
    seen: Records,
    fate: Dispositions,
    view: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    deciding: Deciding,
    item_of: ItemOf,
) -> list[Tally]:
    """The causes among the connections in view, in a fixed order.

    A connection counts once, or as often as it was opened anew.
    """
    counts = np.maximum(seen.column("opened").astype(np.int64), 1)
    last_ns = seen.column("last_ns")
    base = len(deciding.rules) + 1
    rules = np.zeros(len(seen), np.int64)
    for role in EndRole:
        rules = rules * base + deciding.numbers[role] + 1
    found: list[Tally] = []
    for category, mask in fate.categories(allowed).items():
        rows = np.flatnonzero(mask & view)
        if category in UNTOWARD:
            ends = _Ends(seen.take(rows), item_of)
            codes = np.stack([rules[rows], *ends.columns], axis=1)
        else:
            ends = None
            codes = (rules[rows] * (category not in _UNJUDGED))[:, None]
        distinct, which = np.unique(codes, axis=0, return_inverse=True)
        which = which.reshape(-1)
        total = np.bincount(which, counts[rows], len(distinct)).astype(np.int64)
        latest = np.zeros(len(distinct), np.int64)
        np.maximum.at(latest, which, last_ns[rows])
        tallies: dict[Cause, Tally] = {}
        for at in np.argsort(-total, kind="stable").tolist():
            told = ends.tell(distinct[at, 1:]) if ends and len(tallies) < MOST_CAUSES else ()
            cause = Cause(category, _rules(deciding, int(distinct[at, 0]), base), *told)
            fold(tallies, Tally(cause, int(total[at]), int(latest[at])))
        found += tallies.values()
    return found


def fold(found: dict[Cause, Tally], one: Tally, most: int | None = None) -> None:
    """Add conversations to those of the same cause; beyond `most` causes ends are not told."""
    cause = one.cause
    if most is not None and cause not in found and len(found) >= most:
        cause = Cause(cause.category, cause.rules)
    before = found.get(cause)
    count, last_ns = one.conversations, one.last_ns
    if before is not None:
        count, last_ns = count + before.conversations, max(last_ns, before.last_ns)
    found[cause] = Tally(cause, count, last_ns)


def items_of(timeline: Timeline) -> ItemOf:
    """The items of an inventory's revisions; None for 0, nobody, and for one that is not kept."""

    def item_of(revision: int) -> Item | None:
        try:
            return timeline.revision(RevisionId(revision))[0] if revision else None
        except KeyError:
            return None

    return item_of


def _rules(deciding: Deciding, code: int, base: int) -> tuple[tuple[EndRole, Decision], ...]:
    """The rules that a code of numbers stands for."""
    found = []
    for role in reversed(EndRole):
        code, number = divmod(code, base)
        if number:
            found.append((role, placeless(deciding.rules[number - 1])))
    return tuple(reversed(found))


class _Ends:
    """The roles of some connections' ends, as numbers of distinct ones."""

    def __init__(self, seen: Records, item_of: ItemOf) -> None:
        self._names: dict[str, int] = {}
        ends = (
            self._numbers(seen.column(f"{end}_revision"), item_of)
            for end in ("first_consumer", "provider")
        )
        numbers = (seen.column(name).astype(np.int64) for name in ("protocol", "provider_port"))
        self.columns = [*ends, *numbers]
        self._by_number = list(self._names)

    def _numbers(self, revisions: NDArray[np.uint64], item_of: ItemOf) -> NDArray[np.int64]:
        distinct, which = np.unique(revisions, return_inverse=True)
        names = [role_name(item_of(revision)) for revision in distinct.tolist()]
        numbers = [self._names.setdefault(name, len(self._names)) for name in names]
        return np.array(numbers, np.int64)[which]

    def tell(self, numbers: NDArray[np.int64]) -> tuple[str, str, int, int]:
        consumer, provider, protocol, port = numbers.tolist()
        return self._by_number[consumer], self._by_number[provider], protocol, port


def role_name(item: Item | None) -> str:
    """What stands for an item and all that do the same."""
    if item is None:
        return _NOBODY
    if item.kind is ItemKind.NODE:
        return f"nodes of {item.cluster}"
    name = item.workload_name or item.name
    return f"{item.namespace}/{name}" if item.namespace else name
