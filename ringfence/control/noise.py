"""How much of what a version denies is noise to discovery: scans, intruders, what was refused."""

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
from ringfence.model.policy import Workspace
from ringfence.model.tally import Tally

Kind = tuple[str, str, int, int]
"""Consumer, provider, protocol and port, as tallies tell them."""


async def noise_among(
    escaped: list[Tally], watch: Watch, judged_by: JudgedBy, workspace: Workspace, since_ns: int,
    until_ns: int,
) -> int:  # fmt: skip
    """How many of the conversations that escaped a workspace are noise, by all of a time.

    Of each kind of conversations there are as many as there are of those that discovery goes by.
    """
    seen = await observed(watch.store, watch.tenant, since_ns, until_ns)
    judged = await judge(seen, watch.history, until_ns, judged_by, workspace.name)
    denied = judged.in_view & ~judged.allowed
    if not denied.any():
        return 0
    timeline = watch.history.timeline
    lived = await asyncio.to_thread(past, seen, timeline.as_known())

    def count() -> int:
        peers = peers_of(lived, seen, workspace.clusters)
        edges = observe(seen, peers, ServiceSockets(lived.snapshot))
        decisions = decide(edges, Facts(edges))
        noisy = (decisions.outcome == Outcome.NOISE) & ~decisions.of(*CORE)
        item_of = items_of(timeline)
        every = _by_kind(seen, denied, item_of)
        noise = _by_kind(seen, denied & noisy[edges.edges], item_of)
        kinds = ((one.cause, one.conversations) for one in escaped)
        told = (
            ((cause.consumer, cause.provider, cause.protocol, cause.port), count)
            for cause, count in kinds
        )
        return sum(count * noise[kind] // every[kind] for kind, count in told if kind in noise)

    return await asyncio.to_thread(count)


def _by_kind(seen: Records, chosen: NDArray[np.bool_], item_of: ItemOf) -> dict[Kind, int]:
    some = seen.take(chosen)
    ends = Ends(some, item_of)
    counts = np.bincount(ends.which, conversations_of(some)).astype(np.int64)
    return {ends.tell(at): count for at, count in enumerate(counts.tolist())}
