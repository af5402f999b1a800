"""The distinct ports and addresses that policies tell apart: two ports or addresses of one cell
meet the same verdict, so that one stands for all of them.
"""

from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import V4_MAPPED, Address, format_address
from ringfence.model.policy import Direction
from ringfence.model.protocol import SCTP, TCP, UDP, PortRange, format_protocol
from ringfence.model.ranges import AddressRange, spans, subtract
from ringfence.policy.kubernetes.policies import KubernetesPolicy, Networks
from ringfence.policy.layer import OrderedRule

Mask = NDArray[np.bool_]
MAX_PORT = 65535
ALL = "All Connections"
NOTHING = "No Connections"
_PROTOCOLS = (SCTP, TCP, UDP)
"""In the order in which connections are written."""
_FIRST_V4 = int.from_bytes(V4_MAPPED + bytes(4))
_LAST_V4 = _FIRST_V4 + (1 << 32) - 1


class PortCells:
    """Ranges of ports of each protocol; a mask has one element for each."""

    def __init__(self, wanted: Iterable[tuple[int, PortRange]]) -> None:
        cuts = {protocol: {1, MAX_PORT + 1} for protocol in _PROTOCOLS}
        for protocol, ports in wanted:
            if protocol in cuts:
                cuts[protocol] |= {max(ports.first, 1), ports.last + 1}
        self.cells = [
            (protocol, first, following - 1)
            for protocol in _PROTOCOLS
            for first, following in pairwise(sorted(cuts[protocol]))
        ]
        self._texts: dict[bytes, str] = {}

    def __len__(self) -> int:
        """The number of cells."""
        return len(self.cells)

    @cached_property
    def _columns(self) -> NDArray[np.int64]:
        return np.array(self.cells, dtype=np.int64).T

    def mask(self, protocol: int | None, ports: Sequence[PortRange]) -> Mask:
        """The cells that a rule's protocol and ports hold; they hold a cell whole or not at all."""
        protocols, first, last = self._columns
        found = np.full(len(self.cells), not ports)
        for one in ports:
            found |= (first >= one.first) & (last <= one.last)
        return found if protocol is None else found & (protocols == protocol)

    def text(self, packed: bytes) -> str:
        """What connections of some cells (bits of a mask, packed) are: `TCP 80,90-100,UDP 53`."""
        if packed not in self._texts:
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=len(self))
            self._texts[packed] = self._told(bits.astype(np.bool_))
        return self._texts[packed]

    def _told(self, mask: Mask) -> str:
        return self.text_with_names(mask, [])

    def text_with_names(self, mask: Mask, names: Iterable[tuple[int | None, str]]) -> str:
        """The text of some cells, and of ports of which the name is known, perhaps the protocol."""
        if mask.all():
            return ALL
        found = {
            format_protocol(protocol): [str(one) for one in listed]
            for protocol, listed in self.ranges(mask).items()
        }
        for protocol, name in sorted(names, key=lambda one: one[1]):
            word = "" if protocol is None else format_protocol(protocol)
            found.setdefault(word, []).append(name)
        return ",".join(f"{word} {','.join(found[word])}" for word in sorted(found)) or NOTHING

    def ranges(self, mask: Mask) -> dict[int, list[PortRange]]:
        """The ports of some cells: for each protocol of which there are any, the fewest ranges."""
        found: dict[int, list[PortRange]] = {}
        for protocol, first, last in (self.cells[at] for at in np.flatnonzero(mask).tolist()):
            listed = found.setdefault(protocol, [])
            if listed and listed[-1].last + 1 == first:
                listed[-1] = PortRange(listed[-1].first, last)
            else:
                listed.append(PortRange(first, last))
        return found


def port_ranges(rules: Iterable[OrderedRule]) -> Iterable[tuple[int, PortRange]]:
    """Every range of ports that the rules speak of."""
    for rule in rules:
        for ports in rule.ports:
            for protocol in _PROTOCOLS if rule.protocol is None else (rule.protocol,):
                yield protocol, ports


def address_cells(
    policies: Iterable[KubernetesPolicy], directions: Container[Direction]
) -> list[AddressRange]:
    """Every IPv4 address, in the ranges that the policies tell apart in those directions."""
    cuts = {_FIRST_V4, _LAST_V4 + 1}
    for policy in policies:
        for rule in policy.rules:
            for peer in rule.peers or ():
                if rule.direction in directions and isinstance(peer, Networks):
                    for first, last in subtract(spans(peer.networks), spans(peer.exceptions)):
                        if _FIRST_V4 <= first <= last <= _LAST_V4:
                            cuts |= {first, last + 1}
    return [(first, following - 1) for first, following in pairwise(sorted(cuts))]


def format_range(addresses: AddressRange) -> str:
    """`first-last` as people write addresses."""
    first, last = (format_address(Address(one.to_bytes(16))) for one in addresses)
    return f"{first}-{last}"
