"""What the door to each mechanism of rules does: `nft` is one, and so is `iptables`.

Each knows its own rules in a namespace, and touches no other's.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Listing = list[dict[str, Any]]
"""What the kernel holds of ours in one namespace, in the words of its door."""


@dataclass(frozen=True)
class Drops:
    """What the drop sets of one namespace hold, n rows. Counters grow while a tuple is held.

    `mark` tells the denying rule. `port` is the destination port, for ICMP type * 256 + code, 0
    for protocols that have neither.
    """

    mark: NDArray[np.uint32]
    protocol: NDArray[np.uint8]
    source: NDArray[np.uint8]
    """Shape (n, 16)."""
    destination: NDArray[np.uint8]
    """Shape (n, 16)."""
    port: NDArray[np.uint16]
    packets: NDArray[np.uint64]
    expires: NDArray[np.uint32]
    """Seconds until the tuple is forgotten, unless another packet of it is dropped."""
    overflow: dict[int, int]
    """Packets that found no room, by mark, since the table was loaded."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.mark)


class Door(Protocol):
    """One mechanism; every method raises KernelError, those that enter one NamespaceError."""

    def usable(self) -> bool:
        """Whether this machine has the mechanism; raises nothing."""

    def apply(self, netns_path: Path, commands: str) -> None:
        """Load what a back end of this mechanism wrote, whole or not at all."""

    def remove(self, netns_path: Path) -> None:
        """Take our rules away, if they are there."""

    def start_tracking(self, netns_path: Path) -> None:
        """Track connections from now on, if no rules of ours are there yet."""

    def judges(self, netns_path: Path) -> bool:
        """Whether our rules are there and do more than to track."""

    def list_table(self, netns_path: Path, *, elements: bool = True) -> Listing | None:
        """Our rules, None if there are none; without `elements` not what sets hold."""

    def fingerprint(self, table: Listing, *, elements: bool = True) -> bytes:
        """Of a listing but for what changes by itself, and what sets hold if not `elements`."""

    def read_drops(self, objects: Listing, sets: Collection[str]) -> Drops:
        """What the drop sets of these names hold."""
