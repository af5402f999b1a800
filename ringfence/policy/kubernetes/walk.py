"""Which rule decides, rule by rule: for the few rules that govern one class of pods."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action
from ringfence.policy.evaluate import UNGOVERNED
from ringfence.policy.layer import OrderedRule

Rows = NDArray[np.intp]


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
