"""Chains that call chains: a privileged pod may write what nobody can walk to the end."""

from collections.abc import Callable

import pytest

from ringfence.kernel.rules import Listing
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof import reading, reading_iptables
from ringfence.policy.proof.prove import Reader

FEW, MANY = (3, 10), (6, 10)
"""Levels of chains, and how often each calls the next one."""
DEEP = (900, 1)


def nftables(levels: int, calls: int) -> Listing:
    base = {"name": "rf_input", "hook": "input", "type": "filter", "prio": -150, "policy": "accept"}
    jumps = [("rf_input", "c0", 1), *((f"c{n}", f"c{n + 1}", calls) for n in range(levels))]
    rules = [{"chain": one, "handle": 1, "expr": [{"jump": {"target": to}}]}
             for one, to, times in jumps for _ in range(times)]  # fmt: skip
    rules.append({"chain": f"c{levels}", "handle": 1, "expr": [{"drop": None}]})
    rules.append({"chain": f"c{levels}", "handle": 1, "expr": [{"accept": None}]})
    chains = [base, *({"name": f"c{n}"} for n in range(levels + 1))]
    return [*({"chain": one} for one in chains), *({"rule": one} for one in rules)]


def iptables(levels: int, calls: int) -> Listing:
    jumps = [(f"C{n}", f"C{n + 1}", calls) for n in range(levels)]
    texts = [f"-A {one} -j {to}" for one, to, times in jumps for _ in range(times)]
    texts += [f"-A C{levels} -p 6 -j DROP", f"-A C{levels} -p 17 -j ACCEPT"]
    return [
        {"lo": {"loopback": True}},
        *({"chain": {"family": 4, "name": f"C{n}"}} for n in range(levels + 1)),
        *({"rule": {"family": 4, "text": text}} for text in texts),
        {"jump": {"family": 4, "text": "-A INPUT -j C0", "first": True}},
    ]


@pytest.mark.parametrize(
    ("read", "listed"), [(reading.read, nftables), (reading_iptables.read, iptables)]
)
def test_chains_that_call_others_in_too_many_ways_are_refused(
    read: Reader, listed: Callable[[int, int], Listing]
) -> None:
    assert read(listed(*FEW), 4).hooks["input"]
    for too_much in (MANY, DEEP):
        with pytest.raises(UnprovableError, match="too many ways, or too deep"):
            read(listed(*too_much), 4)
