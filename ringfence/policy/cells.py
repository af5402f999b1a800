"""Addresses and ports cut into cells where rules tell them apart.

Two addresses, or ports, of one cell meet the same rules, so that one stands for all of them.
"""

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import V4_MAPPED
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import AddressRange

PORTS = 65536
_ADDRESSES = 1 << 128
_FIRST_V4 = int.from_bytes(V4_MAPPED + bytes(4))
_PAST_V4 = _FIRST_V4 + (1 << 32)


class AddressCells:
    """All addresses, cut where one of some ranges begins or ends."""

    def __init__(self, ranges: Iterable[AddressRange]) -> None:
        # The IPv4 addresses are a stretch of their own, so that they can be found by 32 bits.
        cuts = {0, _FIRST_V4, _PAST_V4}
        for first, last in ranges:
            cuts |= {first, last + 1}
        self._starts = sorted(cuts - {_ADDRESSES})
        packed = b"".join(start.to_bytes(16) for start in self._starts)
        self._keys = np.frombuffer(packed, dtype="S16")
        self._v4 = slice(*(bisect_left(self._starts, end) for end in (_FIRST_V4, _PAST_V4)))
        self._v4_starts = np.array(
            [start - _FIRST_V4 for start in self._starts[self._v4]], dtype=np.uint32
        )

    def __len__(self) -> int:
        """The number of cells."""
        return len(self._starts)

    def bounds(self, cell: int) -> AddressRange:
        """The first and the last address of a cell."""
        following = self._starts[cell + 1 : cell + 2]
        return self._starts[cell], (following[0] if following else _ADDRESSES) - 1

    def within(self, span: AddressRange) -> slice:
        """The cells of a range, which is one that was cut for."""
        first, last = span
        return slice(bisect_left(self._starts, first), bisect_left(self._starts, last + 1))

    def of(self, addresses: NDArray[np.uint8]) -> NDArray[np.intp]:
        """The cell of each address, shape (n, 16)."""
        packed = np.ascontiguousarray(addresses)
        head, low = packed.view(">u4").reshape(-1, 4)[:, 2], packed.view(">u4")[:, 3]
        v4 = (packed.view("<u8")[:, 0] == 0) & (head == 0xFFFF)  # noqa: PLR2004
        cells = np.searchsorted(self._v4_starts, low.astype(np.uint32), side="right")
        cells += self._v4.start - 1
        if not v4.all():
            # numpy ignores trailing zero bytes of such keys; all have one width, so that changes
            # neither their order nor which of them are equal.
            others = packed[~v4].view("S16").ravel()
            cells[~v4] = np.searchsorted(self._keys, others, side="right") - 1
        return cells


class PortCells:
    """All port numbers, cut where one of some ranges begins or ends."""

    def __init__(self, ranges: Iterable[PortRange]) -> None:
        cuts = {0}
        for ports in ranges:
            cuts |= {ports.first, ports.last + 1}
        self._starts = sorted(cuts - {PORTS})
        widths = np.diff([*self._starts, PORTS])
        self.of: NDArray[np.intp] = np.repeat(np.arange(len(widths)), widths)
        """The cell of each port."""

    def __len__(self) -> int:
        """The number of cells."""
        return len(self._starts)

    def bounds(self, cell: int) -> tuple[int, int]:
        """The first and the last port of a cell."""
        return self._starts[cell], [*self._starts, PORTS][cell + 1] - 1

    def within(self, ports: PortRange) -> slice:
        """The cells of a range, which is one that was cut for."""
        first, last = ports.first, ports.last
        return slice(bisect_left(self._starts, first), bisect_left(self._starts, last + 1))
