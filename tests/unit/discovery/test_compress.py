"""How long a filter may get by joining policies."""

from dataclasses import replace

import pytest

from ringfence.discovery.compress import Whole, by_port, compress
from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import NamedEnd
from ringfence.discovery.ports import ranges
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.keys import parse_filter
from ringfence.model.policy import FilterEnd, ServiceEnd
from ringfence.model.protocol import TCP
from ringfence.model.scope import ScopeTree

SHARED = NamedEnd("db", ServiceEnd("data", "db"))


def draft(number: int) -> Draft:
    query = f'kubernetes.namespace = "n{number}" and kubernetes.label.app = "a{number}"'
    end = NamedEnd(f"a{number}", FilterEnd(parse_filter(query)))
    return Draft(end, SHARED, TCP, frozenset({80}), frozenset({number}))


@pytest.mark.parametrize(("count", "long", "made"), [(4, False, 1), (6, False, 6), (6, True, 1)])
def test_unlike_consumers_are_joined_as_far_as_one_can_read(
    count: int, long: bool, made: int
) -> None:
    """A coarser step gives more of them the same ports, and is to make no more policies by it."""
    whole = Whole(Snapshot(()), ScopeTree(()))
    joined = compress([*map(draft, range(count))], (), whole, 3, long=long)
    assert len(joined) == made
    assert frozenset().union(*(one.edges for one in joined)) == {*range(count)}


def test_a_port_has_a_policy_of_its_own_and_so_has_a_range() -> None:
    passive = frozenset({21, 22, *range(50_000, 50_160, 10)})
    whole, none = replace(draft(0), ports=passive), replace(draft(1), ports=frozenset())
    parted = [*by_port([whole, none], lambda one: ranges(one.ports, 2) if one.ports else ())]
    assert [one.ports for one in parted] == [{21}, {22}, passive - {21, 22}, frozenset()]
    assert [*by_port([whole], lambda one: ranges(one.ports, 5))] == [whole]
    assert len([*by_port([whole], lambda one: ranges(one.ports, 1))]) == len(passive)
