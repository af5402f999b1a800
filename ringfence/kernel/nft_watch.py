"""Hears of changes of tables in a network namespace as they are made (NFNLGRP_NFTABLES).

Whoever made them: what we change ourselves is heard as well. What packets add to sets is not.
iptables-nft's tables are such, its ipsets are not; of iptables-legacy's the kernel tells nobody.
"""

import errno
from pathlib import Path

from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import attributes, connect, messages
from ringfence.kernel.netns import run_in
from ringfence.kernel.nft import TABLE

_NETLINK_NETFILTER = 12
_GROUPS = 1 << 7 - 1  # NFNLGRP_NFTABLES
_NEW_GENERATION = 15  # NFT_MSG_NEWGEN: the end of each transaction
_FAMILY_HEADER = 4  # bytes of nfgenmsg
_LARGEST = 1 << 18
_NFPROTO_INET, _NFPROTO_IPV4, _NFPROTO_NETDEV, _NFPROTO_IPV6 = 1, 2, 5, 10
OURS = frozenset((family, TABLE.encode() + b"\0") for family in (_NFPROTO_INET, _NFPROTO_NETDEV))
MANGLE = frozenset((family, b"mangle\0") for family in (_NFPROTO_IPV4, _NFPROTO_IPV6))
_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, …: all messages have it there


class TableWatch:
    """Listens from its making until it is closed; raises NetlinkError, NamespaceError."""

    def __init__(self, netns_path: Path, tables: frozenset[tuple[int, bytes]] = OURS) -> None:
        """`tables` are theirs by family and name, as the kernel writes it."""
        self._tables = tables
        self._socket = run_in(netns_path, lambda: connect(_NETLINK_NETFILTER))
        try:
            self._socket.bind((0, _GROUPS))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise NetlinkError(f"changes of rules are not heard: {error.strerror}") from error

    def touched(self) -> bool:
        """Whether one was changed since the last call, or so much that it may have been."""
        found = False
        while True:
            try:
                datagram = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetlinkError(
                        f"changes of rules are not heard: {error.strerror}", error.errno or 0
                    ) from error
                found = True
                continue
            found = found or any(self._is_one(*said) for said in messages(datagram))

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _is_one(self, kind: int, _: int, payload: bytes) -> bool:
        if kind & 0xFF == _NEW_GENERATION or not payload:
            return False
        name = attributes(payload[_FAMILY_HEADER:]).get(_NAME)
        return (payload[0], name) in self._tables
