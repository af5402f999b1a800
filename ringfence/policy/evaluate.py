"""The verdict on many connections at once: what analysis and simulation run on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import EndRole
from ringfence.policy.connection import Connections
from ringfence.policy.layer import OrderedRule, RuleLayer
from ringfence.policy.match import Matcher, Rows, holds

UNGOVERNED = -1
"""Stands for the place of the deciding rule at an end that nothing governs, or that is absent."""

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
    matcher = Matcher(layer, connections)
    denies = np.array([rule.action is Action.DENY for rule in layer.rules] + [False])
    allowed = np.ones(len(connections), dtype=np.bool_)
    places: dict[EndRole, NDArray[np.int32]] = {}
    for role in EndRole:
        places[role] = _first_matches(layer, matcher, end_items(connections, role), role)
        # UNGOVERNED, -1, finds the last element, which does not deny.
        allowed &= ~denies[places[role]]
    return Verdicts(allowed, places)


def all_allow(verdicts: Iterable[Verdicts]) -> NDArray[np.bool_]:
    """Which connections pass by the verdicts of every layer, of which there is at least one."""
    allowed: NDArray[np.bool_] = np.logical_and.reduce([one.allowed for one in verdicts])
    return allowed


def _first_matches(
    layer: RuleLayer, matcher: Matcher, items: NDArray[np.int32], role: EndRole
) -> NDArray[np.int32]:
    def matching(rule: OrderedRule, rows: Rows) -> Rows:
        return matcher.matching(rule, role, rows[holds(layer.snapshot, rule.members, items[rows])])

    governed = np.flatnonzero(holds(layer.snapshot, layer.governed, items))
    rules = [
        (place, rule)
        for place, rule in enumerate(layer.rules)
        if rule.decides(DIRECTIONS[role]) and rule.action is not Action.LOG
    ]
    return walk(rules, len(items), governed, matching)


def walk(
    rules: Iterable[tuple[int, OrderedRule]],
    count: int,
    governed: Rows,
    matching: Callable[[OrderedRule, Rows], Rows],
) -> NDArray[np.int32]:
    """For each of `count` rows the place of the rule that decides, UNGOVERNED where none does.

    `rules` stand in order, each with its place. `matching` says which of some rows a rule speaks
    of; only `governed` rows are asked about, each until it is decided.
    """
    places = np.full(count, UNGOVERNED, dtype=np.int32)
    closed = np.zeros(count, dtype=np.bool_)
    passed: list[Rows] = []
    undecided, stage = governed, None
    for place, rule in rules:
        if rule.decision.stage is not stage:
            stage = rule.decision.stage
            undecided = np.concatenate([undecided, *passed])
            closed[undecided] = False
            passed = []
        rows = matching(rule, undecided)
        if not len(rows):
            continue
        if rule.action is Action.PASS:
            passed.append(rows)
        else:
            places[rows] = place
        closed[rows] = True
        undecided = undecided[~closed[undecided]]
    return places
