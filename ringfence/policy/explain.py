"""Why connections pass or not: every rule that matches at each end, not only the first."""

from collections.abc import Iterator, Sequence

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.verdict import EndRole, EndVerdict, Verdict
from ringfence.policy import bits
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import DIRECTIONS, end_items
from ringfence.policy.layer import RuleLayer
from ringfence.policy.match import Matcher


def explain(layers: Sequence[RuleLayer], connections: Connections) -> list[Verdict]:
    """The verdict on each connection by layers of one inventory, of which there is at least one.

    It has an end for each end that is a workload. For few connections: it tells each in full.
    """
    snapshot = layers[0].snapshot
    matching = []
    for layer in layers:
        matcher = Matcher(layer)
        matching.append((layer.rules, matcher.matching(matcher.classify(connections))))

    def ends(row: int) -> Iterator[EndVerdict]:
        for role in EndRole:
            position = int(end_items(connections, role)[row])
            if position != NOWHERE and position in snapshot.workloads:
                # Several rules of one decision may match, and it is told once.
                decisions = dict.fromkeys(
                    rules[place].decision
                    for rules, by_role in matching
                    for place in bits.places(by_role[role][row])
                )
                key = snapshot.items[position].key
                yield EndVerdict(role, DIRECTIONS[role], key, tuple(decisions))

    return [Verdict(tuple(ends(row))) for row in range(len(connections))]
