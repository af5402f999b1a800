"""One order for versions of packages of every kind, to compare them in filters.

It is that of RPM (rpmvercmp): runs of digits are numbers, runs of letters are text, all else
separates. A number comes after text, and what goes on after what ends, but for `~`, which comes
before all: 1.0~rc1 < 1.0 < 1.0.1 < 1.0.10. A number and a colon in front is an epoch, as in RPM and
Debian, and counts first. Where a kind of package has an order of its own, such as 1.0-rc1 before
1.0 of semantic versions, this one differs.
"""

import re
from functools import lru_cache

_EPOCH = re.compile(r"([0-9]+):(.*)", re.DOTALL)
_RUNS = re.compile(r"~|[0-9]+|[A-Za-z]+")
_TILDE, _END, _TEXT, _NUMBER = range(4)

VersionKey = tuple[tuple[int, int, str], ...]
"""Compares as the versions do."""


@lru_cache(maxsize=65_536)
def version_key(version: str) -> VersionKey:
    """The version as something that compares."""
    found = _EPOCH.fullmatch(version)
    epoch, rest = found.groups() if found else ("0", version)
    return (_run(epoch), *map(_run, _RUNS.findall(rest)), (_END, 0, ""))


def _run(run: str) -> tuple[int, int, str]:
    if run == "~":
        return _TILDE, 0, ""
    if run.isdigit():
        # The longer number is the greater one; Python reads no number of thousands of digits.
        digits = run.lstrip("0")
        return _NUMBER, len(digits), digits
    return _TEXT, 0, run
