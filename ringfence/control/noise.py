"""How much of what escapes a version is noise to discovery: scans, intruders, what was refused."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from ringfence.control.analysis import judge
from ringfence.control.discover import past, peers_of
from ringfence.control.judged import JudgedBy
from ringfence.control.observed import observed
from ringfence.control.staged import Watch
from ringfence.control.tallies import Ends, ItemOf, items_of
from ringfence.discovery.decide import decide
from ringfence.discovery.facts import Facts
from ringfence.discovery.observed import conversations_of, observe
from ringfence.discovery.reasons import CORE, Outcome
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.flows.disposition import answered_of
from ringfence.model.policy import Workspace
from ringfence.model.tally import Tally

Kind = tuple[str, str, int, int]
"""Consumer, provider, protocol and port, as tallies tell them."""


async def noise_among(
    escaped: list[Tally], watch: Watch, judged_by: JudgedBy, workspace: Workspace, since_ns: int,
    until_ns: int,
) -> int:  # fmt: skip
    """How many of the conversations that escaped a workspace are noise, by all of a time.

    Of each kind at most as many as escaped. What did not pass has no part in it: else whoever
    dials the silent would speak for what others of the kind do.
    """
    seen = await observed(watch.store, watch.tenant, since_ns, until_ns)
    judged = await judge(seen, watch.history, until_ns, judged_by, workspace.name)
    passes = answered_of(seen, conversations_of(seen))
    counts = passes * (judged.in_view & ~judged.allowed)
    if not counts.any():
        return 0
    timeline = watch.history.timeline
    lived = await asyncio.to_thread(past, seen, timeline.as_known())

    def count() -> int:
        peers = peers_of(lived, seen, workspace.clusters)
        edges = observe(seen, peers, ServiceSockets(lived.snapshot))
        decisions = decide(edges, Facts(edges))
        noisy = (decisions.outcome == Outcome.NOISE) & ~decisions.of(*CORE)
        item_of = items_of(timeline)
        noise = _by_kind(seen, counts * noisy[edges.edges], item_of)
        kinds = ((one.cause, one.conversations) for one in escaped)
        told = (
            ((cause.consumer, cause.provider, cause.protocol, cause.port), count)
            for cause, count in kinds
        )
        return sum(min(count, noise.get(kind, 0)) for kind, count in told)

    return await asyncio.to_thread(count)


def _by_kind(seen: Records, counts: NDArray[np.int64], item_of: ItemOf) -> dict[Kind, int]:
    rows = np.flatnonzero(counts)
    ends = Ends(seen.take(rows), item_of)
    total = np.bincount(ends.which, counts[rows]).astype(np.int64)
    return {ends.tell(at): count for at, count in enumerate(total.tolist())}
