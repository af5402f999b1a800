"""Packet sockets (AF_PACKET) send nothing: whole frames never meet the rules of their namespace.

A table of our own in nftables' family netdev looks at what leaves by each interface. What the
kernel's IP stack sends, or forwards, has a route by then, and has met the output or forward hook;
what a packet socket sends has none, whatever the frame says, and PACKET_QDISC_BYPASS goes through
this hook too. ARP has no route either, and passes. The loopback interface is no exception: what a
packet socket sends there comes back as if from outside, and may be forwarded past every rule. The
table is written by netlink, so that it can be known again byte for byte.
"""

import errno
import struct
from collections.abc import Iterable
from threading import Event

import structlog

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.interfaces import list_interfaces
from ringfence.kernel.libnftables import run
from ringfence.kernel.netlink import (
    CREATE,
    DUMP,
    NESTED,
    NETFILTER,
    ask,
    attribute,
    attributes,
    change_rules,
    each_attribute,
    expression,
    number,
)

FAMILY, CHAIN = "netdev", "rf_packet_sockets"

# include/uapi/linux/netfilter.h, if_ether.h and netfilter/nf_tables.h
_NETDEV = 5
_EGRESS = 1
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _GET_RULE = (
    10 << 8 | one for one in (0, 1, 2, 3, 4, 6, 7)
)
_APPEND = 0x800
_TABLE, _TABLE_FLAGS, _CHAIN, _EXPRESSIONS = 1, 2, 2, 4
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 3, 4, 5
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICES = 1, 2, 4
_DEVICE_NAME = 1
_META_PROTOCOL, _META_ROUTE_CLASS = 1, 13
_EQUAL, _AT_LEAST = 0, 5
_ARP = 0x0806
_DROP, _ACCEPT = 0, 1
_GENERIC = struct.Struct("=BBH")  # nfgenmsg

_cannot = Event()
"""Whether the kernel has said that it has no such hook, or does not tell of routes."""

log = structlog.get_logger()


_REGISTER = number(1, 1)


def _meta(key: int) -> bytes:
    """Loads what is told of a packet; where it has no such thing, its rule ends."""
    return expression(b"meta", number(2, key), _REGISTER)


def _compared(how: int, value: bytes) -> bytes:
    return expression(b"cmp", _REGISTER, number(2, how), attribute(3, attribute(1, value)))


def _verdict(code: int) -> bytes:
    return expression(b"immediate", number(1, 0), attribute(2, attribute(2, number(1, code))))


_RULES = [
    _meta(_META_ROUTE_CLASS) + _compared(_AT_LEAST, bytes(4)) + _verdict(_ACCEPT),
    _meta(_META_PROTOCOL) + _compared(_EQUAL, struct.pack("!H", _ARP)) + _verdict(_ACCEPT),
    _verdict(_DROP),
]
_PLACE = tuple(struct.pack("!I", one) for one in (_EGRESS, 0, _ACCEPT))
"""Hook, priority and policy of the chain. Like the rules as the kernel tells them."""


def close(table: str) -> None:
    """Have packet sockets of the thread's namespace send nothing by the interfaces of now.

    Where the kernel cannot (before 5.16, or without CONFIG_NETFILTER_EGRESS and
    CONFIG_IP_ROUTE_CLASSID), they do; that is logged once. Raises NetlinkError for all else.
    """
    if _cannot.is_set() or is_closed(table):
        return
    named = _GENERIC.pack(_NETDEV, 0, 0) + attribute(_TABLE, _text(table))
    try:
        change_rules(
            (_NEW_TABLE, CREATE, named),
            (_DELETE_TABLE, 0, named),
            (_NEW_TABLE, CREATE, named),
            (_NEW_CHAIN, CREATE, named + _chain(_interfaces())),
            *(
                (_NEW_RULE, CREATE | _APPEND, _chain_of(table) + attribute(_EXPRESSIONS, rule))
                for rule in _RULES
            ),
        )
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        _cannot.set()
        log.warning("packet sockets of pods send past their rules", problem=str(error))


def can_close() -> bool:
    """Whether the kernel can, as far as is known."""
    return not _cannot.is_set()


def is_closed(table: str) -> bool:
    """Whether packet sockets of the thread's namespace can send nothing; raises NetlinkError."""
    return (
        _flags(table) == 0
        and _rules(table) == _RULES
        and set(_interfaces()) <= _hooked(table)
    )  # fmt: skip


def remove(table: str) -> None:
    """Take the table away, if it is there; raises KernelError."""
    if _flags(table) is not None:
        run(f"delete table {FAMILY} {table}", 0)


def _flags(table: str) -> int | None:
    """The flags of the table, None where it does not stand."""
    told = ask(NETFILTER, _GET_TABLE, DUMP, _GENERIC.pack(_NETDEV, 0, 0))
    tables = [attributes(one[_GENERIC.size :]) for one in told]
    ours = (one for one in tables if one.get(_TABLE) == _text(table))
    return next((int.from_bytes(one[_TABLE_FLAGS]) for one in ours), None)


def _chain(interfaces: Iterable[str]) -> bytes:
    """What the chain is besides its table."""
    names = b"".join(attribute(_DEVICE_NAME, _text(name)) for name in interfaces)
    devices = attribute(_HOOK_DEVICES | NESTED, names)
    hook = number(_HOOK_NUMBER, _EGRESS) + number(_HOOK_PRIORITY, 0) + devices
    name, policy = attribute(_CHAIN_NAME, _text(CHAIN)), number(_CHAIN_POLICY, _ACCEPT)
    return name + attribute(_CHAIN_HOOK | NESTED, hook) + policy


def _hooked(table: str) -> set[str]:
    """The interfaces at which the chain is called, if it is as written otherwise."""
    told = list(ask(NETFILTER, _GET_CHAIN, DUMP, _GENERIC.pack(_NETDEV, 0, 0)))
    for chain in (attributes(payload[_GENERIC.size :]) for payload in told):
        if chain[_TABLE] == _text(table) and chain[_CHAIN_NAME] == _text(CHAIN):
            hook = attributes(chain.get(_CHAIN_HOOK, b""))
            devices = each_attribute(hook.get(_HOOK_DEVICES, b""))
            names = {name.rstrip(b"\0").decode(errors="replace") for _, name in devices}
            place = hook.get(_HOOK_NUMBER), hook.get(_HOOK_PRIORITY), chain.get(_CHAIN_POLICY)
            return names if place == _PLACE else set()
    return set()


def _rules(table: str) -> list[bytes | None]:
    told = ask(NETFILTER, _GET_RULE, DUMP, _chain_of(table))
    return [attributes(payload[_GENERIC.size :]).get(_EXPRESSIONS) for payload in told]


def _interfaces() -> list[str]:
    """The names of all interfaces; raises NetlinkError."""
    return [one.name for one in list_interfaces()]


def _chain_of(table: str) -> bytes:
    names = attribute(_TABLE, _text(table)) + attribute(_CHAIN, _text(CHAIN))
    return _GENERIC.pack(_NETDEV, 0, 0) + names


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
