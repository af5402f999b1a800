"""Times as the control plane counts them, and as its API writes and reads them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ringfence.model.errors import InputError

Clock = Callable[[], int]
"""The time, epoch ns."""

_UNITS_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_DURATION = re.compile(r"(\d{1,12})([smhd])")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
END_NS = 2**63 - _UNITS_NS["d"]
"""What lies before it stays in the store's 64 bits also when made up to a whole hour, epoch ns."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a batch covers, epoch ns, [start, end)."""

    start_ns: int
    end_ns: int


def format_time(at_ns: int) -> str:
    """RFC 3339 in UTC with milliseconds; `at_ns` is epoch ns."""
    moment = datetime.fromtimestamp(at_ns / 10**9, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str, now_ns: int) -> int:
    """Epoch ns of an RFC 3339 time, of a date's midnight in UTC, or of a duration back from now.

    Raises InputError.
    """
    duration = _DURATION.fullmatch(text)
    at_ns = now_ns - int(duration[1]) * _UNITS_NS[duration[2]] if duration else _parse_rfc3339(text)
    if not 0 <= at_ns < END_NS:
        raise InputError(f"{text!r} is not a time from 1970 to 2261")
    return at_ns


def _parse_rfc3339(text: str) -> int:
    try:
        moment = datetime.fromisoformat(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError as error:
        raise InputError(
            f"{text!r} is neither a time such as 2030-01-31T12:00:00Z, nor a date, "
            "nor a duration back from now: a number and s, m, h or d"
        ) from error
    if moment.tzinfo is None:
        raise InputError(f"{text!r} names no time zone: end it with Z for UTC")
    return int(moment.timestamp() * 10**6) * 1000
