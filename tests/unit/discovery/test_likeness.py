"""Rows of counts put together: what chance may have made is no difference."""

import numpy as np
import pytest

from ringfence.discovery.likeness import Rows, join

DAY = 288


def groups(counts: list[int], times: list[int], *, rated: bool = False) -> int:
    """How many there are of rows with one trait beside one that all have always."""
    rows = Rows(
        np.array([[DAY, count] for count in counts], dtype=np.float32),
        np.array([[DAY, time] for time in times], dtype=np.float32),
    )
    return int(join(rows, 5.0, np.zeros(2, dtype=bool), np.array([False, rated])).max()) + 1


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
