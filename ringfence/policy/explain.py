"""Why one connection passes or not: every rule that matches at each end, not only the first."""

from dataclasses import fields

import numpy as np

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.verdict import EndRole, EndVerdict, Verdict
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import DIRECTIONS, end_items
from ringfence.policy.match import Matcher
from ringfence.policy.order import PolicySet


def explain(policy_set: PolicySet, connections: Connections, row: int) -> Verdict:
    """The verdict on one connection. It has an end for each end that is a workload."""
    one = Connections(
        **{column.name: getattr(connections, column.name)[[row]] for column in fields(connections)}
    )
    matcher = Matcher(policy_set, one)
    ends = (_end(policy_set, matcher, one, role) for role in EndRole)
    return Verdict(tuple(end for end in ends if end))


def _end(
    policy_set: PolicySet, matcher: Matcher, one: Connections, role: EndRole
) -> EndVerdict | None:
    position = int(end_items(one, role)[0])
    if position == NOWHERE or position not in policy_set.snapshot.workloads:
        return None
    direction, only = DIRECTIONS[role], np.array([0])
    matching = tuple(
        rule.decision
        for rule in policy_set.rules
        if rule.decides(direction)
        and position in rule.members
        and len(matcher.matching(rule, role, only))
    )
    return EndVerdict(role, direction, policy_set.snapshot.items[position].key, matching)
