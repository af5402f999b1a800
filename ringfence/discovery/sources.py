"""Suspicion by source: an intruder is one workload or address that does what its like never do.

A true edge that is rare is as rare as an intruder's, so how often it was seen tells nothing. But
true rare edges are spread over many consumers and over the workloads of each, while an intruder's
are all one source's. So novelties, the rare edges that only one source has, are weighed, and what a
source's novelties weigh together decides over each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.affinity import affinity
from ringfence.discovery.behaviour import SLOT_NS, Mask, Numbers, distinct
from ringfence.discovery.company import company
from ringfence.discovery.facts import Facts
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody, Nodes, OwnNode
from ringfence.discovery.roles import Role

DAY_NS = 86_400 * 10**9
RARE_A_DAY = 10
"""Edges with more conversations a day are no novelties."""
SUSPECT = 3.0
"""What novelties and failures of a source weigh before each of them is suspicious."""
OUTRIGHT = 6.0
"""From this weight on a source of more than one novelty is taken for an intruder."""
ODD = 1.6
"""What one novelty weighs that is suspicious alone: a quarter as likely as a random one."""
_FITS = 1.0
"""A novelty that weighs less fits better than a random one would, and speaks against nobody."""
_LIKELY = 0.7
"""A novelty that weighs less is at least twice as likely as a random one."""
_OF_ONE = 2
"""So many novelties of one source or workload may be its own; of more each is looked at."""
STRAY = 2.5
"""What a novelty weighs that is taken for a stray where it was seen once."""
_LEAST = 0.01
"""However well it fits, it is a novelty."""
_FAILURE = 0.7
_MOST_FAILURES = 5
SCAN_TARGETS = 8
"""One source that fails at so many ends, more than it succeeds at, scans."""
_LATE = 0.8
_TELLING = 1 / 12
"""In less than two hours, in days, nothing is known to be rare."""
_MARKED = 1.5
"""What true rare edges hardly ever have, and an intruder's often: a namespace that the consumer's
has nothing to do with, a process that none of its usual edges are due to, a node or somebody who
does nothing else."""
_USED = 1.0
"""How much likelier, as a power of ten, an edge is an application's if it is no rare one."""
_BEGUN = 2.0
"""An edge began lately where chance would have it so only once in a hundred times."""
_PASSING = 2
"""In so few intervals it tells nothing of who has it that somebody has an edge."""
_STEADY = 24
"""In so many intervals nobody goes on by hand, nor opens more in a short time of looking round."""
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """Of n edges whether only one source has them, and what speaks against them."""

    supporters: Numbers
    """How many sources dial it that are not suspicious, where any of them was answered."""
    conversations: Numbers
    intervals: Numbers
    """What was answered of those sources; of all where there are none or it is not rare."""
    alone: Mask
    bypass: Mask
    foreign: Mask
    late: Mask
    stranger: Mask
    twins: Mask
    tool: Mask
    fan_out: Mask
    weight: Weights
    suspicious: Mask
    intruder: Mask
    scan: Mask
    clean: Mask
    """Of pairs, not of edges: `unsuspected`, or older than what speaks against its source."""
    unsuspected: Mask
    """Of pairs: whether the source does not scan, and nothing of it is suspicious."""
    likely: Mask
    """Whether it was seen once and fits well, and nothing else speaks against its source."""
    brief: bool
    """Whether the time is too short for anything to be rare in it."""


def suspect(observed: Observed, facts: Facts, plain: Mask, spoken_for: Sequence[Mask]) -> Suspicion:
    """Weigh edges and sources; only `plain` edges, not noise for another reason, are weighed.

    `spoken_for` are the edges that each kind of declared fact speaks for.
    """
    weighing = _Weighing(observed, facts, plain, spoken_for)
    every = np.ones(len(weighing.edge), dtype=np.bool_)
    found = weighing.judge(every, every, facts.twins(weighing.had(every)))
    # What scanners, and sources with anything suspicious, do supports nobody's edges.
    return weighing.judge(found.clean, found.unsuspected, facts.twins(weighing.had(found.clean)))


class _Weighing:
    def __init__(
        self, observed: Observed, facts: Facts, plain: Mask, spoken_for: Sequence[Mask]
    ) -> None:
        self.observed = observed
        seen, pairs = observed.seen, observed.by_source
        self.sources, self.source = np.unique(observed.pair_source, return_inverse=True)
        self.count = len(self.sources)
        self.edge = observed.pair_edge
        self.good = pairs.conversations > 0
        self.plain = plain
        days = max((observed.until_ns - observed.since_ns) / DAY_NS, 1 / 24)
        self.brief = days <= _TELLING
        most = max(RARE_A_DAY * days, 5) if not self.brief else 2
        self.by_node = observed.peers.which(Nodes, OwnNode)[observed.consumer]
        stray = self.stray = self.by_node | observed.peers.which(Anybody)[observed.consumer]
        self.rare = plain & (seen.conversations <= most)
        self.rare |= plain & stray & (seen.intervals < _STEADY) & (not self.brief)
        self.burst = (seen.intervals <= most) & (seen.conversations <= _STEADY)
        by_hand = facts.by_hand()
        self.by_hand = (by_hand | observed.peers.which(Anybody))[observed.consumer]
        self.used = plain & ~self.rare & (seen.intervals > _PASSING)
        # Where most roles are such, however much they talk, nobody told who deployed what.
        self.undeployed = self.by_hand & (by_hand.sum() * 2 < len(observed.peers.roles))
        self.begun = self._begun()
        self.strong = self.used & ~self.begun
        self.spoken_for = np.logical_or.reduce(spoken_for)
        self.places = facts.namespaces()
        self.late = seen.first_ns > observed.since_ns + _LATE * (
            observed.until_ns - observed.since_ns
        )
        self.foreign = self._foreign()
        self.bypass = self._bypass(facts)
        self.stranger, self.tool = self._stranger(), self._tool()
        self.near = self._near(facts)
        self.share = self._share()
        self.lacking = sum(map(self._lacking, spoken_for))
        # A dead address is none: who goes on to dial it knew whom it had.
        hopeless = (seen.conversations == 0) & observed.held & plain
        self.hopeless = hopeless[self.edge]
        self.failed = np.bincount(self.source[self.hopeless], minlength=self.count)
        """At how many ends each source failed where none of its like succeeded."""
        missed = ~self.good & (observed.held & plain)[self.edge]
        self.missed = np.bincount(self.source[missed], minlength=self.count)
        """At how many ends each source failed, whoever else succeeded."""
        self.tried = np.bincount(self.source, minlength=self.count)
        self.nobody = self._nobody()

    def judge(self, clean: Mask, unsuspected: Mask, twins: Mask) -> Suspicion:
        trusted = self.good & clean
        conversations, intervals = self._answered(trusted)
        answered, dialling, supporters = (
            np.bincount(self.edge[pairs], minlength=len(self.observed))
            for pairs in (trusted, clean, self.good & unsuspected)
        )
        # Nodes run agents, which go on steadily; what is rare of them is no application's need.
        # And pods that somebody started by hand are no replicas of each other.
        suspected = self.had(~unsuspected & ~self.by_hand[self.edge])
        few = np.where(suspected, 0, 1)
        alone = (self.rare | self.begun) & ((supporters <= few) | self.by_node)
        asked, known = alone & ~twins & ~self.spoken_for, (answered > 0) & ~alone & self.plain
        # Hosts outside, and nodes, are told together, and keep nobody company.
        fit = affinity(self.observed, known)
        fit += company(self.observed, known, asked & ~self.stray)
        weight = self._weight(asked, self._lacking(twins) - fit)
        novel = self.good & (weight > 0)[self.edge]
        telling = novel & (weight >= _FITS)[self.edge]
        total = np.bincount(self.source[telling], weight[self.edge[telling]], self.count)
        novelties = np.bincount(self.source[novel], minlength=self.count)
        total = np.add(total, _FAILURE * np.minimum(self.failed, _MOST_FAILURES))
        scanner = (self.failed >= SCAN_TARGETS) & (self.failed * 2 > self.tried)
        pairs = self.observed.by_source
        looked = ~(self._before(self.hopeless, pairs.first_ns) & (pairs.intervals > 1))
        looked |= ~scanner[self.source]
        casual = (self.rare | self.burst)[self.edge] | self._idle()[self.source]
        # Of whom nothing else is known there is nothing to be asked about each edge.
        intruder = (total >= np.where(self.nobody, SUSPECT, OUTRIGHT)) & (novelties > 1)
        intruder &= not self.brief
        of_suspect = self._of(novel, total >= SUSPECT)
        middle = pairs.first_ns + (pairs.last_ns - pairs.first_ns) // 2
        before, mostly = (
            self._before(self.hopeless | novel, when) for when in (pairs.first_ns, middle)
        )
        # What only an intruder has is its own, however often in a short time; and somebody is to
        # look at it where configuration or another namespace speaks for it.
        only = self.plain & ~self.used & (supporters == 0)
        spoken = self.spoken_for | twins
        its = ((weight > 0) & ~self.used) | (only & ~self.rare & ~spoken)
        named = only & spoken & self._of(self.good & ~before, intruder)
        # A scanner that is answered goes on, but not as steadily as a machine.
        slow = self.plain & ~self.rare & (self.observed.seen.intervals < _STEADY) & ~spoken
        slow &= (supporters == 0) & (not self.brief)
        named |= slow & self._of(self.good & looked, scanner)
        # Nor has what nobody deployed another use, however steadily it goes on.
        after = self.good & ~before & self.by_hand[self.edge]
        named |= self.plain & (supporters == 0) & ~its & self._of(after, intruder)
        odd = (weight >= ODD) | (self.foreign & (weight > 0))
        if self.brief:
            odd, of_suspect = odd & False, of_suspect & False
        suspicious = odd | (of_suspect & (weight > 0)) | named
        doubtful = np.bincount(self.source[novel & suspicious[self.edge]], minlength=self.count) > 0
        doubtful |= scanner
        free = ~doubtful[self.source]
        of_role = np.bincount(self.observed.consumer, weight > 0, len(self.observed.peers))
        return Suspicion(
            # Who dials what answers others has use for it; but dialling takes no suspicion away.
            supporters=np.where(answered > 0, dialling, 0),
            conversations=conversations,
            intervals=intervals,
            alone=alone & (self._surprise() > 1) & (self.observed.seen.intervals > 1),
            bypass=alone & self.bypass,
            foreign=alone & self.foreign,
            late=alone & self.late,
            tool=alone & self.tool,
            twins=twins,
            stranger=alone & (self.stranger | self.by_node),
            fan_out=(of_suspect & (weight > 0)) | named,
            weight=weight,
            suspicious=suspicious,
            intruder=its & self._of(self.good & its[self.edge] & looked, intruder),
            scan=self._of(looked & (casual | ~self.good), scanner) & (answered <= few),
            clean=free | (before & (mostly | ~self.had(free)[self.edge])),
            unsuspected=free,
            likely=(weight > 0)
            & (weight < _LIKELY)
            & (self.observed.seen.conversations == 1)
            & (of_role <= _OF_ONE)[self.observed.consumer]
            & ~self._of(self.good, (total > 0) | (self.missed > 0) | (novelties > _OF_ONE)),
            brief=self.brief,
        )

    def _answered(self, trusted: Mask) -> tuple[Numbers, Numbers]:
        """What these pairs show of each edge: conversations, and at most so many intervals.

        An edge that none of them has, or that is not rare, is judged by all.
        """
        pairs, count = self.observed.by_source, len(self.observed)
        conversations, intervals = (
            np.bincount(self.edge[trusted], many[trusted], count).astype(np.int64)
            for many in (pairs.conversations, pairs.intervals)
        )
        seen, known = self.observed.seen, self.rare & (conversations > 0)
        return (
            np.where(known, conversations, seen.conversations),
            np.where(known, np.minimum(intervals, seen.intervals), seen.intervals),
        )

    def _nobody(self) -> Mask:
        """Of sources whether they are hosts outside, or were started by hand, and have no use."""
        known = (self.strong | ~self.stranger)[self.edge]
        return np.asarray(np.bincount(self.source[known], minlength=self.count) == 0)

    def _idle(self) -> Mask:
        """Of sources that nobody deployed, whether they failed at ends from their beginning on.

        However steadily such a one scans, it has shown no other use.
        """
        first_ns = self.observed.by_source.first_ns
        known = ~self.by_hand[self.edge] | self._before(self.hopeless, first_ns)
        return np.asarray(np.bincount(self.source[known], minlength=self.count) == 0)

    def had(self, pairs: Mask) -> Mask:
        """The edges that somebody was answered on, among these pairs."""
        return np.asarray(
            np.bincount(self.edge[self.good & pairs], minlength=len(self.observed)) > 0
        )

    def _before(self, begun: Mask, when: Numbers) -> Mask:
        """Of pairs whether they were, by `when`, before all of those with which their source began.

        What a source did before it looked around is its own, if anything is known of it at all.
        """
        first_ns = self.observed.by_source.first_ns
        begun_ns = np.full(self.count, np.iinfo(np.int64).max)
        np.minimum.at(begun_ns, self.source[begun], first_ns[begun])
        return np.asarray((when < begun_ns[self.source] - SLOT_NS) & ~self.nobody[self.source])

    def _of(self, pairs: Mask, sources: Mask) -> Mask:
        """The edges of some pairs, where the source is one of these."""
        chosen = self.edge[pairs & sources[self.source]]
        return np.bincount(chosen, minlength=len(self.observed)) > 0

    def _weight(self, novel: Mask, beside: Weights) -> Weights:
        """What each novelty weighs against its source, 0 of others."""
        weight = 1.0 + self._surprise() + 1.0 * self.bypass
        weight += 0.5 * (self.late & (self.observed.seen.intervals > 1))
        for marked in (self.foreign, self.tool, self.by_node | self.stranger):
            weight += _MARKED * marked
        weight += self.lacking + beside - 1.0 * self.near
        weight -= _USED * ~(self.rare | self.undeployed)
        return np.where(novel, np.maximum(weight, _LEAST * self.rare), 0.0)

    def _near(self, facts: Facts) -> Mask:
        """Whether a host outside is one more of those that the consumer goes to anyway.

        Not so where another process goes there, or late, nor to several such by one source: by
        whom a network is held is not known.
        """
        beside = self.rare & facts.beside(self.strong)
        pairs = beside[self.edge]
        several = np.bincount(self.source[pairs], minlength=self.count) > 1
        return beside & ~self.tool & ~self.late & ~self._of(pairs, several)

    def _lacking(self, spoken_for: Mask) -> Weights:
        """How rare strong edges are that this does not speak for, among the consumer's neighbours.

        Hosts outside are seldom spoken for.
        """
        places = self.places
        place = places[self.observed.consumer]
        inside = (place >= 0) & self.observed.peers.which(Role)[self.observed.provider]
        among, silent = (
            np.bincount(place[inside], chosen[inside], minlength=int(places.max(initial=0)) + 1)
            for chosen in (self.strong, self.strong & ~spoken_for)
        )
        against = -np.log10((silent + 1) / (among + 1))
        return np.where(inside, against[place], 0.0)

    def _begun(self) -> Mask:
        """Whether one source alone has it, often, but only since long after it could have begun.

        That is when anything was seen of the consumer, be it of core services. A pod that somebody
        started by hand, or a host outside, has nothing else: it goes on for half of the time, or
        may as well be gone.
        """
        observed, seen = self.observed, self.observed.seen
        there = np.full(len(observed.peers), observed.until_ns)
        known = (seen.conversations > 0) & (seen.intervals > _PASSING)
        for end in (observed.consumer, observed.provider):
            np.minimum.at(there, end[known], seen.first_ns[known])
        length = np.maximum(observed.until_ns - there[observed.consumer], 1)
        left = np.clip((observed.until_ns - seen.first_ns) / length, _LEAST, 1.0)
        late = -np.log10(left) * seen.intervals >= _BEGUN
        late |= self.undeployed & (seen.intervals * 2 < seen.intervals[self.used].max(initial=0))
        return np.asarray(self.plain & ~self.rare & ~self.by_node & (seen.sources == 1) & late)

    def _stranger(self) -> Mask:
        """Whether nothing else is known of who did it: no strong edge, either way.

        So it is of pods that somebody started by hand, and of one host outside.
        """
        seen, count = self.observed, len(self.observed.peers)
        known = np.zeros(count, dtype=np.bool_)
        known[seen.consumer[self.strong]] = known[seen.provider[self.strong]] = True
        anybody = seen.peers.which(Anybody)[seen.consumer]
        return np.asarray(self.by_hand & (~known[seen.consumer] | anybody))

    def _tool(self) -> Mask:
        """Whether only processes did it that no strong edge of the consumer is due to."""
        seen, edge = self.observed, self.observed.process_edge
        first, doer = distinct(seen.consumer[edge], seen.process)
        usual = np.bincount(doer, self.strong[edge], minlength=len(first)) > 0
        of_peer = np.bincount(
            seen.consumer[edge], self.strong[edge], minlength=len(self.observed.peers)
        )
        known = np.bincount(edge, minlength=len(seen)) > 0
        done = np.bincount(edge, usual[doer], minlength=len(seen)) > 0
        return np.asarray(known & ~done & (of_peer[seen.consumer] > 0))

    def _surprise(self) -> Weights:
        """How unlikely it is that of all its like this source alone did it, as a power of ten."""
        again = np.maximum(self.observed.seen.intervals - 1, 0)
        return np.asarray(np.minimum(-np.log10(self.share) * again, 2.0))

    def _share(self) -> Weights:
        """For each edge its sources' share of what all workloads of the consumer do."""
        busy = np.bincount(self.source, self.observed.by_source.intervals, minlength=self.count)
        first, _ = distinct(self.observed.consumer[self.edge], self.source)
        peer = self.observed.consumer[self.edge][first]
        of_peer = np.bincount(peer, busy[self.source[first]], minlength=len(self.observed.peers))
        pair_share = busy[self.source] / np.maximum(of_peer[self.observed.consumer[self.edge]], 1)
        share = np.bincount(self.edge, pair_share * self.good, minlength=len(self.observed))
        return np.asarray(np.clip(share, 1e-6, 1.0))

    def _foreign(self) -> Mask:
        """Whether no strong edge leads between the two ends' namespaces."""
        places, seen = self.places, self.observed
        consumer, provider = places[seen.consumer], places[seen.provider]
        _, pair = distinct(consumer, provider)
        usual = np.bincount(pair, self.strong, minlength=len(seen)) > 0
        both = (consumer >= 0) & (provider >= 0)
        return np.asarray(both & (consumer != provider) & ~usual[pair])

    def _bypass(self, facts: Facts) -> Mask:
        """Whether pods were dialled straight though others go through the Service before them."""
        seen = self.observed
        first, socket = distinct(seen.provider, seen.protocol, seen.port)
        usual = np.bincount(socket, self.strong & seen.straight, minlength=len(first)) > 0
        return np.asarray(seen.straight & facts.fronted() & ~usual[socket])
