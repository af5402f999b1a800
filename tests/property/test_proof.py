"""The comparison of two tables of rules is exact: it misses no packet, and accuses no table."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP
from ringfence.policy.program import NodePolicy
from ringfence.policy.proof.classes import disagreement
from ringfence.policy.proof.meaning import meaning
from ringfence.policy.proof.packets import (
    SYN,
    Axis,
    Call,
    Clause,
    Match,
    Outcome,
    Packet,
    Table,
    joined,
    judge,
)
from ringfence.policy.proof.shared import Agreed
from ringfence.policy.recheck import Opened, first_match
from tests.property.program_world import IN, NETWORKS, PORTS, policies

AXES = (Axis.STATE, Axis.PROTOCOL, Axis.PORT, Axis.SOURCE, Axis.DESTINATION)
NUMBERS = (0, 1, 2, 3)
CHAINS = ("base", "also", "first", "second")


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A table about a few numbers on a few axes; a chain calls none that stands before it."""
    number = st.sampled_from(NUMBERS)
    span = st.builds(lambda one, other: (min(one, other), max(one, other)), number, number)
    values = st.lists(span, min_size=1, max_size=2).map(joined)
    tests = st.lists(st.builds(Match, st.sampled_from(AXES), values, st.booleans()), max_size=3)
    chains: dict[str, tuple[Clause, ...]] = {}
    for name in reversed(CHAINS):
        decided: st.SearchStrategy[Outcome | Call] = st.sampled_from(
            [Outcome.ACCEPT, Outcome.DROP, Outcome.RESET, Outcome.RETURN]
        )
        calls = (
            st.builds(Call, st.sampled_from(sorted(chains)), st.booleans()) if chains else decided
        )
        clauses = [
            Clause(tuple(draw(tests)), draw(decided | calls), f"{name} {at}", draw(st.booleans()))
            for at in range(draw(st.integers(0, 4)))
        ]
        policy = draw(st.sampled_from([Outcome.ACCEPT, Outcome.DROP]))
        clauses += [Clause((), policy, "policy")] if name in ("base", "also") else []
        chains[name] = tuple(clauses)
    callable_ = {name: chains[name] for name in CHAINS}
    return Table(4, callable_, {"input": draw(st.sampled_from([("base",), ("base", "also")]))})


PACKETS = st.lists(
    st.fixed_dictionaries({axis: st.sampled_from(NUMBERS) for axis in AXES}), max_size=40
)


@given(tables(), tables(), PACKETS)
def test_two_tables_differ_where_packets_show_it_and_nowhere_else(
    one: Table, other: Table, drawn: list[dict[Axis, int]]
) -> None:
    told = disagreement(one, other, "input", 1000)
    for packet in told.packets:
        assert judge(one, "input", packet)[0] != judge(other, "input", packet)[0]
    for numbers in drawn:
        packet = Packet(4, numbers)
        if judge(one, "input", packet)[0] != judge(other, "input", packet)[0]:
            assert told.differing
    assert not disagreement(one, one, "input", 1).differing


@given(tables(), st.data())
def test_tables_that_agree_without_their_own_addresses_agree_with_them(
    table: Table, data: st.DataObject
) -> None:
    """What was found of one pair counts for others, whichever addresses may reach themselves."""
    clauses = table.chains["base"]
    place = data.draw(st.integers(0, len(clauses) - 1))
    before, one, after = clauses[:place], clauses[place], clauses[place + 1 :]
    opposed = [replace(match, negated=not match.negated) for match in one.matches]
    variants = [(one,), (one,), (), (replace(one, certain=not one.certain),)]
    variants += [(replace(one, verdict=said),) for said in (Outcome.ACCEPT, Outcome.DROP)]
    variants += [(replace(one, matches=tuple(some)),) for some in (opposed, one.matches[1:])]
    bases = [(*before, *instead, *after) for instead in variants]
    sides = [replace(table, chains={**table.chains, "base": base}) for base in bases]
    agreed = Agreed()
    for address in data.draw(st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=4)):
        pair = [
            reaching(data.draw(st.sampled_from(sides)), data.draw(st.integers(0, 2)), address)
            for _ in range(2)
        ]
        left, right = pair
        if agreed.agree(left, right, "input", (address,)):
            assert not disagreement(left, right, "input", 0).differing
        else:
            assert left != right


def reaching(table: Table, place: int, address: int) -> Table:
    """The table with a clause in its first chain by which an address may reach itself."""
    point = ((address, address),)
    ends = Match(Axis.SOURCE, point), Match(Axis.DESTINATION, point)
    base = list(table.chains["base"])
    base.insert(place, Clause(ends, Outcome.ACCEPT, "a workload to itself"))
    return replace(table, chains={**table.chains, "base": tuple(base)})


@given(policies(), st.data())
def test_the_meaning_of_a_program_is_its_first_match(
    policy: NodePolicy, data: st.DataObject
) -> None:
    """Of what opens connections, that no fail-safe lets pass."""
    programs = policy.programs[IN].rules
    everywhere = replace(policy, pods=(replace(policy.pods[0], addresses=(), inbound=(IN,)),))
    for family, icmp in ((4, ICMP), (6, ICMPV6)):
        table = meaning(replace(everywhere, control_plane=()), everywhere.pods[0], family)
        ends = [end for n in NETWORKS if n.is_v4 == (family == 4) for end in (n.first, n.last)]
        protocols = st.sampled_from([TCP, SCTP, icmp, 47])
        drawn = st.tuples(st.sampled_from(ends), st.sampled_from(ends), protocols)
        for source, destination, protocol in data.draw(st.lists(drawn, max_size=10)):
            port = 8 << 8 if protocol == icmp else data.draw(st.sampled_from(PORTS))
            numbers = {
                Axis.SOURCE: source % (1 << (32 if family == 4 else 128)),
                Axis.DESTINATION: destination % (1 << (32 if family == 4 else 128)),
                Axis.PROTOCOL: protocol,
                Axis.FLAGS: SYN,
                (Axis.HEAD if protocol == icmp else Axis.PORT): port,
            }
            rows = np.frombuffer(source.to_bytes(16) + destination.to_bytes(16), np.uint8)
            opened = Opened(
                np.array([protocol], dtype=np.uint8),
                rows[:16].reshape(1, 16),
                rows[16:].reshape(1, 16),
                np.array([port], dtype=np.uint16),
                translated=np.zeros(1, dtype=np.bool_),
            )
            (place,) = first_match(policy, programs, Direction.INBOUND, opened)
            rule = programs[place]
            answers = Outcome.RESET if protocol == TCP else Outcome.PROHIBITED
            denies = answers if rule.rejects else Outcome.DROP
            expected = Outcome.ACCEPT if rule.action is Action.ALLOW else denies
            said = judge(table, "input", Packet(family, numbers))
            assert said == (expected, rule.handle)
