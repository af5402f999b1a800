"""The inventory as of one moment, indexed by filter and by address."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.index import LabelIndex
from ringfence.inventory.pod_networks import PodNetworks
from ringfence.inventory.seen_from import SeenFrom, meant
from ringfence.model.address import Address
from ringfence.model.ids import NO_CLUSTER, ClusterId, ItemKey, RevisionId
from ringfence.model.query import Query
from ringfence.model.workload import Item, ItemKind

NOWHERE = -1
"""The position of an address that no item holds."""
_SHARED = -2


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

    def at(self, address: Address, home: ClusterId) -> int:
        """The position of the item that the address is, as seen from a Kubernetes cluster.

        NOWHERE if it is none; `seen_from.meant` has whose counts.
        """

    def holder(self, address: Address, home: ClusterId) -> int:
        """As `at`, for who depends on the address anyhow."""

    def position(self, key: ItemKey) -> int:
        """The item's position, NOWHERE if it is not there."""

    def is_held(self, address: Address) -> bool:
        """Whether an item of any Kubernetes cluster holds the address."""

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

    def at(self, address: Address, home: ClusterId) -> int:
        """The position of the item that the address is, as seen from a Kubernetes cluster.

        NOWHERE if it is none; `seen_from.meant` has whose counts.
        """
        found, shared = self._holders
        at = found.get(address, NOWHERE)
        if at == NOWHERE or (address not in shared and self.items[at].cluster in (home, "")):
            return at
        holders = shared.get(address) or {self.items[at].cluster: at}
        clusters = meant(holders, home, owned=self._pod_networks.hold(home, address))
        return max((holders[one] for one in clusters), key=self._claim, default=NOWHERE)

    def _claim(self, at: int) -> tuple[bool, int, int]:
        """An owner comes before a guest, the later before the earlier."""
        item = self.items[at]
        return not item.host_network, item.since_ns, int(self.revisions[at])

    holder = at

    def each_holder(self, address: Address) -> Collection[int]:
        """The positions of all that the address is, one for each cluster that holds it."""
        found, shared = self._holders
        if address in shared:
            return shared[address].values()
        return (found[address],) if address in found else ()

    def is_held(self, address: Address) -> bool:
        """Whether an item of any Kubernetes cluster holds the address."""
        return address in self._holders[0]

    def homes(self, positions: NDArray[np.int32]) -> SeenFrom:
        """The items' own Kubernetes clusters, none for NOWHERE."""
        number, of_items = self._clusters
        return SeenFrom((*number, NO_CLUSTER), of_items[positions])

    def locate(self, addresses: NDArray[np.uint8], seen_from: SeenFrom) -> NDArray[np.int32]:
        """Positions of what addresses, shape (n, 16), are as seen from clusters, NOWHERE for none.

        Of one cluster an address that a host-network pod shares with its node belongs to the node,
        any other that several items have to the one that came to it last.
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
        self._look_abroad(found, addresses, seen_from)
        return found

    def _look_abroad(
        self, found: NDArray[np.int32], addresses: NDArray[np.uint8], seen_from: SeenFrom
    ) -> None:
        """Find anew what is not the own cluster's alone."""
        number, of_items = self._clusters
        homes = np.array([number.get(one, NOWHERE) for one in seen_from.clusters], dtype=np.int32)
        whose, none = of_items[found], number.get(NO_CLUSTER, len(number))
        near = (whose == homes[seen_from.which]) | (whose == none)
        rows = np.flatnonzero((found != NOWHERE) & ~near)
        if not len(rows):
            return
        some, seen = addresses[rows], seen_from.take(rows)
        places, which = seen.distinct(some)
        asked = zip(some[places], seen.which[places].tolist(), strict=True)
        told = [self.at(Address(one.tobytes()), seen.clusters[at]) for one, at in asked]
        found[rows] = np.array(told, dtype=np.int32)[which]

    @cached_property
    def _pod_networks(self) -> PodNetworks:
        return PodNetworks(self.items)

    @cached_property
    def _clusters(self) -> tuple[dict[ClusterId, int], NDArray[np.int32]]:
        """Numbers of the items' clusters, and each item's; behind them no cluster's."""
        number: dict[ClusterId, int] = {}
        told = [number.setdefault(item.cluster, len(number)) for item in self.items]
        return number, np.array([*told, _SHARED, NOWHERE], dtype=np.int32)

    @cached_property
    def _holders(self) -> tuple[dict[Address, int], dict[Address, dict[ClusterId, int]]]:
        """The position of each held address's holder; by cluster where several hold it."""
        found: dict[Address, int] = {}
        shared: dict[Address, dict[ClusterId, int]] = {}
        # As `holders.segments` has it: an owner before a guest, the later before the earlier.
        since = np.array([item.since_ns for item in self.items], dtype=np.int64)
        for position in np.lexsort((self.revisions, since)).tolist():
            item = self.items[position]
            for address in item.addresses:
                before = found.setdefault(address, position)
                if address in shared or self.items[before].cluster != item.cluster:
                    held = shared.setdefault(address, {self.items[before].cluster: before})
                    if item.cluster not in held or not item.host_network:
                        held[item.cluster] = position
                elif not item.host_network:
                    found[address] = position
        return found, shared

    @cached_property
    def _by_address(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
        """Held addresses as sorted (high, low) words, and the position of each one's holder.

        _SHARED where several clusters hold one.
        """
        holders, shared = self._holders
        packed = np.frombuffer(b"".join(holders), dtype=np.uint8).reshape(len(holders), 16)
        high, low = _words(packed)
        order = np.lexsort((high, low))
        told = holders | dict.fromkeys(shared, _SHARED) if shared else holders
        positions = np.fromiter(told.values(), dtype=np.int32, count=len(told))
        return high[order], low[order], positions[order]


def _words(addresses: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]
