"""Rules that a back end asks together decide as the program does, rule by rule."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.model.address import Network, parse_address, parse_network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, SCTP, TCP, UDP, PortRange
from ringfence.policy.backends.groups import FEW, HAS_PORTS, Lookup, Shape, grouped
from ringfence.policy.program import NodeBinding, NodePolicy, Rule, SetId
from ringfence.policy.recheck import Opened, first_match

BLOCKS = [
    parse_network(text) for text in ("10.0.0.0/28", "10.0.0.0/30", "10.0.0.4/31", "fd00::/64")
]
BLOCKS += [parse_network(f"10.0.0.{last}") for last in range(12)]
SOURCES = [parse_address(f"10.0.0.{last}") for last in range(17)]
PORTS = (0, 1, 79, 80, 81, 443, 8080, 65535)
ALLOWED = Rule("any", Action.ALLOW, None, (), None)
PROTOCOLS = (TCP, UDP, SCTP, ICMP, 47)
OPENED = [
    (source, protocol, port) for source in SOURCES for protocol in PROTOCOLS for port in PORTS
]


@given(st.randoms(use_true_random=False))
def test_groups_decide_as_the_program(random: Random) -> None:
    sets = {SetId(f"s{at}"): _disjoint(random) for at in range(6)}
    rules = list(_rules(random))
    rules.append(Rule("catch-all", Action.DENY, None, (), None))
    policy = NodePolicy(
        ClusterId("c"), NodeName("n"), sets, {}, (), NodeBinding((), None, None, None), ()
    )
    expected = [rules[place] for place in first_match(policy, rules, Direction.INBOUND, _opened())]
    tables = [_decided(group, rules, policy) for group in grouped(rules, sets, v4=True)]
    for row, rule in enumerate(expected):
        found = next(table[row] for table in tables if row in table)
        assert found.action is rule.action, OPENED[row]
        assert found.action is Action.ALLOW or found is rule, OPENED[row]


def test_rules_of_a_kind_are_few_groups() -> None:
    """However many peers and ports they name, and whatever they say in which order."""
    ports = [(PortRange(at, at),) for at in range(1, 201)]
    sets = {SetId(f"s{at}"): (BLOCKS[at % len(BLOCKS)],) for at in range(200)}
    denied = [
        Rule(f"no{at}", Action.DENY, TCP, ports[at], SetId(f"s{at}")) for at in range(FEW + 1)
    ]
    allowed = [Rule(f"p{at}", Action.ALLOW, TCP, ports[at], SetId(f"s{at}")) for at in range(200)]
    everywhere = [Rule(f"e{at}", Action.ALLOW, UDP, ports[at], None) for at in range(200)]
    more = [replace(rule, handle=f"more-{rule.handle}", ports=()) for rule in denied]
    mixed = [rule for pair in zip(allowed, everywhere, strict=True) for rule in pair]
    last = Rule("catch-all", Action.DENY, None, (), None)
    shapes = [
        (group.action, group.shape) if isinstance(group, Lookup) else group
        for group in grouped([*denied, *mixed, *more, last], sets, v4=True)
    ]
    assert shapes == [
        (Action.ALLOW, Shape.BOTH),
        (Action.DENY, Shape.BOTH),
        last,
    ]


def test_rules_that_would_make_too_many_boxes_stand() -> None:
    """As they are, in their order: a hundred rules about as many addresses as make many parts."""
    everywhere = tuple(parse_network(f"10.{at // 200}.{at % 200}.0/24") for at in range(400))
    other = tuple(block for at, block in enumerate(everywhere) if at % 2)
    sets = {SetId("s0"): everywhere, SetId("s1"): other}
    rules = [
        Rule(f"p{at}", Action.ALLOW, TCP, (PortRange(2 * at, 2 * at),), SetId(f"s{at % 2}"))
        for at in range(100)
    ]
    rules.append(Rule("no", Action.DENY, None, (), SetId("s1")))
    last = Rule("catch-all", Action.DENY, None, (), None)
    assert list(grouped([*rules, last], sets, v4=True)) == [*rules, last]
    assert list(grouped([*rules, last], sets, v4=False)) == [rules[-1], last]


def _disjoint(random: Random) -> tuple[Network, ...]:
    found: list[Network] = []
    for block in random.sample(BLOCKS, random.randint(0, 6)):
        if all(block.last < one.first or one.last < block.first for one in found):
            found.append(block)
    return tuple(found)


def _rules(random: Random) -> Iterator[Rule]:
    """Runs of rules, mostly of one kind, as policies make them; most are of one action."""
    for run in range(3):
        kind, mixed = random.choice((*Shape, None)), random.random() < 0.3
        action = random.choice((Action.ALLOW, Action.DENY))
        for place in range(random.randint(1, 3 * FEW)):
            odd = kind is None or random.random() < 0.02
            if mixed:
                action = random.choice((Action.ALLOW, Action.DENY))
            said = _rule(random, f"rule{run}.{place}", action, None if odd else kind)
            rejects = said.action is Action.DENY and random.random() < 0.3
            yield replace(said, rejects=rejects)


def _rule(random: Random, name: str, action: Action, kind: Shape | None) -> Rule:
    protocol = random.choice(PROTOCOLS if kind is None else HAS_PORTS)
    first = random.choice(PORTS)
    ports: tuple[PortRange, ...] = (
        PortRange(first, random.choice([one for one in PORTS if one >= first])),
    )
    peers = SetId(f"s{random.randint(0, 5)}")
    if protocol == 47 or random.random() < 0.2:
        ports = ()
    if kind is None and random.random() < 0.05:
        return Rule(name, action, None, (), None)
    match kind:
        case Shape.PEERS:
            return Rule(name, action, None, (), peers)
        case Shape.PORTS:
            return Rule(name, action, protocol, ports, None)
        case Shape.BOTH:
            return Rule(name, action, protocol, ports, peers)
    return Rule(name, action, protocol, ports, peers, random.choice((None, SetId("s1"))))


def _opened() -> Opened:
    sources, protocols, ports = zip(*OPENED, strict=True)
    rows = len(OPENED)
    to = np.frombuffer(parse_address("10.0.0.3") * rows, np.uint8).reshape(rows, 16)
    return Opened(
        protocol=np.array(protocols, np.uint8),
        source=np.frombuffer(b"".join(sources), np.uint8).reshape(rows, 16),
        destination=to,
        port=np.array(ports, np.uint16),
        translated=np.zeros(rows, np.bool_),
    )


def _decided(group: Rule | Lookup, rules: list[Rule], policy: NodePolicy) -> dict[int, Rule]:
    """By row of OPENED the rule that decides, any that allows for one that allows."""
    if isinstance(group, Rule):
        places = first_match(policy, [group], Direction.INBOUND, _opened())
        return dict.fromkeys(np.flatnonzero(places == 0).tolist(), group)
    found: dict[int, Rule] = {}
    named = {rule.handle: rule for rule in rules}
    for row, (source, protocol, port) in enumerate(OPENED):
        address = int.from_bytes(source)
        held = [
            box
            for box in group.boxes
            if (box.first is None or box.last is None or box.first <= address <= box.last)
            and box.protocol in (None, protocol)
            and (box.ports is None or port in box.ports)
        ]
        assert len(held) <= 1, "boxes overlap"
        if held:
            found[row] = named.get(held[0].handle, ALLOWED)
            assert (group.action, group.rejects) == (found[row].action, found[row].rejects)
    return found
