"""What became of connections, from what was reported of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.flows.connections import Records, records
from ringfence.model.flow import Category, Disposition
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import TCP

PATIENCE_NS = 300 * 10**9
"""How long the batch of an instrumented end is waited for."""

Through = Mapping[tuple[ClusterId, str], int]
"""For each node with an agent the end of its last window, epoch ns."""


@dataclass(frozen=True)
class Dispositions:
    """Of n connections how many conversations of each had which fate, shape (n,) each.

    A connection that was opened time and again may be in part passed and in part dropped.
    """

    passes: NDArray[np.int64]
    drops: NDArray[np.int64]
    silent: NDArray[np.int64]
    awaited: NDArray[np.int64]

    @property
    def passed(self) -> NDArray[np.bool_]:
        """Which connections have a conversation that passed."""
        return self.passes > 0

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """Which have one that was dropped."""
        return self.drops > 0

    @property
    def unanswered(self) -> NDArray[np.bool_]:
        """Which got no answer, and nobody dropped them."""
        return self.silent > 0

    @property
    def pending(self) -> NDArray[np.bool_]:
        """Of which an agent's report is awaited."""
        return self.awaited > 0

    def first(self) -> NDArray[np.str_]:
        """For each connection the first `Disposition` that holds."""
        return np.select(
            [self.dropped, self.passed, self.pending],
            [Disposition.DROPPED.value, Disposition.PASSED.value, Disposition.PENDING.value],
            Disposition.UNANSWERED.value,
        )

    def categories(self, allowed: NDArray[np.bool_]) -> dict[Category, NDArray[np.int64]]:
        """Held against a policy's verdicts: how many conversations of each connection are what."""
        return {
            Category.PERMITTED: self.passes * allowed,
            Category.ESCAPED: self.passes * ~allowed,
            Category.REJECTED: self.drops * ~allowed,
            Category.MISDROPPED: self.drops * allowed,
            Category.UNANSWERED: self.silent,
            Category.PENDING: self.awaited,
        }


def passing(seen: Records, fate: Dispositions) -> Records:
    """The connections that passed; of those that did in part, opened is what passed."""
    opened = seen.column("opened")
    passed = np.minimum(opened, fate.passes.astype(opened.dtype))
    return seen.with_column("opened", passed).take(fate.passed)


def conversations_of(records: Records) -> NDArray[np.int64]:
    """How many conversations connections tell of: one, or as often as they were opened anew."""
    return np.maximum(records.column("opened").astype(np.int64), 1)


def counted(
    records: Records,
    *,
    passed: NDArray[np.bool_],
    dropped: NDArray[np.bool_],
    pending: NDArray[np.bool_],
) -> Dispositions:
    """The conversations of connections of which some passed, were dropped or are pending.

    Of what was dropped, what was answered passed all the same. Dropped is no more than the rest,
    and than packets were, but one at least; all, where nothing was answered. What is left got no
    answer: drop reports may be lost, so that it did not surely pass. A drop of a connection that
    was answered as often as it was opened is of one more. Nothing pending passed or was dropped.
    """
    total = conversations_of(records)
    answered = np.minimum(records.column("answered").astype(np.int64), total)
    some = np.clip(records.dropped.astype(np.int64), 1, np.maximum(total - answered, 1))
    passes = np.where(dropped, answered, total * passed)
    drops = np.where(answered > 0, some, total) * dropped
    awaited = total * pending
    return Dispositions(passes, drops, np.maximum(total - passes - drops - awaited, 0), awaited)


def dispose(records: Records, through: Through, now_ns: int) -> Dispositions:
    """The disposition of each connection as of `now_ns`.

    A reported drop is final. An answer, a refusal by the provider included, is a pass. Where the
    provider's end is watched, a connection that never came there was dropped on the way, and one
    without handshake that did come there passed.
    """
    consumer_through = _through(records, "consumer_node", through)
    provider_through = _through(records, "provider_node", through)
    last_ns = records.column("last_ns")
    missing = ((consumer_through != 0) & (consumer_through < last_ns)) | (
        (provider_through != 0) & (provider_through < last_ns)
    )
    reported = records.dropped > 0
    reached = records.column("reached").astype(np.bool_)
    arrived = reached & (records.column("protocol") != TCP)
    passed = _replied(records) | (~reported & arrived)
    pending = missing & (now_ns - last_ns < PATIENCE_NS) & ~reported & ~passed
    lost = (provider_through != 0) & ~reached & ~passed & ~pending
    return counted(records, passed=passed, dropped=reported | lost, pending=pending)


def answered_of(records: Records, total: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of so many conversations of each connection passed, as far as answers tell."""
    answered = np.minimum(records.column("answered").astype(np.int64), total)
    return np.where(records.dropped > 0, answered, total * _replied(records))


def _replied(records: Records) -> NDArray[np.bool_]:
    """Which connections passed by their answers."""
    answered = records.column("answered") > 0
    replied = (records.column("refused") > 0) | (records.column("reverse_packets") > 0)
    return np.asarray(answered | ((records.dropped == 0) & replied))


def disposed(hops: pa.Table, through: Through, now_ns: int) -> dict[Disposition, NDArray[Any]]:
    """The connections among hops (`store.flows.queries.HOPS`) by their disposition.

    One that fanned out to several providers is told as a whole; tunnels and ICMP errors as well.
    """
    seen = records(hops, attendant=True)
    found = dispose(seen, through, now_ns)
    connections, which = np.unique(seen.column("connection"), return_inverse=True)

    def whole(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(which, counts, len(connections)).astype(np.int64)

    first = Dispositions(
        whole(found.passes), whole(found.drops), whole(found.silent), whole(found.awaited)
    ).first()
    return {one: connections[first == one.value] for one in Disposition}


def _through(records: Records, node: str, through: Through) -> NDArray[np.int64]:
    """The end of the last window of the nodes in a column, 0 where there is no agent."""
    coded = [
        records.table[name].combine_chunks().dictionary_encode()
        for name in ("kubernetes_cluster", node)
    ]
    clusters, nodes = (one.dictionary.to_pylist() for one in coded)
    ends = np.array(
        [[through.get((cluster, name), 0) for name in nodes] for cluster in clusters],
        dtype=np.int64,
    ).reshape(len(clusters), len(nodes))
    which = [one.indices.to_numpy() for one in coded]
    return np.asarray(ends[which[0], which[1]])
