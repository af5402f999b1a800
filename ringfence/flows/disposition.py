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
    """Masks over n connections. One may be both passed and dropped: it counts as both."""

    passed: NDArray[np.bool_]
    dropped: NDArray[np.bool_]
    unanswered: NDArray[np.bool_]
    pending: NDArray[np.bool_]

    def first(self) -> NDArray[np.str_]:
        """For each connection the first `Disposition` that holds."""
        return np.select(
            [self.dropped, self.passed, self.pending],
            [Disposition.DROPPED.value, Disposition.PASSED.value, Disposition.PENDING.value],
            Disposition.UNANSWERED.value,
        )

    def categories(self, allowed: NDArray[np.bool_]) -> dict[Category, NDArray[np.bool_]]:
        """The dispositions held against a policy's verdicts."""
        return {
            Category.PERMITTED: self.passed & allowed,
            Category.ESCAPED: self.passed & ~allowed,
            Category.REJECTED: self.dropped & ~allowed,
            Category.MISDROPPED: self.dropped & allowed,
            Category.UNANSWERED: self.unanswered,
            Category.PENDING: self.pending,
        }


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
    answered = records.column("answered") > 0
    replied = (records.column("refused") > 0) | (records.column("reverse_packets") > 0)
    reached = records.column("reached").astype(np.bool_)
    arrived = reached & (records.column("protocol") != TCP)
    passed = answered | (~reported & (replied | arrived))
    pending = missing & (now_ns - last_ns < PATIENCE_NS) & ~reported & ~passed
    lost = (provider_through != 0) & ~reached & ~passed & ~pending
    dropped = reported | lost
    return Dispositions(passed, dropped, ~(passed | dropped | pending), pending)


def disposed(hops: pa.Table, through: Through, now_ns: int) -> dict[Disposition, NDArray[Any]]:
    """The connections among hops (`store.flows.queries.HOPS`) by their disposition.

    One that fanned out to several providers is told as a whole; tunnels and ICMP errors as well.
    """
    seen = records(hops, attendant=True)
    found = dispose(seen, through, now_ns)
    connections, which = np.unique(seen.column("connection"), return_inverse=True)

    def whole(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.bincount(which, weights=mask, minlength=len(connections)) > 0

    first = Dispositions(
        whole(found.passed), whole(found.dropped), whole(found.unanswered), whole(found.pending)
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
