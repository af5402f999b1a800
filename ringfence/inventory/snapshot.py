"""The inventory as of one moment, indexed by filter and by address."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.index import LabelIndex
from ringfence.model.address import Address
from ringfence.model.ids import ItemKey, RevisionId
from ringfence.model.query import Query
from ringfence.model.workload import Item, ItemKind

NOWHERE = -1
"""The position of an address that no item holds."""


class View(Protocol):
    """What rules are made of: items by position, and who is chosen by whichever words."""

    @property
    def items(self) -> Sequence[Item]:
        """All items, by position."""

    @property
    def subjects(self) -> BitMap:
        """The positions of workloads that stand for themselves: all but host-network pods."""

    @property
    def nodes(self) -> BitMap:
        """The positions of Kubernetes nodes."""

    @property
    def services(self) -> BitMap:
        """The positions of Services."""

    def chosen(self, query: Query) -> BitMap:
        """Those of the subjects that satisfy the query."""

    def called(self, namespace: str, name: str) -> Iterable[int]:
        """The positions of Services by that name, one for each Kubernetes cluster."""

    def at(self, address: Address) -> int:
        """The position of the item that holds the address, NOWHERE if none does."""

    def holder(self, address: Address) -> int:
        """As `at`, for who depends on the address anyhow."""

    def position(self, key: ItemKey) -> int:
        """The item's position, NOWHERE if it is not there."""

    def note(self, fact: Hashable) -> None:
        """Say that what is made now depends on a fact; see `living.Living`."""


class Snapshot:
    """Immutable. Everything that is asked of many items is asked by position, 0..n-1 in `items`.

    Items stand in the order of their keys, so equal inventories give equal positions.
    """

    def __init__(self, items: Iterable[tuple[RevisionId, Item]]) -> None:
        ordered = sorted(items, key=lambda pair: pair[1].key)
        self.items: tuple[Item, ...] = tuple(item for _, item in ordered)
        self.revisions: NDArray[np.uint64] = np.array([rev for rev, _ in ordered], dtype=np.uint64)
        self._position = {item.key: position for position, item in enumerate(self.items)}

    @cached_property
    def index(self) -> LabelIndex:
        """All items' labels."""
        return LabelIndex(item.labels for item in self.items)

    @cached_property
    def workloads(self) -> BitMap:
        """The positions of pods, nodes and hosts."""
        return BitMap(at for at, item in enumerate(self.items) if item.is_workload)

    @cached_property
    def subjects(self) -> BitMap:
        """The positions of workloads that stand for themselves: all but host-network pods."""
        return BitMap(at for at in self.workloads if not self.items[at].host_network)

    @cached_property
    def nodes(self) -> BitMap:
        """The positions of Kubernetes nodes."""
        return BitMap(at for at, item in enumerate(self.items) if item.kind is ItemKind.NODE)

    @cached_property
    def services(self) -> BitMap:
        """The positions of Services."""
        return BitMap(at for at, item in enumerate(self.items) if item.kind is ItemKind.SERVICE)

    @cached_property
    def _services_called(self) -> Mapping[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for at in self.services:
            item = self.items[at]
            found.setdefault((item.namespace, item.name), []).append(at)
        return found

    def called(self, namespace: str, name: str) -> Iterable[int]:
        """The positions of Services by that name, one for each Kubernetes cluster."""
        return self._services_called.get((namespace, name), ())

    def chosen(self, query: Query) -> BitMap:
        """Those of the subjects that satisfy the query."""
        return self.select(query) & self.subjects

    def note(self, fact: Hashable) -> None:
        """Nothing that is made of a snapshot is made again."""

    def select(self, query: Query) -> BitMap:
        """The positions of all items, workloads or not, that satisfy the query."""
        return self.index.select(query)

    def position(self, key: ItemKey) -> int:
        """The item's position, NOWHERE if it is not there."""
        return self._position.get(key, NOWHERE)

    def at(self, address: Address) -> int:
        """The position of the item that holds the address, NOWHERE if none does."""
        return self._holders.get(address, NOWHERE)

    holder = at

    def locate(self, addresses: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Positions of the holders of addresses, shape (n, 16), NOWHERE where there is none.

        An address that a host-network pod shares with its node belongs to the node, any other that
        several items have to the one that came to it last.
        """
        high, low = _words(addresses)
        held_high, held_low, holders = self._by_address
        if not len(holders):
            return np.full(len(addresses), NOWHERE, dtype=np.int32)
        # All IPv4 share their high word, so the low word is searched and the high one compared.
        spot = np.minimum(np.searchsorted(held_low, low), len(holders) - 1)
        found = holders[spot]
        found[(held_low[spot] != low) | (held_high[spot] != high)] = NOWHERE
        for row in np.nonzero((held_low[spot] == low) & (held_high[spot] != high))[0]:
            same = held_low == low[row]
            hit = holders[same & (held_high == high[row])]
            found[row] = hit[0] if len(hit) else NOWHERE
        return found

    @cached_property
    def _holders(self) -> dict[Address, int]:
        """The position of each held address's holder."""
        found: dict[Address, int] = {}
        # As `holders.segments` has it: an owner before a guest, the later before the earlier.
        since = np.array([item.since_ns for item in self.items], dtype=np.int64)
        for position in np.lexsort((self.revisions, since)).tolist():
            item = self.items[position]
            for address in item.addresses:
                if address not in found or not item.host_network:
                    found[address] = position
        return found

    @cached_property
    def _by_address(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
        """Held addresses as sorted (high, low) words, and the position of each one's holder."""
        holders = self._holders
        packed = np.frombuffer(b"".join(holders), dtype=np.uint8).reshape(len(holders), 16)
        high, low = _words(packed)
        order = np.lexsort((high, low))
        positions = np.fromiter(holders.values(), dtype=np.int32, count=len(holders))
        return high[order], low[order], positions[order]


def _words(addresses: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]
