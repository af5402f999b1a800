"""Which of the rules that nft tells stand for which rule of a program."""

import re

from ringfence.model.protocol import format_protocol
from ringfence.policy.backends.groups import HAS_PORTS
from ringfence.policy.backends.nftables_table import TAG, ports_name
from ringfence.policy.program import Rule

_CHAINS = {"input": "rf_input", "output": "rf_output", "prerouting": "rf_received"}
"""How the chains are called that judge at a hook, or how their names begin."""
_LOOKUP = re.compile(r"@rf_(input|output|received)_\w*\d")
_SET = re.compile(rf"@(rf_\w+)_[46]_[0-9a-f]{{{TAG}}}\b")
_COUNTED = re.compile(r"counter packets \d+ bytes \d+")
_NUMBERS = re.compile(r"\b\d+(?:-\d+)?\b")


def stands_for(rule: Rule, hook: str, chain: str, comment: str, text: str) -> bool:
    """Whether the rule that nft prints so, of either family, is this one of a program."""
    if comment != rule.handle or not judges_at(hook, chain):
        return False
    if set(_SET.findall(text)) != {f"rf_{held}" for held in (rule.peers, rule.local) if held}:
        return False
    said = _COUNTED.sub("", text)
    if not rule.ports or rule.protocol not in HAS_PORTS:
        return " dport " not in said
    dialled = f"{format_protocol(rule.protocol).lower()} dport "
    if f"{dialled}@{ports_name(rule.protocol, rule.ports)}_" in said:
        return True
    return dialled in said and {*map(str, rule.ports)} <= {*_NUMBERS.findall(said)}


def judges_at(hook: str, chain: str) -> bool:
    """Whether a chain judges by a program at a hook."""
    return chain.startswith(_CHAINS[hook])


def is_lookup(text: str) -> bool:
    """Whether a rule that nft prints so stands for many of a program."""
    return _LOOKUP.search(text) is not None
