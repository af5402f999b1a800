"""IP protocol numbers and port ranges (IANA's protocol-numbers registry)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NewType

from ringfence.model.errors import InputError

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
NAMES = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ICMPV6: "ICMPv6", SCTP: "SCTP"}
WITH_PORTS = frozenset({TCP, UDP, SCTP})
_NUMBERS = {name.lower(): number for number, name in NAMES.items()}
_MAX_PROTOCOL, _MAX_PORT = 255, 65535
_DECIMAL = re.compile("0|[1-9][0-9]{0,4}")
_PORTS = re.compile(f"({_DECIMAL.pattern})(?:-({_DECIMAL.pattern}))?")


def format_protocol(protocol: int | None) -> str:
    """The protocol's name, its number where it has none here, `any` for None."""
    return "any" if protocol is None else NAMES.get(protocol, str(protocol))


def format_port(protocol: int | None, port: int) -> str:
    """The port; of ICMP, whose messages are kept as type * 256 + code, `type/code`."""
    return f"{port >> 8}/{port & 0xFF}" if protocol in (ICMP, ICMPV6) else str(port)


def parse_protocol(text: str | int) -> int | None:
    """Read a name, a number, or `any` (None); raises InputError."""
    return None if str(text).lower() == "any" else _number(text, "a number or any")


def parse_one_protocol(text: str | int) -> int:
    """Read a name or a number; raises InputError."""
    return _number(text, "or a number")


def _number(text: str | int, others: str) -> int:
    word = str(text).lower()
    number = _NUMBERS.get(word, int(word) if _DECIMAL.fullmatch(word) else -1)
    if not 0 <= number <= _MAX_PROTOCOL:
        known = ", ".join(NAMES.values())
        raise InputError(f"{text!r} is not a protocol: write {known}, {others}")
    return number


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports `first` to `last`, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= _MAX_PORT:
            raise InputError(f"{self.first}-{self.last} is not a port range within 0-{_MAX_PORT}")

    def __str__(self) -> str:
        """One number, or first-last."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        """Whether the port lies in the range."""
        return self.first <= port <= self.last


def parse_ports(text: str | int) -> PortRange:
    """Read `80` or `8000-8100`; raises InputError."""
    ports = _PORTS.fullmatch(str(text))
    if not ports:
        raise InputError(f"{text!r} is not a port: write 80 or 8000-8100")
    return PortRange(int(ports[1]), int(ports[2] or ports[1]))


def disjoint(protocol: int | None, ports: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports, sorted and disjoint; of protocols without ports as they are."""
    if protocol not in WITH_PORTS:
        return tuple(ports)
    held: list[PortRange] = []
    for one in sorted(ports):
        if held and one.first <= held[-1].last + 1:
            held[-1] = PortRange(held[-1].first, max(held[-1].last, one.last))
        else:
            held.append(one)
    return tuple(held)


PortName = NewType("PortName", str)
"""The name of a container's port or of a Service's, in which case the number is theirs to say."""
Port = PortRange | PortName

_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123) with a letter: Kubernetes takes no others for ports of either."""


def parse_port(text: str | int) -> Port:
    """Read `80`, `8000-8100` or a port's name; raises InputError."""
    if _PORT_NAME.fullmatch(str(text)):
        return PortName(str(text))
    try:
        return parse_ports(text)
    except InputError as error:
        raise InputError(f"{error}, or a port's name") from error
