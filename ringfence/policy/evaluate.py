"""The verdict on many connections at once: what analysis and simulation run on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import EndRole, Stage
from ringfence.policy import bits
from ringfence.policy.bits import Bits
from ringfence.policy.connection import Connections
from ringfence.policy.layer import OrderedRule, RuleLayer
from ringfence.policy.match import Matcher

UNGOVERNED = bits.NONE
"""Stands for the place of the deciding rule at an end that nothing governs, or that is absent."""

_AT_ONCE = 4096
"""Combinations of classes judged at once: their rules then stay in the processor's cache."""

DIRECTIONS: Mapping[EndRole, Direction] = {
    EndRole.CONSUMER: Direction.OUTBOUND,
    EndRole.PROVIDER: Direction.INBOUND,
    EndRole.NODE: Direction.INBOUND,
}


@dataclass(frozen=True)
class Verdicts:
    """What a layer makes of n connections and which rule made it so at each end."""

    allowed: NDArray[np.bool_]
    places: Mapping[EndRole, NDArray[np.int32]]

    def deciding(self, role: EndRole) -> NDArray[np.int32]:
        """The places in the layer's `rules` of the deciding rules, UNGOVERNED where none is."""
        return self.places[role]


def end_items(connections: Connections, role: EndRole) -> NDArray[np.int32]:
    """The positions of the items in that role, NOWHERE where there is none."""
    match role:
        case EndRole.CONSUMER:
            return connections.consumer_item
        case EndRole.PROVIDER:
            return connections.provider_item
        case EndRole.NODE:
            return connections.node_item


def evaluate(layer: RuleLayer, connections: Connections) -> Verdicts:
    """Judge all connections by one layer; the first rule that matches decides at each end."""
    matcher, order = Matcher(layer), Order(layer.rules)
    distinct, which = matcher.classify(connections).distinct()
    judged = {role: np.empty(len(distinct), dtype=np.int32) for role in EndRole}
    for start in range(0, len(distinct), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        for role, matching in matcher.matching(distinct.take(rows)).items():
            judged[role][rows] = order.deciding(matching)
    allowed = ~np.logical_or.reduce([order.denies[judged[role]] for role in EndRole])
    return Verdicts(allowed[which], {role: judged[role][which] for role in EndRole})


class Order:
    """What the first of some matching rules says, where PASS leaves it to the next stage."""

    def __init__(self, rules: tuple[OrderedRule, ...]) -> None:
        # One element more than there are rules: UNGOVERNED, -1, neither denies nor passes.
        self.denies = np.array([one.action is Action.DENY for one in rules] + [False])
        self._passes = np.array([one.action is Action.PASS for one in rules] + [False])
        stages: dict[Stage, int] = {}
        numbers = [stages.setdefault(one.decision.stage, len(stages)) for one in rules]
        self._stage = np.array(numbers, dtype=np.intp)
        self._later = bits.table(len(stages), len(rules))
        self._deciding = bits.table(1, len(rules))
        for place, number in enumerate(numbers):
            bits.mark(self._later, slice(number), place)
            if rules[place].action is not Action.LOG:
                bits.mark(self._deciding, 0, place)

    def deciding(self, matching: Bits) -> NDArray[np.int32]:
        """The place of the rule that decides among those in each row, UNGOVERNED for none."""
        matching = matching & self._deciding
        places = bits.first(matching)
        left = np.flatnonzero(self._passes[places])
        matching = matching[left]
        while len(left):
            matching = matching & self._later[self._stage[places[left]]]
            places[left] = found = bits.first(matching)
            passed = self._passes[found]
            left, matching = left[passed], matching[passed]
        return places
