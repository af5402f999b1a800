"""Ports are generalised only where many were seen, and each level allows more than the last."""

from itertools import pairwise

import pytest

from ringfence.discovery.ports import LEVELS, ranges
from ringfence.model.protocol import PortRange


def held(ports: set[int], level: int) -> set[int]:
    found = ranges(ports, level)
    return {port for one in found for port in range(one.first, one.last + 1)} or set(range(65536))


@pytest.mark.parametrize("count", [1, 3, 4, 8, 16, 40])
def test_each_level_allows_all_that_the_lower_ones_do(count: int) -> None:
    ports = {21, *range(40_000, 40_000 + 7 * count, 7)}
    sets = [held(ports, level) for level in LEVELS]
    assert all(one <= other for one, other in pairwise(sets))
    assert sets[0] == ports


GIVEN = {40_010, 40_077, 40_102, 57_000}


@pytest.mark.parametrize("level", [2, 3])
def test_ports_that_are_given_out_make_ranges_in_round_numbers(level: int) -> None:
    assert ranges({21, 8080, 40_150, *GIVEN}, level, GIVEN) == (
        PortRange(21, 21),
        PortRange(8080, 8080),
        PortRange(40_000, 40_199),
        PortRange(57_000, 57_099),
    )


def test_each_level_allows_all_that_the_lower_ones_do_of_ports_that_are_given_out() -> None:
    ports = {21, *GIVEN, *range(50_000, 50_900, 50)}
    given = GIVEN | {50_000, 50_850}
    sets = [
        {port for one in ranges(ports, level, given) for port in range(one.first, one.last + 1)}
        for level in list(LEVELS)[:-1]
    ]
    assert all(one <= other for one, other in pairwise(sets))
    assert sets[0] == ports
    assert ranges(ports, 5, given) == ()


def test_few_ports_stay_as_they_are() -> None:
    assert ranges({8080, 9090, 80}, 3) == (
        PortRange(80, 80),
        PortRange(8080, 8080),
        PortRange(9090, 9090),
    )
