"""Types and codes of ICMP messages (IANA's icmp-parameters and icmpv6-parameters registries)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ringfence.model.errors import InputError
from ringfence.model.protocol import ICMP, ICMPV6, PortRange

_V4 = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
}
_V6 = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "mld2-listener-report": 143,
}
NAMES: Mapping[int, Mapping[str, int]] = {ICMP: _V4, ICMPV6: _V6}
"""By protocol the types that have a name here, which is nftables'."""
_WRITTEN = {
    protocol: {number: name for name, number in names.items()} for protocol, names in NAMES.items()
}
_MOST = 255
_DECIMAL = re.compile("0|[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True, order=True)
class IcmpType:
    """A type of message; `code` None means all its codes."""

    type: int
    code: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.type <= _MOST or not 0 <= (self.code or 0) <= _MOST:
            raise InputError(f"an ICMP type and a code are 0 to {_MOST}")

    @property
    def ports(self) -> PortRange:
        """The messages as flows keep them, in place of a port: type * 256 + code."""
        first = self.type << 8
        return PortRange(
            first + (self.code or 0), first + (_MOST if self.code is None else self.code)
        )


def parse_icmp_type(protocol: int | None, text: str) -> IcmpType:
    """Read `TYPE` or `TYPE/CODE`, the type a number or its name; raises InputError."""
    names = NAMES.get(protocol or 0)
    if names is None:
        raise InputError("goes with protocol ICMP or ICMPv6 only")
    type_, slash, code = text.partition("/")
    number = str(names.get(type_, type_))
    if not _DECIMAL.fullmatch(number) or (slash and not _DECIMAL.fullmatch(code)):
        raise InputError(
            f"{text!r} is not an ICMP type: write a number or one of {', '.join(names)}, "
            "and after a / its code if only one is meant"
        )
    return IcmpType(int(number), int(code) if slash else None)


def format_icmp_type(protocol: int | None, one: IcmpType) -> str:
    """What `parse_icmp_type` reads, with the type's name where it has one."""
    name = _WRITTEN.get(protocol or 0, {}).get(one.type, str(one.type))
    return name if one.code is None else f"{name}/{one.code}"
