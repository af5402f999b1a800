"""How much of what there is was seen: whether the data is enough to decide by."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ringfence.discovery.behaviour import Mask, Numbers
from ringfence.discovery.decide import ENOUGH_CONVERSATIONS, ENOUGH_INTERVALS, Decisions
from ringfence.discovery.ends import Ends
from ringfence.discovery.observed import Observed
from ringfence.discovery.reasons import CORE, Outcome
from ringfence.model.words import counted

DAY_NS = 86_400 * 10**9
ENOUGH_NS = DAY_NS * 95 // 100
"""What counts as a day: a window of a day begins and ends with some conversation within it."""
ENOUGH_SAMPLES = 8
"""In fewer intervals what was seen once tells nothing of what was not: an edge that goes on in half
of all intervals is met in one of m or none with (m + 1) ÷ 2^m, which from eight on is under 5 %."""
ENOUGH_BEFORE = 3
"""In so many intervals some edge was seen before what a discovery is tried on: with fewer none is
known yet, or those alone that lie on both sides of an interval's end."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of a scope's workloads and the edges that one of them is an end of, from what was seen.

    `unseen_edges` estimates the share of all edges that was not seen, None where the time or the
    number of intervals that records tell apart is too small for that; `unseen_next` that of the
    next conversation's being one on such an edge, `would_block` is the share of the conversations
    of the last fifth that a discovery from what went before would have blocked, None where there
    were none or too little went before. `core` edges are those of core services, which stand in no
    other figure, and neither does `noise`.
    """

    workloads: int
    observed_a_day: int
    silent: int
    span_ns: int
    edges: int
    core: int
    decided: int
    noise: int
    unseen_edges: float | None
    unseen_next: float
    would_block: float | None

    @property
    def share(self) -> float:
        """The share of the workloads that were observed long enough."""
        return self.observed_a_day / self.workloads if self.workloads else 0.0

    @property
    def seen(self) -> int:
        """How many edges were seen that a policy may be needed for."""
        return self.edges + self.core

    def sentences(self) -> Iterator[str]:
        """What is not enough, in plain words."""
        if not self.seen:
            what = "nothing but noise" if self.noise else "nothing"
            yield f"{what} was seen in this time: there is nothing to decide by"
            return
        short = self.workloads - self.observed_a_day
        if short:
            verb = "has" if self.workloads == 1 else "have"
            yield (
                f"{short} of {counted(self.workloads, 'workload')} {verb} been observed for less"
                " than a day; deployments on a schedule are not covered"
            )
        if self.silent:
            yield f"{self.silent} of them had no conversation at all"
        if self.unseen_edges is None:
            yield (
                "the time is too short, or told in too few intervals, to estimate how many edges"
                " have not been seen yet"
            )
        elif self.unseen_edges:
            yield f"about {self.unseen_edges:.1%} of all edges have not been seen yet"
        if self.would_block is None:
            yield (
                "it is too early to tell how many conversations would have been blocked: the last"
                " fifth of the time has none to try the rest on, or the rest is too short"
            )
        else:
            yield (
                f"by what came before, {self.would_block:.2%} of the last fifth's conversations"
                " would have been blocked, those of core services left out"
            )


def coverage(observed: Observed, decisions: Decisions, ends: Ends) -> Coverage:
    """What is covered of the workloads that a workspace decides over."""
    seen, peers = observed.seen, observed.peers
    inside = [number for number in range(len(peers.roles)) if ends.inside(peers[number])]
    first, last = _spans(observed)
    spans = np.maximum(last - first, 0)[inside]
    within = decided_over(observed, ends)
    kept = within & (decisions.outcome != Outcome.NOISE)
    allowed = within & (decisions.outcome == Outcome.ALLOW)
    total = int(seen.conversations[kept].sum())
    single = int((seen.conversations[kept] == 1).sum())
    edges = int(kept.sum())
    return Coverage(
        workloads=len(inside),
        observed_a_day=int((spans >= ENOUGH_NS).sum()),
        silent=int((last[inside] == 0).sum()),
        span_ns=max(observed.until_ns - observed.since_ns, 0),
        edges=edges,
        core=int((within & decisions.of(*CORE) & (seen.conversations > 0)).sum()),
        decided=int(allowed.sum()),
        noise=int((within & (decisions.outcome == Outcome.NOISE) & ~decisions.of(*CORE)).sum()),
        unseen_edges=_unseen(seen.intervals[kept]),
        unseen_next=single / total if total else 1.0,  # Good and Turing's estimate
        would_block=_held_out(observed, allowed),
    )


def decided_over(observed: Observed, ends: Ends) -> Mask:
    """Whether the workspace decides over an end of each edge, or takes in what it is part of."""
    peers = observed.peers
    inside = np.array([ends.inside(peers[number]) for number in range(len(peers))], dtype=bool)
    received = np.array([*map(ends.receives, observed.fronts), False], dtype=bool)
    found = inside[observed.consumer] | inside[observed.provider]
    found[observed.route_edge[received[observed.route_front]]] = True
    return np.asarray(found)


def _unseen(intervals: Numbers) -> float | None:
    """Chao's estimate of the share of edges not seen, from in how many intervals each was seen."""
    if intervals.max(initial=0) < ENOUGH_SAMPLES:
        return None
    once, twice = int((intervals == 1).sum()), int((intervals == 2).sum())  # noqa: PLR2004
    missing = once * (once - 1) / (2 * (twice + 1))
    return missing / (missing + len(intervals))


def _spans(observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    """From when to when each peer was seen at either end, 0 to 0 for never."""
    count = len(observed.peers)
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.zeros(count, dtype=np.int64)
    for end in (observed.consumer, observed.provider):
        np.minimum.at(first, end, observed.seen.first_ns)
        np.maximum.at(last, end, observed.seen.last_ns)
    return np.where(last > 0, first, 0), last


def _held_out(observed: Observed, allowed: Mask) -> float | None:
    """The share of the last part's allowed conversations on edges that were not known before."""
    seen = observed.seen
    if observed.early.intervals[allowed].max(initial=0) < ENOUGH_BEFORE:
        return None
    known = (observed.early.conversations >= ENOUGH_CONVERSATIONS) & (
        observed.early.intervals >= ENOUGH_INTERVALS
    )
    late = np.maximum(seen.conversations - observed.early.conversations, 0)
    total = int(late[allowed].sum())
    return int(late[allowed & ~known].sum()) / total if total else None
