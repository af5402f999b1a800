"""What log-only policies match: it is told, and decided by others."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action
from ringfence.model.verdict import Decision
from ringfence.policy import bits
from ringfence.policy.connection import Connections
from ringfence.policy.layer import RuleLayer
from ringfence.policy.match import Matcher


def logged(
    layer: RuleLayer, connections: Connections
) -> Iterator[tuple[Decision, NDArray[np.intp]]]:
    """The rules that log, and of which connections each speaks at any end that is a member."""
    rules = [(at, rule) for at, rule in enumerate(layer.rules) if rule.action is Action.LOG]
    if not rules:
        return
    matcher = Matcher(layer)
    distinct, which = matcher.classify(connections).distinct()
    matching = np.bitwise_or.reduce([*matcher.matching(distinct).values()])
    for at, rule in rules:
        yield rule.decision, np.flatnonzero(bits.holding(matching, at)[which])
