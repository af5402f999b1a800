"""Why one connection passes or not: every rule that matches at each end, not only the first."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.verdict import Decision, EndRole, EndVerdict, Verdict
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import DIRECTIONS, end_items
from ringfence.policy.layer import RuleLayer
from ringfence.policy.match import Matcher


def explain(layers: Sequence[RuleLayer], connections: Connections, row: int) -> Verdict:
    """The verdict on one connection by layers of one inventory, of which there is at least one.

    It has an end for each end that is a workload.
    """
    one = Connections(
        **{column.name: getattr(connections, column.name)[[row]] for column in fields(connections)}
    )
    matchers = [(layer, Matcher(layer, one)) for layer in layers]
    ends = []
    for role in EndRole:
        position, snapshot = int(end_items(one, role)[0]), layers[0].snapshot
        if position == NOWHERE or position not in snapshot.workloads:
            continue
        # Several rules of one decision may match, and it is told once.
        matching = dict.fromkeys(
            decision
            for layer, matcher in matchers
            for decision in _matching(layer, matcher, position, role)
        )
        ends.append(EndVerdict(role, DIRECTIONS[role], snapshot.items[position].key, (*matching,)))
    return Verdict(tuple(ends))


def _matching(
    layer: RuleLayer, matcher: Matcher, position: int, role: EndRole
) -> Iterator[Decision]:
    only = np.array([0])
    for rule in layer.rules:
        if not rule.decides(DIRECTIONS[role]) or position not in rule.members:
            continue
        if len(matcher.matching(rule, role, only)):
            yield rule.decision
