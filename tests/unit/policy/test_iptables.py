"""What iptables can say of a program, and what it refuses."""

from dataclasses import replace

import pytest

from ringfence.model.address import parse_address, parse_network
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import ICMP, ICMPV6, TCP, PortRange
from ringfence.policy.backends.interface import Ruleset, UnsupportedError
from ringfence.policy.backends.iptables import Iptables
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)

IN, PEERS = ProgramId("in"), SetId("peers")
CATCH_ALL = Rule("catch-all/shop/p1", Action.DENY, None, (), None)


def rendered(rule: Rule, *peers: str) -> Ruleset:
    binding = PodBinding("uid", "shop", "pod", (parse_address("10.0.0.1"),), (IN,), ())
    policy = NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {PEERS: tuple(map(parse_network, peers))},
        {IN: Program((rule, CATCH_ALL))},
        (binding,),
        NodeBinding((), None, None, None),
        (),
    )
    return Iptables().render_pod(policy, binding)


def lines(rule: Rule, *peers: str) -> list[str]:
    """What the program's rules but the last ask, in both families."""
    start = "-A RINGFENCE-INPUT-1 "
    found = (line for line in rendered(rule, *peers).frame.splitlines() if line.startswith(start))
    return [
        line.removeprefix(start).partition(" -m comment")[0]
        for line in found
        if rule.handle in line
    ]


def allow(protocol: int | None, *ports: PortRange, peers: SetId | None = None) -> Rule:
    return Rule("default/shop/p1/a", Action.ALLOW, protocol, ports, peers)


def test_more_ports_than_one_match_takes_are_several_rules() -> None:
    ports = [PortRange(port, port) for port in range(1, 14)] + [
        PortRange(20, 30),
        PortRange(40, 50),
    ]
    numbers = ",".join(map(str, range(1, 14)))
    assert lines(allow(TCP, *ports)) == 2 * [
        f"-p 6 -m multiport --dports {numbers},20:30",
        "-p 6 -m multiport --dports 40:50",
    ]


def test_messages_of_icmp_are_types_or_codes_one_by_one() -> None:
    assert lines(allow(ICMP, IcmpType(8).ports)) == ["-p 1 -m icmp --icmp-type 8"]
    assert lines(allow(ICMPV6, PortRange(1 << 8 | 3, 1 << 8 | 4))) == [
        "-p 58 -m icmp6 --icmpv6-type 1/3",
        "-p 58 -m icmp6 --icmpv6-type 1/4",
    ]


def test_no_set_holds_all_addresses_in_one_block() -> None:
    rules = rendered(allow(TCP, peers=PEERS), "0.0.0.0/0", "::/0")
    assert set(rules.sets.values()) == {
        frozenset({"0.0.0.0/1", "128.0.0.0/1"}), frozenset({"::/1", "8000::/1"})
    }  # fmt: skip


def test_a_rule_about_no_address_of_a_family_is_none() -> None:
    (line,) = lines(allow(TCP, peers=PEERS), "10.0.0.2")
    assert line.endswith(" src")
    assert lines(allow(TCP, peers=PEERS)) == []


def test_what_a_set_holds_is_in_its_name() -> None:
    """So that another address is another set, and rules change together with what they ask."""
    backend = Iptables()
    one, two = (rendered(allow(TCP, peers=PEERS), *p) for p in (["10.0.0.2"], ["10.0.0.3"]))
    assert one.sets.keys().isdisjoint(two.sets)
    assert one.denials == two.denials
    commands = backend.transaction(two, one)
    assert "10.0.0.3" in commands
    assert "10.0.0.2" not in commands
    assert backend.transaction(one, one) == ""
    again = backend.transaction(one, None)
    assert again.count("create rf_") == len(one.sets) + len(one.drop_sets)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (allow(0), "protocol 0"),
        (replace(CATCH_ALL, rejects=True), "rejects in its filter table alone"),
        (allow(47, PortRange(1, 1)), "no ports for 47"),
        (allow(ICMP, IcmpType(255).ports), "ICMP type 255"),
        (Rule('quote"', Action.ALLOW, None, (), None), "handle"),
    ],
)
def test_what_iptables_would_misread_is_refused(rule: Rule, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        rendered(rule)
