"""Silence for who sends what our rules drop on its way out.

Dropped in the output hook, a packet fails the call that sent it with EPERM. Handed to a queue that
nobody listens to, it is freed, and the call succeeds. nft's language cannot say that where the
kernel has no `queue` of its own; iptables' target NFQUEUE, which nearly every kernel lends to
nftables (nft_compat), nft lists but does not write. So the rule is written by netlink, ahead of the
one that drops. Where it is missing, that one drops; and should somebody listen and give the packet
back, later chains of the table drop it by its mark.
"""

import struct
from threading import Event

import structlog

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import (
    ACK,
    CREATE,
    DUMP,
    NETFILTER,
    ask,
    attribute,
    attributes,
    change_rules,
    expression,
    number,
)
from ringfence.policy.backends.marks import SILENCED_MARK, SILENT_QUEUE

CHAIN = "rf_drop"
"""The chain that denied packets end in: its last rule drops them."""

# include/uapi/linux/netfilter.h, netfilter/nf_tables.h and netfilter/nf_tables_compat.h
_INET, _IPV4 = 1, 2
_NEW_RULE, _GET_RULE, _GET_REVISION = 10 << 8 | 6, 10 << 8 | 7, 11 << 8
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS, _POSITION = 1, 2, 3, 4, 6
_META_MARK, _META_IIF = 3, 4
_GENERIC = struct.Struct("=BBH")  # nfgenmsg

_told = Event()

log = structlog.get_logger()


def _value(kind: int, value: int) -> bytes:
    return attribute(kind, attribute(1, struct.pack("=I", value)))


_REGISTER = number(1, 1)
_RULE = b"".join(
    (
        # Only what came by no interface: what others send meets silence anyway.
        expression(b"meta", number(2, _META_IIF), _REGISTER),
        expression(b"cmp", _REGISTER, number(2, 0), _value(3, 0)),
        expression(b"immediate", _REGISTER, _value(2, SILENCED_MARK)),
        expression(b"meta", number(2, _META_MARK), number(3, 1)),
        expression(
            b"target",
            attribute(1, b"NFQUEUE\0"),
            number(2, 0),
            attribute(3, struct.pack("=H6x", SILENT_QUEUE)),  # xt_NFQ_info, aligned
        ),
    )
)
"""As the kernel tells it, byte for byte."""


def keep_silent(table: str) -> None:
    """Write the rule into a table of the thread's namespace, if it has a chain that drops.

    Where the kernel cannot, senders hear EPERM; that is logged once.
    """
    try:
        if rules := _rules(table):
            _load_target()
            where = attribute(_POSITION, rules[-1][_HANDLE])
            rule = attribute(_EXPRESSIONS, _RULE)
            change_rules((_NEW_RULE, CREATE, _chain_of(table) + rule + where))
    except NetlinkError as error:
        tell(str(error))


def silencing(table: str) -> frozenset[int]:
    """The handles of a table's rules that are this one; raises NetlinkError."""
    ours = (rule for rule in _rules(table) if rule.get(_EXPRESSIONS) == _RULE)
    return frozenset(int.from_bytes(rule[_HANDLE]) for rule in ours)


def _rules(table: str) -> list[dict[int, bytes]]:
    told = ask(NETFILTER, _GET_RULE, DUMP, _chain_of(table))
    return [attributes(payload[_GENERIC.size :]) for payload in told]


def _chain_of(table: str) -> bytes:
    names = attribute(_TABLE, table.encode() + b"\0") + attribute(_CHAIN, CHAIN.encode() + b"\0")
    return _GENERIC.pack(_INET, 0, 0) + names


def _load_target() -> None:
    """Have the kernel load the module, which it does for a family of iptables alone."""
    asked = attribute(1, b"NFQUEUE\0") + number(2, 0) + number(3, 1)
    for _ in ask(NETFILTER, _GET_REVISION, ACK, _GENERIC.pack(_IPV4, 0, 0) + asked):
        pass


def tell(problem: str) -> None:
    """Log that there is no silence, and why: the first time."""
    if _told.is_set():
        return
    _told.set()
    log.warning("who sends what is denied hears of it (EPERM)", problem=problem)
