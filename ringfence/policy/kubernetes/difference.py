"""What two folders of manifests permit differently."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ringfence.model.address import parse_address
from ringfence.model.ranges import AddressRange
from ringfence.policy.kubernetes.axes import NOTHING, format_range
from ringfence.policy.kubernetes.connectivity import Connectivity

_Pair = tuple[str, str]
_KINDS = ("changed", "added", "removed")


@dataclass(frozen=True, slots=True)
class Change:
    """Connections from `source` to `target` before and after.

    `workloads` are those of the two that are in one of the folders only.
    """

    source: str
    target: str
    before: str
    after: str
    workloads: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        if NOTHING not in (self.before, self.after):
            return "changed"
        return "added" if self.before == NOTHING else "removed"

    @property
    def line(self) -> str:
        """The change in words."""
        told = ""
        if self.workloads:
            told = f", workloads-diff-info: workload {' and '.join(self.workloads)} {self.kind}"
        return (
            f"diff-type: {self.kind}, source: {self.source}, destination: {self.target}, "
            f"ref1: {self.before}, ref2: {self.after}{told}"
        )


def changes(old: Connectivity, new: Connectivity) -> list[Change]:
    """All differences: changed ones first, then added, then removed, each sorted."""
    in_both = {one.display for one in old.workloads} & {one.display for one in new.workloads}
    in_any = {one.display for one in (*old.workloads, *new.workloads)}
    before, after = _permitted(old), _permitted(new)
    found = []
    for pair in {*before, *after}:
        for (source, target), was, will in _aligned(
            pair, before.get(pair, {}), after.get(pair, {})
        ):
            if was != will:
                only = tuple(one for one in pair if one in in_any and one not in in_both)
                found.append(Change(source, target, was, will, only))
    return sorted(found, key=lambda one: (_KINDS.index(one.kind), one.line))


_OUTSIDE = "[External]"


def _permitted(read: Connectivity) -> dict[_Pair, dict[AddressRange, str]]:
    """What each pair may do; outside addresses are one end, here by range, else by none."""
    found: dict[_Pair, dict[AddressRange, str]] = {}
    for edge in read.edges():
        pair, addresses = (edge.source, edge.target), (0, 0)
        for at, end in enumerate(pair):
            if end.endswith(_OUTSIDE):
                first, _, last = end.removesuffix(_OUTSIDE).partition("-")
                addresses = _number(first), _number(last)
                pair = ("", edge.target) if at == 0 else (edge.source, "")
        found.setdefault(pair, {})[addresses] = edge.connections
    return found


def _number(address: str) -> int:
    return int.from_bytes(parse_address(address))


def _aligned(
    pair: _Pair, before: dict[AddressRange, str], after: dict[AddressRange, str]
) -> Iterator[tuple[_Pair, str, str]]:
    """The pair with what was and is permitted, range by range where one end is outside."""
    if "" not in pair:
        yield pair, before.get((0, 0), NOTHING), after.get((0, 0), NOTHING)
        return
    cuts = sorted({edge for first, last in (*before, *after) for edge in (first, last + 1)})
    merged: list[tuple[int, int, str, str]] = []
    for first, following in pairwise(cuts):
        was, will = _at(before.items(), first), _at(after.items(), first)
        if merged and merged[-1][1:] == (first - 1, was, will):
            merged[-1] = merged[-1][0], following - 1, was, will
        else:
            merged.append((first, following - 1, was, will))
    for first, last, was, will in merged:
        outside = f"{format_range((first, last))}{_OUTSIDE}"
        yield (pair[0] or outside, pair[1] or outside), was, will


def _at(permitted: Iterable[tuple[AddressRange, str]], address: int) -> str:
    held = (text for (first, last), text in permitted if first <= address <= last)
    return next(held, NOTHING)
