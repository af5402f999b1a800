"""Durations as people write them: a number and s, m, h or d."""

import re

from ringfence.model.errors import InputError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_duration(text: str) -> int:
    """Read `90s`, `30m`, `12h` or `7d`, in seconds; raises InputError."""
    read = _DURATION.fullmatch(text)
    if read is None:
        raise InputError(f"{text!r}: write a number and s, m, h or d, such as 2h")
    return int(read[1]) * _UNITS[read[2]]


def format_duration(seconds: int) -> str:
    """The duration as `parse_duration` reads it, in the largest unit that fits."""
    unit = max((one for one in _UNITS if seconds % _UNITS[one] == 0), key=lambda one: _UNITS[one])
    return f"{seconds // _UNITS[unit]}{unit}"
