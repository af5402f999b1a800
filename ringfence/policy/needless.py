"""Which policies could go without any connection being judged otherwise, and why.

A policy is *shadowed* where rules before it decide all its connections, and *redundant* where what
would decide in its place says the same, each time as long as it counts: a policy that expires
stands in for none that goes on. Both are worked out on sets of connections (`policy.space`), for
one inventory. Where these are not exact, and where a policy comes to several rules, it counts as
needed: what is told here can be relied on, but there may be more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from pyroaring import BitMap

from ringfence.model.policy import Action
from ringfence.model.verdict import EndRole, Stage
from ringfence.policy import bits
from ringfence.policy.evaluate import DIRECTIONS
from ringfence.policy.layer import OrderedRule, RuleLayer
from ringfence.policy.space import Region, Space, without


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
        self._regions: dict[EndRole, list[list[Region]]] = {role: [] for role in EndRole}
        for rule in layer.rules:
            met = {} if rule.action is Action.LOG else space.regions(rule)
            for role, listed in self._regions.items():
                listed.append(met[role] if met and rule.decides(DIRECTIONS[role]) else [])
        self._ends = [inf if rule.expires_ns is None else rule.expires_ns for rule in layer.rules]
        self._until = {
            end: BitMap(at for at, other in enumerate(self._ends) if other >= end)
            for end in set(self._ends)
        }
        self._index = {role: _Index(rules, len(space)) for role, rules in self._regions.items()}

    def shadowing(self, place: int, gone: BitMap) -> tuple[OrderedRule, ...]:
        """The rules before that leave nothing to the one at the place; none if they do not."""
        before = (self._lasting(place) & BitMap(range(place))) - gone
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
        lasting = self._lasting(place)
        before = (lasting & BitMap(range(place))) - gone
        after = BitMap(range(place + 1, len(self._rules))) - gone
        instead: set[int] = set()
        for role in EndRole:
            left, _ = self._taken(role, self._regions[role][place], before)
            for other in self._near(role, left, after) if left else ():
                regions = self._regions[role][other]
                if not any(mine.meets(its) for mine in left for its in regions):
                    continue
                if self._rules[other].action is not self._rules[place].action:
                    return ()
                left, took = _take(left, regions if other in lasting else ())
                if took:
                    instead.add(other)
                if not left:
                    break
            if left:
                return ()
        return tuple(self._rules[other] for other in sorted(instead))

    def _lasting(self, place: int) -> BitMap:
        """The places of the rules that last as long as the one at the place."""
        return self._until[self._ends[place]]

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
        """Those of the places whose rules may meet the regions: no others need be asked."""
        return others & BitMap.union(BitMap(), *map(self._index[role].near, regions))


class _Index:
    """Which rules have an atom among their consumers, and among their providers."""

    def __init__(self, rules: Sequence[Sequence[Region]], atoms: int) -> None:
        self._sides = bits.table(atoms, len(rules)), bits.table(atoms, len(rules))
        for place, regions in enumerate(rules):
            for at, table in enumerate(self._sides):
                held = BitMap.union(BitMap(), *(region.sides[at] for region in regions))
                bits.mark(table, held.to_array(), place)

    def near(self, region: Region) -> BitMap:
        """The places of rules that share a consumer and a provider with the region."""
        consumers, providers = (
            np.bitwise_or.reduce(table[region.sides[at].to_array()], axis=0)
            for at, table in enumerate(self._sides)
        )
        return BitMap(bits.places(consumers & providers))


def _take(left: list[Region], others: Sequence[Region]) -> tuple[list[Region], bool]:
    """What is left of regions without others, and whether that is less."""
    rest = without(left, others)
    return rest, len(rest) != len(left) or any(
        one is not other for one, other in zip(rest, left, strict=True)
    )
