"""What log-only policies match: it is told, and decided by others."""

from collections.abc import Iterator

import numpy as np

from ringfence.model.policy import Action
from ringfence.model.verdict import Decision, EndRole
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import DIRECTIONS, end_items
from ringfence.policy.layer import RuleLayer
from ringfence.policy.match import Matcher, Rows, holds


def logged(layer: RuleLayer, connections: Connections) -> Iterator[tuple[Decision, Rows]]:
    """The rules that log, and of which connections each speaks at any end that is a member."""
    rules = [rule for rule in layer.rules if rule.action is Action.LOG]
    if not rules:
        return
    matcher = Matcher(layer, connections)
    for rule in rules:
        found = [
            matcher.matching(rule, role, np.flatnonzero(holds(layer.snapshot, rule.members, items)))
            for role in EndRole
            for items in [end_items(connections, role)]
            if rule.decides(DIRECTIONS[role])
        ]
        yield rule.decision, np.unique(np.concatenate(found))
