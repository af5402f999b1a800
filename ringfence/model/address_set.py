"""Address sets: lists of addresses that policies name, and where each one comes from."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ringfence.model.address import format_address, int_address, parse_address, parse_network
from ringfence.model.duration import parse_duration
from ringfence.model.errors import InputError
from ringfence.model.ids import AddressSetName
from ringfence.model.ranges import AddressRange, block_of, of_families, range_of, subtract
from ringfence.model.words import named

MOST_RANGES = 32_768
"""What one set may hold, once what adjoins is joined."""
MOST_BYTES = 2 << 20
"""Of a list as text."""
_MOST_ENTRIES = 4 * MOST_RANGES
"""Of a list, before what adjoins is joined: reading more would hold up everything else."""
SHORTEST_SECONDS, LONGEST_SECONDS = 300, 7 * 24 * 3600
"""How often a list may be asked for."""
_LONGEST_URL = 2048
_LONGEST_RANGE = 256
_COMMENT = re.compile(r"[#;].*")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_V4_STYLE = re.compile(r"\d+\.\d+\.\d+\.\d+")
_V4 = range_of(parse_network("0.0.0.0/0"))
_V6 = range_of(parse_network("::/0"))
_UNICAST = range_of(parse_network("2000::/3"))  # RFC 4291, section 2.4: what is given out of IPv6


@dataclass(frozen=True, slots=True)
class Written:
    """The addresses stand in the document, in this order."""

    ranges: tuple[AddressRange, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A list behind an http or https URL, asked for each so many seconds."""

    url: str
    every_seconds: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A list that somebody uploads."""


Source = Written | Fetched | Uploaded


@dataclass(frozen=True, slots=True)
class AddressSet:
    """Addresses that policies of any workspace name."""

    name: AddressSetName
    source: Source


def parse_range(text: str) -> AddressRange:
    """Read an address, a CIDR block, or two addresses of a family with a `-`; InputError."""
    if len(text) > _LONGEST_RANGE:
        raise InputError(f"{text[:40]!r}… is no range: it is longer than {_LONGEST_RANGE} letters")
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not dash:
        return range_of(parse_network(first))
    ends = parse_address(first), parse_address(last)
    found = int.from_bytes(ends[0]), int.from_bytes(ends[1])
    if found[0] > found[1] or ("." in first) != ("." in last):
        raise InputError(f"{text!r} is no range: write the lower address of a family first")
    return found


def format_range(span: AddressRange) -> str:
    """The range as `parse_range` reads it, a CIDR block where it is one."""
    if block := block_of(span):
        return format_address(block.address) if block.prefix == 128 else str(block)  # noqa: PLR2004
    return "-".join(format_address(int_address(end)) for end in span)


def parse_every(text: str) -> int:
    """Read an interval such as `30m`, `12h` or `1d`, in seconds; raises InputError."""
    seconds = parse_duration(text)
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise InputError(f"{text!r} is no interval from 5m to 7d: write 30m, 12h or 1d")
    return seconds


def parse_url(text: str) -> str:
    """Check the URL of a list; raises InputError."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{text!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise InputError(f"{text!r} is no URL of a list: write https://HOST/PATH, or http://")
    if "[" in parts.netloc or _V4_STYLE.fullmatch(host):
        parse_address(host)
    elif not _HOST.fullmatch(host):
        raise InputError(f"{host!r} is no host: write others than ASCII letters as xn--…")
    if parts.username is not None or parts.password is not None:
        raise InputError("a URL with a user or a password would show it to all who read the set")
    if parts.fragment or not text.isprintable() or " " in text or len(text) > _LONGEST_URL:
        raise InputError(
            f"a URL here has no fragment, no blanks and at most {_LONGEST_URL} letters"
        )
    return text


def read_list(text: str) -> tuple[AddressRange, ...]:
    """The addresses of a list, disjoint and sorted; raises InputError, with up to ten lines.

    A list has an address, a CIDR block or a range `FIRST-LAST` on each line; what follows `#` or
    `;` is a comment (the form of Spamhaus' DROP). Or it is one JSON list of such texts.
    """
    found, wrong = list[AddressRange](), list[str]()
    for place, entry in _entries(text.removeprefix("\ufeff")):
        if len(found) == _MOST_ENTRIES:
            raise InputError(f"it has more than {_MOST_ENTRIES:,} entries")
        try:
            found.append(parse_range(entry))
        except InputError as error:
            wrong.append(f"{place}: {error}")
            if len(wrong) > _MOST_WRONG:
                break
    if wrong:
        raise InputError(named(wrong, "; "))
    return check_ranges(found)


_MOST_WRONG = 100
"""A page that is no list at all is not read to its end."""


def check_ranges(ranges: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
    """Ranges as a set holds them, disjoint and sorted; raises InputError for none or too much.

    Half of all addresses is what no list of particular ones holds: a slip such as `0.0.0.0/0`
    would have a DENY cut off everybody, and an ALLOW let everybody in.
    """
    held = of_families(ranges)
    if not held:
        raise InputError("there is no address in it")
    if len(held) > MOST_RANGES:
        raise InputError(f"{len(held):,} ranges are more than the {MOST_RANGES:,} of a set")
    for family, said in ((_V4, "IPv4"), (_UNICAST, "IPv6"), (_V6, "IPv6")):
        left = sum(last - first + 1 for first, last in subtract((family,), held))
        if 2 * left <= family[1] - family[0] + 1:
            raise InputError(f"half or more of all {said} addresses are in it; name them by `cidr`")
    return held


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """What is listed, each with its place."""
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}") from error
        for number, one in enumerate(listed, 1):
            yield f"entry {number}", one if isinstance(one, str) else repr(one)[:40]
        return
    for number, line in enumerate(text.split("\n"), 1):
        if entry := _COMMENT.sub("", line).strip():
            yield f"line {number}", entry
