"""The verdict on many connections at once: what analysis and simulation run on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import EndRole
from ringfence.policy.connection import Connections
from ringfence.policy.match import Matcher, holds
from ringfence.policy.order import PolicySet

UNGOVERNED = -1
"""Stands for the place of the deciding rule at an end that nothing governs, or that is absent."""

DIRECTIONS: Mapping[EndRole, Direction] = {
    EndRole.CONSUMER: Direction.OUTBOUND,
    EndRole.PROVIDER: Direction.INBOUND,
    EndRole.NODE: Direction.INBOUND,
}


@dataclass(frozen=True)
class Verdicts:
    """What becomes of n connections and which rule made it so at each end."""

    allowed: NDArray[np.bool_]
    places: Mapping[EndRole, NDArray[np.int32]]

    def deciding(self, role: EndRole) -> NDArray[np.int32]:
        """The places in `PolicySet.rules` of the deciding rules, UNGOVERNED where none is."""
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


def evaluate(policy_set: PolicySet, connections: Connections) -> Verdicts:
    """Judge all connections; the first rule that matches decides at each governed end."""
    matcher = Matcher(policy_set, connections)
    denies = np.array([rule.action is Action.DENY for rule in policy_set.rules] + [False])
    allowed = np.ones(len(connections), dtype=np.bool_)
    places: dict[EndRole, NDArray[np.int32]] = {}
    for role in EndRole:
        places[role] = _first_matches(policy_set, matcher, end_items(connections, role), role)
        # UNGOVERNED, -1, finds the last element, which does not deny.
        allowed &= ~denies[places[role]]
    return Verdicts(allowed, places)


def _first_matches(
    policy_set: PolicySet, matcher: Matcher, items: NDArray[np.int32], role: EndRole
) -> NDArray[np.int32]:
    snapshot = policy_set.snapshot
    places = np.full(len(items), UNGOVERNED, dtype=np.int32)
    undecided = np.flatnonzero(holds(snapshot, policy_set.governed, items))
    for place, rule in enumerate(policy_set.rules):
        if not rule.decides(DIRECTIONS[role]):
            continue
        rows = undecided[holds(snapshot, rule.members, items[undecided])]
        places[matcher.matching(rule, role, rows)] = place
        undecided = undecided[places[undecided] == UNGOVERNED]
    return places
