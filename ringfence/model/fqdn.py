"""Names of DNS as policies write them."""

import re

from ringfence.model.errors import InputError

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_FQDN = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_LONGEST = 253
"""Characters (RFC 1035, section 2.3.4)."""


def parse_fqdn(text: str) -> str:
    """A name in lower case and without its last dot, `*` perhaps its first label.

    Raises InputError.
    """
    name = text.lower().removesuffix(".")
    if len(name) > _LONGEST or not _FQDN.fullmatch(name):
        raise InputError(
            f"{text!r} is not a name of DNS: write api.example.org or *.example.org, in which the "
            "* is one whole label; letters other than ASCII as xn--…"
        )
    return name


def host_name(text: str) -> str:
    """One host's name as `parse_fqdn` gives it, empty where this is none."""
    try:
        name = parse_fqdn(text)
    except InputError:
        return ""
    return "" if name.startswith("*") else name


def fqdn_matches(pattern: str, name: str) -> bool:
    """Whether a name, as `parse_fqdn` gives it, is meant by a pattern; `*` stands for one label."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return name == pattern
