"""Tables that nobody of us wrote, as the kernel tells them: judged in time, or refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.model.protocol import TCP
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof import reading, reading_iptables
from ringfence.policy.proof.classes import disagreement
from ringfence.policy.proof.packets import Axis, Outcome, Packet, Table, judge
from ringfence.policy.proof.witness import met

Listing = list[dict[str, Any]]
TEN = 10
TO_77 = Packet(4, {Axis.PROTOCOL: TCP, Axis.PORT: 77})
TO_78 = Packet(4, {Axis.PROTOCOL: TCP, Axis.PORT: 78})


def of_nftables(levels: int) -> Listing:
    """Chains that each call the next ten times; the last one drops what goes to port 77."""

    def rules() -> Iterator[tuple[str, list[dict[str, Any]]]]:
        yield "rf_input", [{"jump": {"target": "level0"}}]
        for level in range(levels - 1):
            yield from [(f"level{level}", [{"jump": {"target": f"level{level + 1}"}}])] * TEN
        port = {"payload": {"protocol": "tcp", "field": "dport"}}
        asks = {"match": {"op": "==", "left": port, "right": 77}}
        yield f"level{levels - 1}", [asks, {"drop": None}]

    base = {"type": "filter", "hook": "input", "prio": -150, "policy": "accept"}
    return [
        {"table": {"family": "inet", "name": "ringfence"}},
        {"chain": {"name": "rf_input", **base}},
        *({"chain": {"name": f"level{level}"}} for level in range(levels)),
        *(
            {"rule": {"chain": chain, "handle": handle, "expr": expr}}
            for handle, (chain, expr) in enumerate(rules(), start=1)
        ),
    ]


def of_iptables(*rules: str) -> Listing:
    """Rules in chains of ours, the first of which INPUT calls."""
    chains = list(dict.fromkeys(rule.split()[1] for rule in rules))
    jump = {"text": f"-A INPUT -j {chains[0]}", "first": True, "called": True}
    return [
        {"jump": {"family": 4, **jump}},
        *({"chain": {"family": 4, "name": name}} for name in chains),
        *({"rule": {"family": 4, "text": rule, "packets": 0}} for rule in rules),
    ]


def deep(levels: int) -> Listing:
    """The same of iptables."""
    calls = [f"-A RINGFENCE-{at} -j RINGFENCE-{at + 1}" for at in range(levels - 1)] * TEN
    return of_iptables(*calls, f"-A RINGFENCE-{levels - 1} -p 6 -m tcp --dport 77 -j DROP")


@pytest.mark.parametrize(
    "table",
    [reading.read(of_nftables(14), 4), reading_iptables.read(deep(14), 4)],
    ids=["nftables", "iptables"],
)
def test_chains_that_call_chains_many_times_are_asked_once(table: Table) -> None:
    assert judge(table, "input", TO_77)[0] is Outcome.DROP
    assert judge(table, "input", TO_78)[0] is Outcome.ACCEPT
    found = disagreement(table, Table(4, {}, {}), "input", 1)
    assert found.packets[0].numbers[Axis.PORT] == TO_77.numbers[Axis.PORT]


def test_a_rule_that_many_calls_lead_to_is_told_once() -> None:
    listed = of_nftables(14)
    (rule,) = met(listed, "input", TO_77)
    assert rule.handle == listed[-1]["rule"]["handle"]


@pytest.mark.parametrize(
    ("read", "listed"),
    [(reading.read, of_nftables), (reading_iptables.read, deep)],
    ids=["nftables", "iptables"],
)
def test_calls_deeper_than_any_of_ours_are_refused(read: Any, listed: Any) -> None:
    with pytest.raises(UnprovableError, match="levels deep"):
        read(listed(3000), 4)


@pytest.mark.parametrize("module", ["eui64", "socket", "u32", "rpfilter"])
def test_a_module_that_matches_without_an_option_is_not_known(module: str) -> None:
    with pytest.raises(UnprovableError, match=f'has "-m {module}", which no rule'):
        reading_iptables.read(of_iptables(f"-A RINGFENCE-INPUT -m {module} -j DROP"), 4)
    told = reading_iptables.read(of_iptables("-A RINGFENCE-INPUT -m tcp -j DROP"), 4)
    assert judge(told, "input", TO_77)[0] is Outcome.DROP
