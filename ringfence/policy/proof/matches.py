"""What a match of an nftables rule asks of a packet.

Read from the numeric JSON of nft (libnftables-json(5)). nft writes `tcp dport` for what the
kernel holds as a match of the protocol and one of two bytes of the transport header, and `ip
saddr` for a match of the family and one of four bytes: each key here says what it implies.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ringfence.model.address import is_v4, parse_address
from ringfence.model.errors import InputError
from ringfence.model.protocol import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.packets import Axis, Match, Ranges, State, interface_number, joined

Matches = tuple[Match, ...]
Json = Any
_V4, _V6 = 4, 6
_NFPROTO = {_V4: 2, _V6: 10}
_DST_NAT = 32
"""IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h."""
_UNTRACKED = ((State.INVALID.value, State.UNTRACKED.value),)
"""What no connection is known of."""
_LOCAL = 2
"""RTN_LOCAL of linux/rtnetlink.h."""
_STATES = {
    1: State.INVALID,
    2: State.ESTABLISHED,
    4: State.RELATED,
    8: State.NEW,
    64: State.UNTRACKED,
}
"""By their bits: linux/netfilter/nf_conntrack_common.h."""
_LONGEST_SHOWN = 100
_ARPHRD_LOOPBACK = 772
"""linux/if_arp.h."""


def _integer(value: Json) -> int:
    if type(value) is not int:
        raise UnprovableError(f"compares with {shown(value)}, not with a number")
    return value


def _address(family: int, value: Json) -> int:
    try:
        address = parse_address(value)
    except InputError as error:
        raise UnprovableError(f"compares with {shown(value)}, not with an address") from error
    if family == _V6:
        return int.from_bytes(address)
    if not is_v4(address):
        raise UnprovableError(f"compares an IPv4 address with {shown(value)}")
    return int.from_bytes(address[12:])


def _loopback(value: Json) -> int:
    if value not in (_ARPHRD_LOOPBACK, "loopback"):
        raise UnprovableError(f"compares an interface's type with {shown(value)}, not loopback")
    return 1


def _local_route(value: Json) -> int:
    if value != _LOCAL:
        raise UnprovableError(f"asks for routes of type {shown(value)}, not for local ones")
    return 1


def _interface(value: Json) -> int:
    if not isinstance(value, str) or value.endswith("*"):
        raise UnprovableError(f"compares an interface with {shown(value)}, not with one name")
    return interface_number(value)


def _state(value: Json) -> int:
    if value not in _STATES:
        raise UnprovableError(f"compares the state with {shown(value)}")
    return _STATES[value].value


def _translated(value: Json) -> int:
    if value != _DST_NAT:
        raise UnprovableError(f"asks for the status {shown(value)}, not for translated ones")
    return 1


def _bits(value: Json) -> int:
    found = 0
    for bit in value if isinstance(value, list) else [value]:
        found |= _integer(bit)
    return found


def _as_they_are(first: int, last: int) -> Ranges:
    return ((first, last),)


def _types(first: int, last: int) -> Ranges:
    return ((first << 8, last << 8 | 0xFF),)


def _codes(first: int, last: int) -> Ranges:
    return tuple((kind << 8 | first, kind << 8 | last) for kind in range(256))


def _masked(mask: int, first: int, last: int) -> Ranges:
    return joined((n, n) for n in range(256) if first <= n & mask <= last)


@dataclass(frozen=True, slots=True)
class Key:
    """Where a match looks: which axis, None for the family itself, and for which packets.

    `number` reads a value; `spread` makes of numbers, from the first to the last one, those on
    the axis.
    """

    axis: Axis | None
    family: int | None = None
    protocol: int | None = None
    number: Callable[[Json], int] = _integer
    spread: Callable[[int, int], Ranges] = _as_they_are
    tracked: bool = False
    """Whether it is a place in what is known of the packet's connection."""


_META = {
    "nfproto": Key(None),
    "l4proto": Key(Axis.PROTOCOL),
    "iiftype": Key(Axis.FROM_LOOPBACK, number=_loopback),
    "oiftype": Key(Axis.TO_LOOPBACK, number=_loopback),
    "iifname": Key(Axis.CAME_BY, number=_interface),
    "iifkind": Key(Axis.CAME_BY_KIND, number=_interface),
    "oifname": Key(Axis.LEAVES_BY, number=_interface),
    "oifkind": Key(Axis.LEAVES_BY_KIND, number=_interface),
}
_FIELDS = {
    ("ip", "saddr"): Key(Axis.SOURCE, _V4, number=partial(_address, _V4)),
    ("ip", "daddr"): Key(Axis.DESTINATION, _V4, number=partial(_address, _V4)),
    ("ip6", "saddr"): Key(Axis.SOURCE, _V6, number=partial(_address, _V6)),
    ("ip6", "daddr"): Key(Axis.DESTINATION, _V6, number=partial(_address, _V6)),
    ("ip6", "hoplimit"): Key(Axis.HOPS, _V6),
    ("icmp", "type"): Key(Axis.HEAD, _V4, ICMP, spread=_types),
    ("icmp", "code"): Key(Axis.HEAD, _V4, ICMP, spread=_codes),
    ("icmpv6", "type"): Key(Axis.HEAD, _V6, ICMPV6, spread=_types),
    ("icmpv6", "code"): Key(Axis.HEAD, _V6, ICMPV6, spread=_codes),
    ("tcp", "flags"): Key(Axis.FLAGS, protocol=TCP),
    **{
        (name, field): Key(axis, protocol=protocol)
        for field, axis in (("sport", Axis.HEAD), ("dport", Axis.PORT))
        for name, protocol in (
            ("tcp", TCP), ("udp", UDP), ("sctp", SCTP), ("dccp", DCCP), ("udplite", UDPLITE),
            ("th", None),
        )
    },
}  # fmt: skip
_STATE = Key(Axis.STATE, number=_state)
_TRANSLATED = Key(Axis.TRANSLATED, number=_translated, tracked=True)
_DIALLED = {
    "ip daddr": Key(Axis.DIALLED, _V4, number=partial(_address, _V4), tracked=True),
    "ip6 daddr": Key(Axis.DIALLED, _V6, number=partial(_address, _V6), tracked=True),
    "proto-dst": Key(Axis.DIALLED_PORT, tracked=True),
}
_OWN = {
    "daddr": Key(Axis.TO_OWN, number=_local_route),
    "saddr": Key(Axis.FROM_OWN, number=_local_route),
}


def keys_of(expression: Json) -> list[Key]:
    """What a match looks at, one key for each part of a concatenation; raises UnprovableError."""
    match expression:
        case {"concat": [*parts]}:
            return [_key(part) for part in parts]
    return [_key(expression)]


def _key(expression: Json) -> Key:
    match expression:
        case {"payload": {"protocol": name, "field": field}} if (name, field) in _FIELDS:
            return _FIELDS[name, field]
        case {"meta": {"key": name}} if name in _META:
            return _META[name]
        case {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, mask]}:
            masked = partial(_masked, _bits(mask))
            return Key(Axis.FLAGS, protocol=TCP, number=_bits, spread=masked)
        case {"ct": {"key": "state", **others}} if not others:
            return _STATE
        case {"ct": {"key": "status", **others}} if not others:
            return _TRANSLATED
        case {"ct": {"key": name, "dir": "original"}} if name in _DIALLED:
            return _DIALLED[name]
        case {"fib": {"result": "type", "flags": [end]}} if end in _OWN:
            return _OWN[end]
    raise UnprovableError(f"looks at {shown(expression)}, which no rule of ours does")


def conditions(keys: list[Key], operator: str, values: list[Json], family: int) -> list[Matches]:
    """The matches that a match makes, as alternatives: none where it holds for no packet.

    `values` are what it compares with, any of them; raises UnprovableError.
    """
    negated = operator == "!="
    match keys:
        case [Key(axis=Axis.STATE), *_] if operator == "in":
            wanted = [bit for value in values for bit in _listed(value)]
            return conditions(keys, "==", wanted, family)
        case [Key(axis=Axis.TRANSLATED)]:
            if operator != "in":
                raise UnprovableError("compares the whole status, which no rule of ours does")
            return boxes(keys, values, family)
        case [Key(axis=Axis.FLAGS) as key] if operator == "in":
            none_set = _masked(_bits(_listed(values[0])), 0, 0)
            return [(*(_implied([key], family) or ()), Match(Axis.FLAGS, none_set, negated=True))]
        case _ if operator not in ("==", "!="):
            raise UnprovableError(f"compares by {shown(operator)}, which no rule of ours does")
        case [key]:
            implied = _implied(keys, family)
            if implied is None:
                return []
            spans = joined(span for value in values for span in _spans(key, value))
            asked = _test(key, spans, family, negated=negated)
            return [] if asked is None else [(*implied, *asked)]
        case _ if negated:
            raise UnprovableError("asks what a concatenated set lacks, which no rule of ours does")
    return boxes(keys, values, family)


def boxes(keys: list[Key], values: Iterable[Json], family: int) -> list[Matches]:
    """The alternatives of a concatenation; those that differ in their first part alone are one."""
    implied = _implied(keys, family)
    if implied is None:
        return []
    merged: dict[tuple[Ranges, ...], list[tuple[int, int]]] = {}
    for value in values:
        first, *rest = spans_of(keys, value)
        merged.setdefault(tuple(rest), []).extend(first)
    found = []
    for others, spans in merged.items():
        parts = zip(keys, (joined(spans), *others), strict=True)
        asked = [_test(key, part, family) for key, part in parts]
        if None not in asked:
            found.append((*implied, *(one for matches in asked for one in matches or ())))
    return found


def spans_of(keys: list[Key], value: Json) -> list[Ranges]:
    """One element of a set, part by part."""
    match value:
        case {"concat": [*parts]} if len(parts) == len(keys) > 1:
            return [_spans(key, part) for key, part in zip(keys, parts, strict=True)]
        case _ if len(keys) == 1:
            return [_spans(keys[0], value)]
    raise UnprovableError(f"compares {len(keys)} things with {shown(value)}")


def shown(expression: Json) -> str:
    """A piece of a rule as nft tells it, cut to what a message has room for."""
    text = json.dumps(expression)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _spans(key: Key, value: Json) -> Ranges:
    match value:
        case {"range": [first, last]}:
            return key.spread(key.number(first), key.number(last))
        case {"prefix": {"addr": text, "len": int(length)}}:
            start, width = key.number(text), 32 if key.family == _V4 else 128
            return key.spread(start, start | ((1 << (width - length)) - 1))
    number = key.number(value)
    return key.spread(number, number)


def _test(key: Key, spans: Ranges, family: int, *, negated: bool = False) -> Matches | None:
    """The match that one part makes; None if no packet of the family passes it."""
    if key.axis is not None:
        return (Match(key.axis, spans, negated),)
    among = any(first <= _NFPROTO[family] <= last for first, last in spans)
    return () if among is not negated else None


def _implied(keys: list[Key], family: int) -> Matches | None:
    """The matches that go without saying; None if no packet of the family has such places."""
    if any(key.family not in (None, family) for key in keys):
        return None
    protocols = {key.protocol: None for key in keys if key.protocol is not None}
    asked = tuple(Match(Axis.PROTOCOL, ((one, one),)) for one in protocols)
    if any(key.tracked for key in keys):
        return (*asked, Match(Axis.STATE, _UNTRACKED, negated=True))
    return asked


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]
