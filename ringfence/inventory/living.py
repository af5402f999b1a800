"""The inventory as it changes, for those who keep what they made of it.

An item keeps its position for life, so that what was made of other items stays as it was. What is
asked is noted as facts, such as a query; each change tells of which facts it is.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

from pyroaring import BitMap

from ringfence.inventory.index import LabelIndex
from ringfence.inventory.pod_networks import PodNetworks
from ringfence.inventory.seen_from import meant
from ringfence.inventory.snapshot import NOWHERE
from ringfence.inventory.watch import Watch
from ringfence.model.address import Address
from ringfence.model.ids import NO_CLUSTER, ClusterId, ItemKey, RevisionId
from ringfence.model.query import Query, matches
from ringfence.model.workload import Item, ItemKind

_NOBODY = Item(ItemKey(""), ItemKind.NETWORK, NO_CLUSTER, "", "", (), {})
"""Stands where an item was: no query chooses it, and it holds no address."""

News = Mapping[ItemKey, tuple[RevisionId, Item] | None]
"""What items are now, None for one that is no more."""


@dataclass(frozen=True, slots=True)
class Alteration:
    """What became of the item at a position; None where there was, or is, none."""

    at: int
    before: Item | None
    after: Item | None

    @property
    def addresses(self) -> frozenset[Address]:
        """Those that it holds or held."""
        sides = (self.before, self.after)
        return frozenset(address for one in sides if one for address in one.addresses)

    @property
    def kind(self) -> ItemKind:
        """What sort of item it is or was."""
        return self.sides[0].kind

    @property
    def sides(self) -> tuple[Item, ...]:
        """What it was and is, as far as there is something."""
        return tuple(one for one in (self.before, self.after) if one)

    @property
    def of_labels_only(self) -> bool:
        """Whether it is what it was, but for labels."""
        if self.before is None or self.after is None:
            return False
        return replace(self.before, labels=self.after.labels) == self.after


class Living:
    """A `snapshot.View` that changes. Not thread-safe."""

    def __init__(self, items: Iterable[tuple[RevisionId, Item]]) -> None:
        ordered = sorted(items, key=lambda pair: pair[1].key)
        self.items: list[Item] = [item for _, item in ordered]
        self.noted: set[Hashable] = set()
        """The facts that were asked for since this was emptied."""
        self._revisions: list[int] = [revision for revision, _ in ordered]
        self._position = {item.key: at for at, item in enumerate(self.items)}
        self._free: list[int] = []
        self.subjects, self.services, self.nodes = BitMap(), BitMap(), BitMap()
        self._called: dict[tuple[str, str], list[int]] = {}
        self._node_called: dict[tuple[ClusterId, str], int] = {}
        self._holding: dict[Address, list[int]] = {}
        self._clusters = Counter[ClusterId]()
        self.pod_networks = PodNetworks()
        self._chosen: dict[Query, BitMap] = {}
        self._watch = Watch()
        self._index: LabelIndex | None = LabelIndex(item.labels for item in self.items)
        for at, item in enumerate(self.items):
            self._enter(at, item)

    def chosen(self, query: Query) -> BitMap:
        """Those of the subjects that satisfy the query."""
        if query not in self._chosen:
            if self._index is None:
                self._index = LabelIndex(item.labels for item in self.items)
            self._chosen[query] = self._index.select(query) & self.subjects
            self._watch.add(query)
        self.noted.add(query)
        return self._chosen[query].copy()

    def called(self, namespace: str, name: str) -> list[int]:
        """The positions of Services by that name, one for each Kubernetes cluster."""
        self.noted.add((namespace, name))
        return sorted(self._called.get((namespace, name), ()), key=lambda at: self.items[at].key)

    def at(self, address: Address, home: ClusterId) -> int:
        """The position of the item that the address is, as seen from a Kubernetes cluster.

        NOWHERE if it is none; `seen_from.meant` has whose counts.
        """
        self.noted.add(address)
        return self.holder(address, home)

    def holder(self, address: Address, home: ClusterId) -> int:
        """As `at`, for who depends on the address anyhow."""
        held = self._holding.get(address)
        if not held:
            return NOWHERE
        clusters = {self.items[at].cluster for at in held}
        if clusters != {home}:
            counting = meant(clusters, home, owned=self.pod_networks.hold(home, address))
            held = [at for at in held if self.items[at].cluster in counting]
        # As `Snapshot` has it: an owner before a guest, the later before the earlier.
        return max(held, key=self._claim, default=NOWHERE)

    def is_held(self, address: Address) -> bool:
        """Whether an item of any Kubernetes cluster holds the address."""
        self.noted.add(address)
        return address in self._holding

    def holding(self, address: Address) -> list[int]:
        """The positions of all items that hold the address."""
        return self._holding.get(address, [])

    def runner(self, at: int) -> int:
        """The position of the node that runs the pod at one, NOWHERE for all but pods."""
        item = self.items[at]
        if item.kind is not ItemKind.POD:
            return NOWHERE
        return self._node_called.get((item.cluster, item.node), NOWHERE)

    def position(self, key: ItemKey) -> int:
        """The item's position, NOWHERE if it is not there."""
        return self._position.get(key, NOWHERE)

    @property
    def clusters(self) -> frozenset[ClusterId]:
        """The Kubernetes clusters that have subjects, none for hosts among them."""
        return frozenset(cluster for cluster, count in self._clusters.items() if cluster and count)

    def note(self, fact: Hashable) -> None:
        """Say that what is made now depends on a fact."""
        self.noted.add(fact)

    def choosing(self, at: int) -> list[Query]:
        """The queries asked so far that choose the item at the position."""
        found = self._watch.candidates(self.items[at].labels)
        return [query for query in found if at in self._chosen[query]]

    def change(self, news: News) -> tuple[list[Alteration], set[Hashable]]:
        """Take the news in; what became of which position, and whom queries choose now.

        Of queries those count whose choice is another, or that choose an item of which more than
        labels has changed.
        """
        altered, facts = [], set[Hashable]()
        # Who goes first leaves its position to who comes.
        for key, now in sorted(news.items(), key=lambda pair: (pair[1] is not None, pair[0])):
            at = self._position.get(key, NOWHERE)
            before = self.items[at] if at != NOWHERE else None
            if now is None and before is None:
                continue
            at = self._leave(at, before) if now is None and before else at
            if now is not None:
                at = self._take(at, before, *now)
            one = Alteration(at, before, now[1] if now else None)
            if one.before != one.after:
                self._index = None
                facts |= self._choose(one)
            altered.append(one)
        return altered, facts

    def _leave(self, at: int, item: Item) -> int:
        self._remove(at, item)
        del self._position[item.key]
        self.items[at] = _NOBODY
        self._free.append(at)
        return at

    def _take(self, at: int, before: Item | None, revision: RevisionId, item: Item) -> int:
        if before is not None:
            self._remove(at, before)
        elif self._free:
            at = self._free.pop()
        else:
            at = len(self.items)
            self.items.append(item)
            self._revisions.append(revision)
        self.items[at], self._revisions[at] = item, revision
        self._position[item.key] = at
        self._enter(at, item)
        return at

    def _choose(self, one: Alteration) -> set[Hashable]:
        facts = set[Hashable]()
        candidates = {q for side in one.sides for q in self._watch.candidates(side.labels)}
        for query in candidates:
            held = self._chosen[query]
            was = one.at in held
            now = one.at in self.subjects and matches(query, self.items[one.at].labels)
            if was != now:
                (held.add if now else held.remove)(one.at)
            if was != now or (now and not one.of_labels_only):
                facts.add(query)
        return facts

    def _enter(self, at: int, item: Item) -> None:
        if item.is_workload and not item.host_network:
            self.subjects.add(at)
            self._clusters[item.cluster] += 1
        if item.kind is ItemKind.SERVICE:
            self.services.add(at)
            self._called.setdefault((item.namespace, item.name), []).append(at)
        if item.kind is ItemKind.NODE:
            self.nodes.add(at)
            self._node_called[item.cluster, item.name] = at
        self.pod_networks.add(item)
        for address in item.addresses:
            self._holding.setdefault(address, []).append(at)

    def _remove(self, at: int, item: Item) -> None:
        if at in self.subjects:
            self._clusters[item.cluster] -= 1
        for held in (self.subjects, self.services, self.nodes):
            held.discard(at)
        if item.kind is ItemKind.SERVICE:
            self._called[item.namespace, item.name].remove(at)
        self.pod_networks.remove(item)
        # Of two nodes by one name, the later may have gone before.
        if item.kind is ItemKind.NODE and self._node_called.get((item.cluster, item.name)) == at:
            del self._node_called[item.cluster, item.name]
        for address in item.addresses:
            self._holding[address].remove(at)
            if not self._holding[address]:
                del self._holding[address]

    def _claim(self, at: int) -> tuple[bool, int, int, ItemKey]:
        item = self.items[at]
        return not item.host_network, item.since_ns, self._revisions[at], item.key
