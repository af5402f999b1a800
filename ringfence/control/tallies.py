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
    last_ns = seen.column("last_ns")
    base = len(deciding.rules) + 1
    rules = np.zeros(len(seen), np.int64)
    for role in EndRole:
        rules = rules * base + deciding.numbers[role] + 1
    found: list[Tally] = []
    for category, counts in fate.categories(allowed).items():
        rows = np.flatnonzero(counts * view)
        codes, rule_at = np.unique(rules[rows] * (category not in _UNJUDGED), return_inverse=True)
        ends = Ends(seen.take(rows), item_of) if category in UNTOWARD else None
        both = (ends.which if ends else 0) * len(codes) + rule_at
        distinct, which = np.unique(both, return_inverse=True)
        total = np.bincount(which, counts[rows], len(distinct)).astype(np.int64)
        latest = np.zeros(len(distinct), np.int64)
        np.maximum.at(latest, which, last_ns[rows])
        tallies: dict[Cause, Tally] = {}
        for at in np.argsort(-total, kind="stable").tolist():
            end_at, code_at = divmod(int(distinct[at]), len(codes))
            told = ends.tell(end_at) if ends and len(tallies) < MOST_CAUSES else ()
            cause = Cause(category, _rules(deciding, int(codes[code_at]), base), *told)
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


class Ends:
    """The roles of connections' ends, protocol and port; `which` of the distinct ones each has."""

    def __init__(self, seen: Records, item_of: ItemOf) -> None:
        names: dict[str, int] = {}
        consumer, provider = (
            _numbers(seen.column(f"{end}_revision"), item_of, names)
            for end in ("first_consumer", "provider")
        )
        protocol, port = (
            seen.column(name).astype(np.int64) for name in ("protocol", "provider_port")
        )
        self._names = list(names)
        ends = consumer * len(names) + provider
        self._distinct, self.which = np.unique(
            (ends << 24) + (protocol << 16) + port, return_inverse=True
        )

    def tell(self, at: int) -> tuple[str, str, int, int]:
        """The consumer, the provider, the protocol and the port of a distinct one."""
        ends, traffic = divmod(int(self._distinct[at]), 1 << 24)
        consumer, provider = divmod(ends, len(self._names))
        return self._names[consumer], self._names[provider], traffic >> 16, traffic & 0xFFFF


def _numbers(
    revisions: NDArray[np.uint64], item_of: ItemOf, names: dict[str, int]
) -> NDArray[np.int64]:
    """Each item's role as the number that its name has in `names`, or gets there."""
    distinct, which = np.unique(revisions, return_inverse=True)
    told = [role_name(item_of(revision)) for revision in distinct.tolist()]
    numbers = [names.setdefault(name, len(names)) for name in told]
    return np.array(numbers, np.int64)[which]


def role_name(item: Item | None) -> str:
    """What stands for an item and all that do the same."""
    if item is None:
        return _NOBODY
    if item.kind is ItemKind.NODE:
        return f"nodes of {item.cluster}"
    name = item.workload_name or item.name
    return f"{item.namespace}/{name}" if item.namespace else name
