"""Which policies could go without any connection being judged otherwise, and why.

A policy is *shadowed* where rules before it decide all its connections, and *redundant* where what
would decide in its place says the same. Both are worked out on sets of connections
(`policy.space`), for one inventory. Where these are not exact, and where a policy comes to several
rules, it counts as needed: what is told here can be relied on, but there may be more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pyroaring import BitMap

from ringfence.model.policy import Action
from ringfence.model.verdict import EndRole, Stage
from ringfence.policy.evaluate import DIRECTIONS
from ringfence.policy.layer import OrderedRule, RuleLayer
from ringfence.policy.space import Region, Space, without

_FEW = 256
"""Atoms of providers up to which rules are found by each of them."""


@dataclass(frozen=True, slots=True)
class Needless:
    """A policy that changes no verdict. `others` decide in its place, in order.

    `shadowed`: they do now, for they come first; otherwise they would.
    """

    rule: OrderedRule
    shadowed: bool
    others: tuple[OrderedRule, ...]


def needless(layer: RuleLayer, judged: Iterable[int]) -> list[Needless]:
    """Those of the policies at the places `judged` that are not needed, in order.

    Each may go alone, and all of them at once. A policy that speaks of no connection at all is not
    among them.
    """
    order, gone = _Order(layer), BitMap()
    found: dict[int, Needless] = {}
    for shadowed in (True, False):
        for place in judged:
            rule = layer.rules[place]
            if rule.decision.stage is Stage.CATCH_ALL or place in gone:
                continue
            others = order.shadowing(place, gone) if shadowed else order.same(place, BitMap())
            if others and (shadowed or order.same(place, gone)):
                found[place] = Needless(rule, shadowed, others)
                gone.add(place)
    return [found[place] for place in sorted(found)]


class _Order:
    """The rules of a layer as regions, by role and place."""

    def __init__(self, layer: RuleLayer) -> None:
        self._rules = layer.rules
        space = Space(layer)
        self._regions: dict[EndRole, list[list[Region]]] = {
            role: [
                space.regions(rule, role)
                if rule.decides(DIRECTIONS[role]) and rule.action is not Action.LOG
                else []
                for rule in layer.rules
            ]
            for role in EndRole
        }

    def shadowing(self, place: int, gone: BitMap) -> tuple[OrderedRule, ...]:
        """The rules before that leave nothing to the one at the place; none if they do not."""
        before = BitMap(range(place)) - gone
        covering: set[int] = set()
        speaks = False
        for role in EndRole:
            own = self._regions[role][place]
            speaks = speaks or bool(own)
            left, used = self._taken(role, own, before)
            if left:
                return ()
            covering |= used
        if not speaks:
            return ()
        for other in sorted(covering):
            if all(
                not without(regions[place], regions[other]) for regions in self._regions.values()
            ):
                return (self._rules[other],)
        return tuple(self._rules[other] for other in sorted(covering))

    def same(self, place: int, gone: BitMap) -> tuple[OrderedRule, ...]:
        """The rules that would decide in place of this one, if each says the same; else none."""
        before = BitMap(range(place)) - gone
        after = BitMap(range(place + 1, len(self._rules))) - gone
        instead: set[int] = set()
        for role in EndRole:
            left, _ = self._taken(role, self._regions[role][place], before)
            for other in self._near(role, left, after):
                regions = self._regions[role][other]
                if not any(mine.meets(its) for mine in left for its in regions):
                    continue
                if self._rules[other].action is not self._rules[place].action:
                    return ()
                left, took = _take(left, regions)
                if took:
                    instead.add(other)
                if not left:
                    break
            if left:
                return ()
        return tuple(self._rules[other] for other in sorted(instead))

    def _taken(
        self, role: EndRole, regions: Sequence[Region], others: BitMap
    ) -> tuple[list[Region], set[int]]:
        """What other rules leave of regions, and which of them take something."""
        left, used = list(regions), set()
        for other in self._near(role, left, others):
            left, took = _take(left, self._regions[role][other])
            if took:
                used.add(other)
            if not left:
                break
        return left, used

    def _near(self, role: EndRole, regions: Sequence[Region], others: BitMap) -> BitMap:
        """Those of the places whose rules may meet the regions, told apart by their providers."""
        reach = BitMap.union(BitMap(), *(region.sides[1] for region in regions))
        if len(reach) > _FEW:
            return others
        wide, at = self._providing[role]
        return others & BitMap.union(wide, *(at[atom] for atom in reach if atom in at))

    @cached_property
    def _providing(self) -> dict[EndRole, tuple[BitMap, dict[int, BitMap]]]:
        """The places of rules with many providers, and for each atom those of the other rules."""
        found: dict[EndRole, tuple[BitMap, dict[int, BitMap]]] = {}
        for role, rules in self._regions.items():
            wide, at = found[role] = BitMap(), {}
            for place, regions in enumerate(rules):
                reach = BitMap.union(BitMap(), *(one.sides[1] for one in regions))
                if len(reach) > _FEW:
                    wide.add(place)
                else:
                    for atom in reach:
                        at.setdefault(atom, BitMap()).add(place)
        return found


def _take(left: list[Region], others: Sequence[Region]) -> tuple[list[Region], bool]:
    """What is left of regions without others, and whether that is less."""
    rest = without(left, others)
    return rest, len(rest) != len(left) or any(
        one is not other for one, other in zip(rest, left, strict=True)
    )
