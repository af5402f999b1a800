"""What existed when: every item's lives, so that a flow is labelled by the inventory of its time.

An address that moves from one pod to another belongs, at every instant, to its holder of that
instant. Events may come late and out of order; what they say is entered at their own time.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.as_known import FOREVER, AsKnown, Snapshots
from ringfence.inventory.held import Held
from ringfence.inventory.holders import SEVERAL, Holding, locate
from ringfence.inventory.index import LabelIndex
from ringfence.inventory.networks import Claim, Networks
from ringfence.inventory.outside import ApiServer, ApiServers, api_addresses
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, format_address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId
from ringfence.model.labels import ADDRESS
from ringfence.model.query import Query, matches
from ringfence.model.workload import Item, ItemKind

LATE_NS = 300 * 10**9
"""How far behind an item's newest event an older one is still entered; beyond, it is ignored."""

_EXACT_NS = 3 * 10**9
"""How much later than its `since_ns` an item may have come to its addresses."""
_SEGMENT = 1024


@dataclass(frozen=True, slots=True)
class Change:
    """A life that began, or whose end moved: the whole row, to be stored under its revision.

    It spans [from_ns, to_ns), epoch ns. Where both are equal the life is void: an event of the
    same instant took its place.
    """

    revision: RevisionId
    key: ItemKey
    from_ns: int
    to_ns: int
    item: Item


@dataclass(frozen=True, slots=True)
class Life:
    """An item was so in [from_ns, to_ns), epoch ns."""

    from_ns: int
    to_ns: int
    item: Item


class Timeline:
    """The history of items. Not thread-safe.

    Any order of the same events, each at an instant of its own per item and none later than
    LATE_NS, gives the same inventory at every instant from the first one told on. A revision's
    id and item never change.
    """

    def __init__(self) -> None:
        # One row per life; a row's position never changes.
        self._from = array("q")
        self._to = array("q")
        self._items: list[Item] = []
        self._revisions = array("Q")
        self._row: dict[RevisionId, int] = {}
        self._lives: dict[ItemKey, list[int]] = {}
        self._seen: dict[ItemKey, list[tuple[int, Item | None]]] = {}
        self._clusters: set[ClusterId] = set()
        self._bare: dict[ItemKey, Item] = {}
        self._reported: dict[tuple[ClusterId, str], tuple[Address, ...]] = {}
        self._held = Held(self._holding)
        self._of_networks: list[int] = []
        self._networks: Networks | None = None
        self._of_api_servers: list[int] = []
        self._api_servers: ApiServers | None = None
        self._sealed: list[LabelIndex] = []
        self._snapshots = Snapshots()
        self._known: AsKnown | None = None
        self._followers: list[set[ItemKey]] = []

    def load(self, changes: Iterable[Change]) -> None:
        """Take up stored rows, in any order, one per revision, before any event."""
        for change in sorted(changes, key=lambda change: change.from_ns):
            self._take_up(change.item, change.from_ns, change.to_ns, change.revision)

    def recall(self, lives: Iterable[Life]) -> None:
        """As `load`, of lives that have no revisions yet; those of an item share no instant."""
        for life in sorted(lives, key=lambda life: life.from_ns):
            self._take_up(life.item, life.from_ns, life.to_ns)

    def _take_up(
        self, item: Item, from_ns: int, to_ns: int, revision: RevisionId | None = None
    ) -> None:
        self._begin(item, from_ns, to_ns, revision)
        if to_ns < FOREVER:
            self._seen[item.key] = [(to_ns, None)]
            return
        self._seen[item.key] = [(from_ns, item)]
        if item.kind is ItemKind.NODE:
            # Until its agent speaks again a node keeps the addresses it was known by.
            self._reported[item.cluster, item.name] = item.addresses

    def observe(self, at_ns: int, item: Item) -> list[Change]:
        """The item was so from `at_ns` on, until its next known event.

        Addresses that it did not have it has since its `since_ns`, where that is later than its
        last event: news of a pod comes after its first packets.
        """
        if _follows_node(item) and at_ns >= self._newest(item.key):
            self._bare[item.key] = item
        item = self._with_reported(item)
        since_ns = self._since(at_ns, item)
        changes = self._enter(since_ns, item.key, item) if since_ns < at_ns else []
        return changes + self._enter(at_ns, item.key, item)

    def gone(self, at_ns: int, key: ItemKey) -> list[Change]:
        """The item was no more from `at_ns` on, until its next known event."""
        self._bare.pop(key, None)
        return self._enter(at_ns, key, None)

    def replace(
        self, at_ns: int, cluster: ClusterId, items: Iterable[Item], *, last: bool = False
    ) -> list[Change]:
        """At `at_ns` exactly these items were in the Kubernetes cluster: what is absent is gone.

        `last`: nothing newer is known of any of them, whatever the clocks said.
        """
        changes: list[Change] = []
        present = set()
        for item in items:
            present.add(item.key)
            at = self.after(at_ns, item.key) if last else at_ns
            changes += self.observe(at, item)
        for item in self._living():
            if item.cluster == cluster and item.key not in present:
                changes += self.gone(self.after(at_ns, item.key) if last else at_ns, item.key)
        return changes

    def after(self, at_ns: int, key: ItemKey) -> int:
        """An instant for news of an item that is the last: as told, unless clocks were set."""
        return max(at_ns, self._newest(key) + 1)

    def set_node_addresses(
        self, cluster: ClusterId, node: str, addresses: Iterable[Address], at_ns: int
    ) -> list[Change]:
        """All addresses of a node's interfaces, as its agent reports them from `at_ns` on.

        They join those that Kubernetes lists for the node and its host-network pods.
        """
        reported = tuple(sorted(set(addresses)))
        if self._reported.get((cluster, node)) == reported:
            return []
        self._reported[cluster, node] = reported
        changes = []
        for item in self._living():
            if _follows_node(item) and (item.cluster, _node_of(item)) == (cluster, node):
                merged = self._with_reported(self._bare.get(item.key, item))
                changes += self._enter(max(at_ns, self._newest(item.key)), item.key, merged)
        return changes

    def knows(self, cluster: ClusterId) -> bool:
        """Whether anything was ever told of a Kubernetes cluster."""
        return cluster in self._clusters

    def at(self, t_ns: int) -> Snapshot:
        """The inventory as of an instant."""
        return self.as_known().at(t_ns)

    def latest(self) -> Snapshot:
        """The inventory as far as it is known, whatever the clocks of those who told it say."""
        return self.as_known().latest()

    def as_known(self) -> AsKnown:
        """All that is known by now, for threads: what comes later does not change it."""
        if self._known is None:
            self._known = AsKnown(
                *self._bounds(), self._items, self._revisions, self._row, self._snapshots
            )
        return self._known

    def follow(self) -> set[ItemKey]:
        """A set into which the key of each item that changes goes; at first there are all."""
        self._followers.append(altered := {item.key for item in self._living()})
        return altered

    def living(self, key: ItemKey) -> tuple[RevisionId, Item] | None:
        """An item and its revision as far as it is known, None if it is no more."""
        for row in reversed(self._lives.get(key, ())):
            if self._to[row] == FOREVER:
                return RevisionId(self._revisions[row]), self._items[row]
        return None

    def revision(self, revision: RevisionId) -> tuple[Item, int, int]:
        """The item of a revision and its life [from_ns, to_ns); raises KeyError."""
        row = self._row[revision]
        return self._items[row], self._from[row], self._to[row]

    def holders(self, address: Address) -> list[Item]:
        """Every item that holds the address as far as it is known."""
        rows = self._held.rows(address)
        return [self._items[row] for row in rows if self._to[row] == FOREVER]

    def is_pods(self, cluster: ClusterId, address: Address) -> bool:
        """Whether the address is in one of a cluster's pod networks as far as they are known."""
        return any(one.to_ns == FOREVER for one in self._held.around(address, cluster))

    def api_servers(self) -> ApiServers:
        """Where API servers answered, and when, pods aside."""
        if self._api_servers is None:
            self._api_servers = ApiServers(
                ApiServer(item.cluster, address, self._from[row], self._to[row])
                for row in self._of_api_servers
                for item in (self._items[row],)
                for address in api_addresses(item)
            )
        return self._api_servers

    def lives(self, query: Query, since_ns: int, until_ns: int) -> list[Life]:
        """What satisfied the query within [since_ns, until_ns), each life whole."""
        chosen = self.select_revisions(query, since_ns, until_ns).tolist()
        rows = [self._row[RevisionId(revision)] for revision in chosen]
        return [Life(self._from[row], self._to[row], self._items[row]) for row in rows]

    def select_revisions(self, query: Query, since_ns: int, until_ns: int) -> NDArray[np.uint64]:
        """The revisions that satisfy the query and lived within [since_ns, until_ns), sorted."""
        begins, ends = self._bounds()
        chosen = np.zeros(len(begins), dtype=bool)
        for number, index in enumerate(self._sealed):
            hits = np.array(index.select(query), dtype=np.int64)
            chosen[number * _SEGMENT + hits] = True
        for row in range(len(self._sealed) * _SEGMENT, len(self._items)):
            chosen[row] = matches(query, self._items[row].labels)
        chosen &= (begins < ends) & (begins < until_ns) & (since_ns < ends)
        return np.sort(np.array(self._revisions, dtype=np.uint64)[chosen])

    def resolve(
        self,
        addresses: NDArray[np.uint8],
        first_ns: NDArray[np.int64],
        last_ns: NDArray[np.int64],
        seen_from: SeenFrom,
    ) -> NDArray[np.uint64]:
        """Who held each address, shape (n, 16), within [first, last]: the earliest revision.

        What holds it in the Kubernetes cluster that it was seen from counts, or in none; nobody
        where only the cluster's pod networks do; else what another cluster holds. 0 where nobody
        did, and where it went from one item to another, or several other clusters hold it: any
        would be half wrong.
        Of these a node stands before the host-network pods that share its address; between other
        holders at once (a pod that ends while its address is given away) the latest counts.
        What no item held is the smallest network's around it, if there is one.
        """
        held = self.resolve_or_several(addresses, first_ns, last_ns, seen_from)
        held[held == SEVERAL] = 0
        return held

    def resolve_or_several(
        self,
        addresses: NDArray[np.uint8],
        first_ns: NDArray[np.int64],
        last_ns: NDArray[np.int64],
        seen_from: SeenFrom,
    ) -> NDArray[np.uint64]:
        """As `resolve`, SEVERAL where more than one item held the address."""
        held = locate(addresses, first_ns, last_ns, seen_from, self._held.segments, self._key)
        free = np.nonzero(held == 0)[0]
        if self._of_networks and len(free):
            held[free] = self._all_networks().locate(addresses[free], first_ns[free], last_ns[free])
        return held

    def _all_networks(self) -> Networks:
        if self._networks is None:
            self._networks = Networks(
                Claim(self._from[row], self._to[row], network, RevisionId(self._revisions[row]))
                for row in self._of_networks
                if (network := self._items[row].network)
            )
        return self._networks

    def _key(self, revision: RevisionId) -> ItemKey:
        return self._items[self._row[revision]].key

    def _holding(self, row: int) -> Holding:
        item, revision = self._items[row], RevisionId(self._revisions[row])
        return Holding(self._from[row], self._to[row], revision, item.host_network, item.cluster)

    def _newest(self, key: ItemKey) -> int:
        seen = self._seen.get(key)
        return seen[-1][0] if seen else -FOREVER

    def _since(self, at_ns: int, item: Item) -> int:
        """When the item that is told of at `at_ns` came to its addresses."""
        told_ns, before = self._seen.get(item.key, [(-FOREVER, None)])[-1]
        known = before.addresses if before else ()
        if (
            item.since_ns <= 0
            or told_ns >= item.since_ns + _EXACT_NS
            or {*item.addresses} <= {*known}
        ):
            return at_ns
        return max(item.since_ns, told_ns + 1)

    def _enter(self, at_ns: int, key: ItemKey, item: Item | None) -> list[Change]:
        """Enter an event: it holds until the item's next one."""
        if at_ns < self._newest(key) - LATE_NS:
            return []
        seen = self._seen.setdefault(key, [])
        spot = bisect_left(seen, at_ns, key=lambda event: event[0])
        if spot < len(seen) and seen[spot][0] == at_ns:
            seen.pop(spot)
        until = seen[spot][0] if spot < len(seen) else FOREVER
        seen.insert(spot, (at_ns, item))
        self._seen[key] = [event for event in seen if event[0] >= seen[-1][0] - LATE_NS]
        return self._assign(key, at_ns, until, item)

    def _assign(self, key: ItemKey, start: int, end: int, item: Item | None) -> list[Change]:
        """Make the item so (None: absent) in [start, end), and leave it as it is elsewhere."""
        self._known = None
        changes = []
        for row in self._overlapping(key, start, end):
            old, begin, finish = self._items[row], self._from[row], self._to[row]
            if begin <= start and end <= finish and old == item:
                return []
            self._to[row] = max(begin, start)
            self._forget(old)
            if begin >= start:
                self._lives[key].remove(row)
            changes.append(self._change(row))
            if finish > end:
                changes.append(self._begin(old, end, finish))
        if item is not None:
            changes.append(self._begin(item, start, end))
        for altered in self._followers:
            altered.add(key)
        self._snapshots.cut(start)
        return changes

    def _overlapping(self, key: ItemKey, start: int, end: int) -> list[int]:
        found = []
        for row in reversed(self._lives.get(key, ())):
            if self._to[row] <= start:
                break
            if self._from[row] < end:
                found.append(row)
        return found

    def _begin(
        self, item: Item, from_ns: int, to_ns: int, revision: RevisionId | None = None
    ) -> Change:
        self._known = None
        row = len(self._items)
        revision = self._new_revision(item.key, from_ns) if revision is None else revision
        self._from.append(from_ns)
        self._to.append(to_ns)
        self._items.append(item)
        self._revisions.append(revision)
        self._row[revision] = row
        if len(self._items) % _SEGMENT == 0:
            self._sealed.append(LabelIndex(item.labels for item in self._items[-_SEGMENT:]))
        self._clusters.add(item.cluster)
        if from_ns < to_ns:
            insort(self._lives.setdefault(item.key, []), row, key=self._from.__getitem__)
        self._held.add(row, item)
        if item.network is not None:
            self._of_networks.append(row)
        if api_addresses(item):
            self._of_api_servers.append(row)
        self._forget(item)
        return self._change(row)

    def _new_revision(self, key: ItemKey, from_ns: int) -> RevisionId:
        """Drawn from what it names, so that a history told twice gets the same ids; 63 bits."""
        attempt = 0
        while True:
            seed = f"{attempt} {from_ns} {key}".encode()
            drawn = int.from_bytes(blake2b(seed, digest_size=8).digest()) >> 1
            if drawn and RevisionId(drawn) not in self._row:
                return RevisionId(drawn)
            attempt += 1

    def _change(self, row: int) -> Change:
        item = self._items[row]
        revision = RevisionId(self._revisions[row])
        return Change(revision, item.key, self._from[row], self._to[row], item)

    def _forget(self, item: Item) -> None:
        """Who held the item's addresses when has to be worked out again."""
        self._held.forget(item)
        if item.network is not None:
            self._networks = None
        if item.service is not None:
            self._api_servers = None

    def _bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.array(self._from, dtype=np.int64), np.array(self._to, dtype=np.int64)

    def _living(self) -> list[Item]:
        return [self._items[row] for row in np.nonzero(self._bounds()[1] == FOREVER)[0].tolist()]

    def _with_reported(self, item: Item) -> Item:
        reported = self._reported.get((item.cluster, _node_of(item)))
        if not reported or not _follows_node(item):
            return item
        # Those that Kubernetes lists come first, in its order: the first is the main one.
        more = tuple(address for address in reported if address not in item.addresses)
        addresses = item.addresses + more
        written = tuple(sorted(format_address(address) for address in addresses))
        return replace(item, addresses=addresses, labels={**item.labels, ADDRESS: written})


def _follows_node(item: Item) -> bool:
    return item.kind is ItemKind.NODE or (item.kind is ItemKind.POD and item.host_network)


def _node_of(item: Item) -> str:
    return item.name if item.kind is ItemKind.NODE else item.node
