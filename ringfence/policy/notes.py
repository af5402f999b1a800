"""What a person should know of how rules came about, a line each."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from ringfence.model.ids import ItemKey
from ringfence.model.workload import Item
from ringfence.policy.handle import tell_decision
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import Enforced
from ringfence.policy.translate import Widening

Places = Mapping[tuple[str, str], frozenset[str]]
"""By a rule as people write it and by what it admits beyond its policy, the names of workloads."""


def unknown(rules: Iterable[OrderedRule]) -> Iterator[str]:
    """One line for each end of a policy of which the inventory knows nothing."""
    for rule in rules:
        for role, end in (("consumer", rule.consumer), ("provider", rule.provider)):
            if end.unknown:
                who = "everybody" if end.anyone else "nobody"
                policy = tell_decision(rule.decision)
                what = f"{role}'s {end.part}" if end.part else role
                yield f"{policy}: nothing is known of its {what}, which stands for {who}"


def overlaps(nodes: Iterable[Item]) -> Iterator[str]:
    """One line for each pair of Kubernetes clusters that have pod networks in common."""
    told = sorted(
        (network.first, network.last, node.cluster, str(network))
        for node in nodes
        for network in node.pod_networks
    )
    found: dict[tuple[str, str], str] = {}
    around: dict[str, int] = {}
    for first, last, cluster, written in told:
        around = {other: until for other, until in around.items() if until >= first}
        for other in around.keys() - {cluster}:
            one, two = sorted((cluster, other))
            found.setdefault((one, two), written)
        around[cluster] = max(last, around.get(cluster, 0))
    for (one, two), written in sorted(found.items()):
        yield (
            f"Kubernetes clusters {one} and {two} have pod networks in common, such as {written}:"
            " rules in either leave out what the other has at addresses of its own, and those of"
            " hosts outside what both have: there a DENY takes a CIDR"
        )


def void(enforced: Iterable[Enforced], at_ns: int) -> Iterator[str]:
    """One line for each policy that counts no more, or does not yet."""
    for workspace, version in enforced:
        for policy in workspace.policies:
            if policy.is_expired(at_ns):
                yield f"{workspace.name}/{policy.id}@p{version}: expired, and counts no more"
            elif policy.review:
                yield f"{workspace.name}/{policy.id}@p{version}: awaits review, and does not count"


def places(widenings: Iterable[Widening], named: Callable[[ItemKey], str]) -> Places:
    """Where rules admit more than their policies say; `named` tells a workload's name."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in widenings:
        found.setdefault((tell_decision(one.decision), one.text), set()).add(named(one.workload))
    return {told: frozenset(names) for told, names in found.items()}


def widened(found: Iterable[Places]) -> Iterator[str]:
    """One line for each rule that admits more than its policy says, with the workloads."""
    joined: dict[tuple[str, str], frozenset[str]] = {}
    for some in found:
        for told, names in some.items():
            joined[told] = joined.get(told, frozenset()) | names
    for (policy, text), names in sorted(joined.items()):
        yield f"{policy}: {text} (at {', '.join(sorted(names))})"
