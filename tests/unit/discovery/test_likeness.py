"""Rows of counts put together: what chance may have made is no difference."""

import numpy as np
import pytest

from ringfence.discovery.likeness import Rows, Telling, join

DAY = 288


def groups(counts: list[int], times: list[int], *, rated: bool = False) -> int:
    """How many there are of rows with one trait beside one that all have always."""
    rows = Rows(
        np.array([[DAY, count] for count in counts], dtype=np.float32),
        np.array([[DAY, time] for time in times], dtype=np.float32),
    )
    telling = Telling(np.array([True, True]), np.array([False, rated]))
    return int(join(rows, 5.0, telling).max()) + 1


@pytest.mark.parametrize(("count", "found"), [(7, 1), (8, 2)])
def test_what_one_never_does_tells_it_apart_from_some_sightings_on(count: int, found: int) -> None:
    """Half of the time without any of c sightings: 2^-7 is more than e^-5, and 2^-8 less."""
    assert groups([count, 0], [DAY, DAY]) == found


def test_what_one_had_no_time_for_tells_nothing() -> None:
    assert groups([DAY, 0], [DAY, 2]) == 1


@pytest.mark.parametrize(
    ("counts", "times", "found"),
    [
        ([100, 60], [DAY, DAY], 1),
        ([100, 20], [DAY, DAY], 2),
        ([10, 2], [DAY, DAY], 1),
        ([100, 20], [DAY, DAY // 4], 1),
        ([20, 100], [DAY, DAY], 2),
    ],
    ids=["uneven", "often", "few", "shorter", "seldom"],
)
def test_rates_tell_where_load_is_shared(counts: list[int], times: list[int], found: int) -> None:
    assert groups(counts, times, rated=True) == found
    assert groups(counts, times) == 1


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [([9, 0], [0, 9], 2), ([9, 1], [0, 9], 1), ([0, 0], [0, 9], 1)],
    ids=["none in common", "one in common", "unknown"],
)
def test_marks_tell_where_both_have_some(one: list[int], other: list[int], found: int) -> None:
    counts = np.array([[DAY, *one], [DAY, *other]], dtype=np.float32)
    marks = np.array([False, True, True])
    telling = Telling(~marks, ~marks, (marks,))
    rows = Rows(counts, np.full_like(counts, DAY))
    assert int(join(rows, 5.0, telling).max()) + 1 == found


def test_a_process_in_common_makes_none_alike() -> None:
    """Two short runs by one shell that ask different providers: nothing says that they are one."""
    counts = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.float32)
    process = np.array([False, False, True])
    telling = Telling(~process, ~process, (process,))
    assert int(join(Rows(counts, np.ones_like(counts)), 5.0, telling).max()) + 1 == 2
