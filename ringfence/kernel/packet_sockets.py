"""Packet sockets (AF_PACKET) send nothing: whole frames never meet the rules of their namespace.

A table of our own in nftables' family netdev looks at what leaves by each interface. What the
kernel's IP stack sends, or forwards, has a route by then, and has met the output or forward hook;
what a packet socket sends has none, whatever the frame says, and PACKET_QDISC_BYPASS goes through
this hook too. ARP has no route either, and passes. The rules are written by netlink, so that they
can be known again byte for byte.
"""

import re
import struct
from contextlib import suppress
from threading import Event

import structlog

from ringfence.kernel.errors import KernelError
from ringfence.kernel.interfaces import list_interfaces
from ringfence.kernel.libnftables import NftError, run
from ringfence.kernel.netlink import (
    CREATE,
    DUMP,
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
_GET_TABLE, _GET_CHAIN, _NEW_RULE, _GET_RULE = (10 << 8 | one for one in (1, 4, 6, 7))
_APPEND = 0x800
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4
_CHAIN_NAME, _CHAIN_HOOK = 3, 4
_HOOK_NUMBER, _HOOK_DEVICES = 1, 4
_META_PROTOCOL, _META_ROUTE_CLASS = 1, 13
_EQUAL, _AT_LEAST = 0, 5
_ARP = 0x0806
_DROP, _ACCEPT = 0, 1
_GENERIC = struct.Struct("=BBH")  # nfgenmsg
_LOOPBACK = 1
"""The index of the loopback interface in every namespace."""
_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")

_told = Event()

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
"""As the kernel tells them, byte for byte."""


def close(table: str) -> None:
    """Have packet sockets of the thread's namespace send nothing by the interfaces of now.

    Where the kernel cannot (before 5.16, or without CONFIG_NETFILTER_EGRESS and
    CONFIG_IP_ROUTE_CLASSID), they do; that is logged once.
    """
    try:
        if is_closed(table):
            return
        names = ", ".join(f'"{name}"' for name in sorted(_interfaces()))
        ours = f"table {FAMILY} {table}\n"
        hook = f"type filter hook egress devices = {{ {names} }} priority 0; policy accept;"
        chain = f"add chain {FAMILY} {table} {CHAIN} {{ {hook} }}\n" if names else ""
        run(f"add {ours}delete {ours}add {ours}{chain}", 0)
        for rule in _RULES if names else ():
            said = _chain_of(table) + attribute(_EXPRESSIONS, rule)
            change_rules(_NEW_RULE, CREATE | _APPEND, said)
    except KernelError as error:
        with suppress(KernelError):
            remove(table)
        if not _told.is_set():
            _told.set()
            log.warning("packet sockets of pods send past their rules", problem=str(error))


def is_closed(table: str) -> bool:
    """Whether packet sockets of the thread's namespace can send nothing; raises KernelError."""
    names = set(_interfaces())
    return not names or (names <= _hooked(table) and _rules(table) == _RULES)


def stands(table: str) -> bool:
    """Whether the thread's namespace has the table; raises NetlinkError."""
    told = ask(NETFILTER, _GET_TABLE, DUMP, _GENERIC.pack(_NETDEV, 0, 0))
    return any(attributes(one[_GENERIC.size :]).get(_TABLE) == _text(table) for one in told)


def remove(table: str) -> None:
    """Take the table away, if it is there; raises KernelError."""
    if stands(table):
        run(f"delete table {FAMILY} {table}", 0)


def _hooked(table: str) -> set[str]:
    """The interfaces at which the chain is called."""
    told = ask(NETFILTER, _GET_CHAIN, DUMP, _GENERIC.pack(_NETDEV, 0, 0))
    for chain in (attributes(payload[_GENERIC.size :]) for payload in told):
        hook = attributes(chain.get(_CHAIN_HOOK, b""))
        ours = chain[_TABLE] == _text(table) and chain[_CHAIN_NAME] == _text(CHAIN)
        if ours and hook.get(_HOOK_NUMBER) == struct.pack("!I", _EGRESS):
            devices = each_attribute(hook.get(_HOOK_DEVICES, b""))
            return {name.rstrip(b"\0").decode(errors="replace") for _, name in devices}
    return set()


def _rules(table: str) -> list[bytes | None]:
    told = ask(NETFILTER, _GET_RULE, DUMP, _chain_of(table))
    return [attributes(payload[_GENERIC.size :]).get(_EXPRESSIONS) for payload in told]


def _interfaces() -> list[str]:
    """The names of all interfaces but the loopback one; raises NftError, NetlinkError."""
    names = [one.name for one in list_interfaces() if one.ifindex != _LOOPBACK]
    for name in names:
        if not _NAME.fullmatch(name):
            raise NftError(f"interface {name!r}: not a name that nftables takes")
    return names


def _chain_of(table: str) -> bytes:
    names = attribute(_TABLE, _text(table)) + attribute(_CHAIN, _text(CHAIN))
    return _GENERIC.pack(_NETDEV, 0, 0) + names


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
