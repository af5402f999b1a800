"""All that is known by an instant of who existed when, for those who look at it in threads."""

import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId
from ringfence.model.labels import OWNER_KIND
from ringfence.model.workload import Item, ItemKind

FOREVER = 2**63 - 1
"""The end of a life that has not ended, ns."""
_KEPT = 16
_MANY = frozenset({ItemKind.POD, ItemKind.HOST})
"""The kinds whose items no policy speaks of but at a conversation's own ends."""
_Schedule = tuple[ClusterId, str, str] | None


def _schedule(item: Item) -> _Schedule:
    """The CronJob that a pod is of, by its Kubernetes cluster, namespace and name."""
    if "CronJob" not in item.labels.get(OWNER_KIND, ()):
        return None
    return item.cluster, item.namespace, item.workload_name


class Snapshots:
    """The latest snapshots that were asked for, each with the time [since, until) it is true of.

    Threads add to them while the timeline goes on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[tuple[int, int, Snapshot]] = []
        self._cuts = array("q")

    @property
    def cuts(self) -> int:
        """How often something was changed by now."""
        return len(self._cuts)

    def find(self, t_ns: int, cuts: int) -> Snapshot | None:
        """That of an instant, as it was known after so many changes."""
        with self._lock:
            if cuts != len(self._cuts) and t_ns >= min(self._cuts[cuts:]):
                return None
            held = (one for since, until, one in self._held if since <= t_ns < until)
            return next(held, None)

    def add(self, since: int, until: int, snapshot: Snapshot, cuts: int) -> None:
        """Keep one that was made of what was known after so many changes."""
        with self._lock:
            until = min([until, *self._cuts[cuts:]])
            if since < until:
                self._held = [*self._held[-_KEPT + 1 :], (since, until, snapshot)]

    def cut(self, start: int) -> None:
        """Something changed from an instant on; snapshots of instants before it stay true."""
        with self._lock:
            self._cuts.append(start)
            self._held = [
                (since, min(until, start), snapshot)
                for since, until, snapshot in self._held
                if since < start
            ]


class AsKnown:
    """Immutable: what a timeline learns later changes none of its answers.

    One row per life: `begins` and `ends`, epoch ns, are its own; the others may grow behind it.
    """

    def __init__(
        self,
        begins: NDArray[np.int64],
        ends: NDArray[np.int64],
        items: Sequence[Item],
        revisions: Sequence[int],
        row: Mapping[RevisionId, int],
        snapshots: Snapshots,
    ) -> None:
        self._begins, self._ends = begins, ends
        self._items, self._revisions, self._row = items, revisions, row
        self._snapshots, self._cuts = snapshots, snapshots.cuts

    def at(self, t_ns: int) -> Snapshot:
        """The inventory as of an instant."""
        if found := self._snapshots.find(t_ns, self._cuts):
            return found
        bounds = np.concatenate([self._begins, self._ends])
        since = int(bounds[bounds <= t_ns].max(initial=-FOREVER))
        until = int(bounds[bounds > t_ns].min(initial=FOREVER))
        snapshot = self._snapshot(self._rows_at(t_ns).tolist())
        self._snapshots.add(since, until, snapshot, self._cuts)
        return snapshot

    def around(self, t_ns: int, ends: Set[Address]) -> Snapshot:
        """The inventory as of an instant, of pods and hosts only who held some addresses then."""
        return self._snapshot(
            row
            for row in self._rows_at(t_ns).tolist()
            if self._items[row].kind not in _MANY or not ends.isdisjoint(self._items[row].addresses)
        )

    def begins_of(self, revisions: Iterable[RevisionId]) -> NDArray[np.int64]:
        """When the lives of revisions began, epoch ns; -FOREVER for those that are not known."""
        rows = (self._row.get(one) for one in revisions)
        return np.array([-FOREVER if row is None else self._begins[row] for row in rows], np.int64)

    def living_at(self, t_ns: int) -> NDArray[np.uint64]:
        """The revisions of all items as of an instant."""
        rows = self._rows_at(t_ns).tolist()
        return np.array([self._revisions[row] for row in rows], dtype=np.uint64)

    def between(self, since_ns: int, until_ns: int) -> Snapshot:
        """Every item that lived within [since_ns, until_ns), as it was when last known in it."""
        begins, ends = self._begins, self._ends
        lived = (begins < ends) & (begins < until_ns) & (since_ns < ends)
        last: dict[ItemKey, int] = {}
        for row in np.nonzero(lived)[0].tolist():
            key = self._items[row].key
            if key not in last or begins[last[key]] < begins[row]:
                last[key] = row
        return self._snapshot(last.values())

    def pods_at_once(self) -> dict[tuple[ClusterId, Address], list[tuple[int, int]]]:
        """When two pods of one cluster, each with a network of its own, had one address.

        Epoch ns, [from, to).
        """
        lives: dict[tuple[ClusterId, Address], list[int]] = {}
        for row, item in enumerate(self._items[: len(self._begins)]):
            if item.kind is ItemKind.POD and not item.host_network:
                for address in item.addresses:
                    lives.setdefault((item.cluster, address), []).append(row)
        found: dict[tuple[ClusterId, Address], list[tuple[int, int]]] = {}
        for held, rows in lives.items():
            rows.sort(key=self._begins.__getitem__)
            longest = rows[0]
            for row in rows[1:]:
                until = min(int(self._ends[row]), int(self._ends[longest]))
                if self._items[longest].key != self._items[row].key and self._begins[row] < until:
                    found.setdefault(held, []).append((int(self._begins[row]), until))
                if self._ends[longest] < self._ends[row]:
                    longest = row
        return found

    def latest(self) -> Snapshot:
        """The inventory as far as it is known, whatever the clocks of those who told it say."""
        return self.at(FOREVER - 1)

    def expected(self, t_ns: int) -> list[Item]:
        """The items as of an instant, and the last pod of each CronJob that waits for its next run.

        Addresses that somebody else has by then are taken from it.
        """
        there = [self._items[row] for row in self._rows_at(t_ns).tolist()]
        running = {_schedule(one) for one in there}
        last: dict[_Schedule, int] = {}
        for row in np.flatnonzero(self._ends <= t_ns).tolist():
            its = _schedule(self._items[row])
            if its in running:
                continue
            if its not in last or self._ends[last[its]] < self._ends[row]:
                last[its] = row
        last.pop(None, None)
        held = {(one.cluster, at) for one in there for at in one.addresses} if last else set()
        waiting = (self._items[row] for row in last.values())
        return there + [
            replace(
                one, addresses=tuple(at for at in one.addresses if (one.cluster, at) not in held)
            )
            for one in waiting
        ]

    def item(self, revision: RevisionId) -> Item:
        """The item of a revision; raises KeyError."""
        return self._items[self._row[revision]]

    def _rows_at(self, t_ns: int) -> NDArray[np.intp]:
        return np.nonzero((self._begins <= t_ns) & (t_ns < self._ends))[0]

    def _snapshot(self, rows: Iterable[int]) -> Snapshot:
        return Snapshot((RevisionId(self._revisions[row]), self._items[row]) for row in rows)
