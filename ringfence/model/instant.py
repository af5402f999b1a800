"""Instants in files: RFC 3339 in UTC, to the nanosecond."""

import re
from datetime import UTC, datetime

from ringfence.model.errors import InputError

_SECOND_NS = 10**9
_WRITTEN = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[-+]\d\d:\d\d)", re.ASCII
)


def format_instant(at_ns: int) -> str:
    """Epoch ns as a text that `parse_instant` reads back."""
    second, rest = divmod(at_ns, _SECOND_NS)
    written = datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09}".rstrip("0")
    return f"{written}.{fraction}Z" if fraction else f"{written}Z"


def parse_instant(text: str) -> int:
    """Epoch ns; raises InputError."""
    written = _WRITTEN.fullmatch(text)
    if not written:
        raise InputError(f"{text!r} is not a time such as 2030-01-31T12:00:00Z")
    try:
        whole = datetime.fromisoformat(written[1].upper() + written[3].upper())
    except ValueError as error:
        raise InputError(f"{text!r} is not a time: {error}") from error
    at_ns = int(whole.timestamp()) * _SECOND_NS + int((written[2] or "").ljust(9, "0"))
    if not 0 <= at_ns < 2**63 - 1:
        raise InputError(f"{text!r} is not a time from 1970 to 2262")
    return at_ns
