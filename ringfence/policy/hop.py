"""What a policy becomes at one hop, whichever namespace sees it."""

from dataclasses import dataclass
from typing import Self

from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange, disjoint
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.handle import format_handle
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import Behind, Rule, SetId


@dataclass(frozen=True, slots=True)
class Hop:
    """A rule that a policy became, and what it admits beyond the policy, if anything.

    Without a rule it tells a widening alone: that of the rules beside it, or of one left out.
    """

    rule: Rule | None
    widening: str = ""

    @classmethod
    def of(
        cls,
        rule: OrderedRule,
        peers: SetId | None,
        protocol: int | None,
        ports: tuple[PortRange, ...],
        local: SetId | None = None,
        widening: str = "",
        behind: Behind | None = None,
    ) -> Self:
        """A rule on what the hop sees of a policy, named by the policy."""
        denies_exactly = behind is not None and rule.action is Action.DENY
        handle = format_handle(rule.decision, widened=bool(widening) and not denies_exactly)
        told = disjoint(protocol, ports)
        made = Rule(handle, rule.action, protocol, told, peers, local, rule.rejects, behind)
        return cls(made, widening)


def everyone(end: ResolvedEnd, other: ResolvedEnd) -> bool:
    """Whether the end is every address: beside an own node it is only those that the node runs."""
    return end.anyone and not other.own_node
