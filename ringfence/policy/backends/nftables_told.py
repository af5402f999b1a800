"""Which of the rules that nft tells stand for which rule of a program."""

import re

from ringfence.policy.backends.groups import HAS_PORTS
from ringfence.policy.program import Rule

_CHAINS = {"input": "rf_input", "output": "rf_output", "prerouting": "rf_received"}
"""How the chains are called that judge at a hook, or how their names begin."""
_LOOKUP = re.compile(r"@rf_(input|output|received)_\w*\d")
_SET = re.compile(r"@(rf_\w+)_[46]\b")
_COUNTED = re.compile(r"counter packets \d+ bytes \d+")
_NUMBERS = re.compile(r"\b\d+(?:-\d+)?\b")


def stands_for(rule: Rule, hook: str, chain: str, comment: str, text: str) -> bool:
    """Whether the rule that nft prints so, of either family, is this one of a program."""
    if comment != rule.handle or not chain.startswith(_CHAINS[hook]):
        return False
    if set(_SET.findall(text)) != {f"rf_{held}" for held in (rule.peers, rule.local) if held}:
        return False
    numbers = _NUMBERS.findall(_COUNTED.sub("", text))
    return rule.protocol not in HAS_PORTS or {*map(str, rule.ports)} <= {*numbers}


def is_lookup(text: str) -> bool:
    """Whether a rule that nft prints so stands for many of a program."""
    return _LOOKUP.search(text) is not None
