"""What values of labels are compared with in a filter: numbers, patterns and networks."""

import re
from functools import lru_cache
from typing import Any

import re2

from ringfence.model.address import Network, parse_address, parse_network
from ringfence.model.errors import InputError

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
"""What is a number in a label as well as in a filter; `float` alone reads more, such as `nan`."""


def number(text: str) -> float | None:
    """The number that a text is, None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


@lru_cache(maxsize=4096)
def pattern(text: str) -> Any:
    """A regular expression in time linear in the text (RE2), for filters may be hostile.

    Raises re2.error.
    """
    options = re2.Options()
    options.log_errors = False
    return re2.compile(text, options)


def in_subnet(have: str, want: str) -> bool:
    """Whether a text is an address in a network."""
    try:
        return parse_address(have) in _network(want)
    except InputError:
        return False


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return parse_network(text)
