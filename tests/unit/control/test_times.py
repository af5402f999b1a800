"""Times and places that people and clients hand to the API."""

import pytest

from ringfence.control.api.cursor import Cursor
from ringfence.control.times import format_time, parse_time
from ringfence.model.errors import InputError

NOW = 1_900_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("5m", "2030-03-17T17:41:40.000Z"),
        ("2030-01-31T12:00:00+02:00", "2030-01-31T10:00:00.000Z"),
        ("2030-01-31", "2030-01-31T00:00:00.000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_times_that_there_are(text: str, at: str) -> None:
    assert format_time(parse_time(text, NOW)) == at


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("99999999999d", "not a time from 1970"),
        ("9999-12-31T00:00:00Z", "not a time from 1970"),
        ("0001-01-01T00:00:00+01:00", "not a time from 1970"),
        ("9" * 5000 + "s", "neither a time"),
        ("5", "a number and s, m, h or d"),
        ("2030-01-31T12:00:00", "names no time zone"),
        ("2030-01-31Z", "nor a date"),
        ("2030-02-30", "neither a time"),
    ],
)
def test_times_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    "numbers", [(-1, 5, 0, 0), (5, 4, 0, 0), (0, 2**63, 0, 0), (0, 5, 2**63, 0), (0, 5, 0, 2**64)]
)
def test_a_cursor_that_no_answer_gave_is_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(InputError, match="cursor: not one"):
        Cursor.parse(str(Cursor("q", *numbers)), "q")
