"""Which policies decided over observed connections, and over how many."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ringfence.control.analysis import by_inventory, connections_of
from ringfence.flows.connections import Records
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import PolicyId, WorkspaceName
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.policy.evaluate import UNGOVERNED, evaluate
from ringfence.policy.moment import Moment
from ringfence.policy.order import Enforced, PolicySet

Usage = Counter[tuple[WorkspaceName, PolicyId]]


async def usage(
    records: Records,
    timeline: Timeline,
    until_ns: int,
    tree: ScopeTree,
    bound: Iterable[Enforced],
    moment: Moment,
) -> Usage:
    """For each policy the ends of connections at which it decides, each by its own inventory.

    What else it means is what it means at one moment.
    """
    bound = tuple(bound)

    def count(part: Records, snapshot: Snapshot) -> Usage:
        policies = PolicySet(snapshot, tree, bound, moment)
        verdicts = evaluate(policies, connections_of(part, snapshot))
        counts: Usage = Counter()
        for role in EndRole:
            places, ends = np.unique(verdicts.deciding(role), return_counts=True)
            for place, number in zip(places.tolist(), ends.tolist(), strict=True):
                decision = policies.rules[place].decision if place != UNGOVERNED else None
                if decision and decision.policy is not None:
                    counts[decision.workspace, decision.policy] += number
        return counts

    total: Usage = Counter()
    async for rows, snapshot in by_inventory(records, timeline, until_ns):
        total += await asyncio.to_thread(count, records.take(rows), snapshot)
    return total
