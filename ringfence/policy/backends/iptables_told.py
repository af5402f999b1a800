"""Which of the rules that iptables tells stand for which rule of a program."""

from collections.abc import Callable
from functools import cache

from ringfence.model.policy import Direction
from ringfence.policy.backends.iptables import lines_of
from ringfence.policy.program import NodePolicy, Rule

_CHAINS = {"input": "RINGFENCE-INPUT", "output": "RINGFENCE-OUTPUT",
           "prerouting": "RINGFENCE-RECEIVED"}  # fmt: skip
"""How the chains are called that judge at a hook, or how their names begin."""


def finder(policy: NodePolicy) -> Callable[[Rule, str, str, str], bool]:
    """Tells whether a line in a chain is the one of a rule of the policy at a hook, or one of them.

    The line is as `agent.inspect` tells it: counters, chain, what is asked, comment and verdict.
    """

    @cache
    def asked(rule: Rule, direction: Direction) -> frozenset[str]:
        return frozenset(lines_of(policy, rule, direction))

    def stands_for(rule: Rule, hook: str, chain: str, line: str) -> bool:
        if not chain.startswith(_CHAINS[hook]):
            return False
        said = line.partition(f" -A {chain} ")[2].rpartition(" -")[0]
        return said in asked(rule, Direction.OUTBOUND if hook == "output" else Direction.INBOUND)

    return stands_for
