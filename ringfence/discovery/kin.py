"""Workloads that declare nothing, put together by what they do.

Two are one unless something tells them apart: a neighbour and port that one has and the other,
for the time that it was there, would have if it were the same. So replicas that saw a part of
what the role does, short-lived pods and rare edges do not part what belongs together. First only
replicas are told, by edges that are steady; against these it shows what is noise, and roles are
made of the rest. Neighbours count by what they are themselves, the Service that was dialled, the
role of who is known; those that declare nothing by what has been found out of them so far, in
rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from pyroaring import BitMap

from ringfence.discovery.behaviour import (
    DIRECT,
    SLOT_NS,
    Behaviour,
    Mask,
    Numbers,
    characteristic,
    distinct,
)
from ringfence.discovery.likeness import Rows, Telling, join
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.workload import ItemKind

_ROUNDS = 6
_STRONG = 3
"""An edge seen in fewer slots of time may be a stray, and who lived for no more is brief."""

_SURE_OF_REPLICAS, _SURE_OF_ROLES = 5.0, 2.0
"""How surely replicas are told apart, and how surely whole workloads."""
_NEVER = np.iinfo(np.int64).max


def kin(
    snapshot: Snapshot,
    undeclared: BitMap,
    known: Sequence[BitMap],
    seen: Behaviour,
    *,
    judged: bool,
) -> list[BitMap]:
    """The undeclared positions in groups of workloads that are one thing.

    `known` are the roles of the others. Those of different kinds, namespaces or Kubernetes
    clusters are never one; those that were seen to do nothing are. Unless `seen` was judged, and
    holds nothing that is noise, the groups are of replicas only.
    """
    if not undeclared:
        return []
    ours = np.array(undeclared, dtype=np.int64)
    evidence = _Evidence(snapshot, ours, known, seen)
    group = evidence.servers()
    for _ in range(_ROUNDS):
        found = evidence.parted(evidence.neighbours(group), judged=judged)
        if np.array_equal(found, group):
            break
        group = found
    order = np.argsort(group, kind="stable")
    starts = np.nonzero(np.diff(group[order]))[0] + 1
    return [BitMap(part) for part in np.split(ours[order], starts)]


class _Kind(IntEnum):
    """What a trait tells of a member."""

    USES = 0
    USED_BY = 1
    SERVES = 2
    BEHIND = 3
    """The Service that it is dialled through."""
    RUNS = 4
    """The process that serves."""
    PROBED = 5
    DIALS = 6
    """The process that uses."""
    AMONG = 7
    """The port on which it talks to its own."""


_OF_ROLES = (_Kind.USES, _Kind.USED_BY, _Kind.SERVES, _Kind.AMONG)
"""The others tell replicas of one workload from those of another that may do the same."""
_OF_PROCESSES = (_Kind.RUNS, _Kind.DIALS)
"""Not always told: who was not seen to have it may still."""
_RATED = (_Kind.USES, _Kind.USED_BY)
"""What replicas share the load of."""


@dataclass(frozen=True)
class _Traits:
    """Who was seen to do what, in how many slots of time: rows of (member, trait, count).

    `kind` is, by trait, its _Kind; `begin` and `end` are the first and the last slot in which
    anybody did it.
    """

    member: Numbers
    trait: Numbers
    count: Numbers
    kind: Numbers
    begin: Numbers
    end: Numbers


class _Evidence:
    """The edges of those that declare nothing, each seen from either end."""

    def __init__(
        self, snapshot: Snapshot, ours: Numbers, known: Sequence[BitMap], seen: Behaviour
    ) -> None:
        peers = max(len(snapshot.items), *(int(end.max(initial=-1)) + 1 for end in _ends(seen)))
        number = np.full(peers, -1, dtype=np.int64)
        number[ours] = np.arange(len(ours))
        token: Numbers = np.arange(peers, dtype=np.int64)
        for number_of_role, role in enumerate(known):
            token[np.array(role, dtype=np.int64)] = peers + number_of_role
        outside = peers + len(known)
        own = (number[seen.consumer] >= 0) | (number[seen.provider] >= 0)
        rows = np.nonzero(own & characteristic(snapshot, seen))[0]
        self._probe = np.isin(seen.consumer[rows], np.array(snapshot.nodes, dtype=np.int64))
        self._process, self._dialler = seen.process[rows], seen.dialler[rows]
        self._spaces = _spaces(snapshot, ours)
        self._front = seen.front[rows]
        self._what = (seen.protocol << 16 | seen.port)[rows]
        # Who dials past a Service has the same neighbour as who dials the Service.
        _, socket = distinct(seen.provider[rows], self._what)
        front_of = np.full(int(socket.max(initial=-1)) + 1, DIRECT)
        np.maximum.at(front_of, socket, self._front)
        self._reached = np.where(self._front == DIRECT, front_of[socket], self._front)
        self._slots = seen.slots[rows]
        self._consumer, self._provider = (number[end[rows]] for end in _ends(seen))
        self._told_provider = token[seen.provider[rows]]
        callers = token[seen.consumer[rows]]
        self._told_consumer = np.where(
            (callers >= len(snapshot.items)) & (callers < peers), outside, callers
        )
        self._among = self._of_own()
        self._next_token = outside + 1
        self._first = seen.first_ns[rows] // SLOT_NS
        self._last = seen.last_ns[rows] // SLOT_NS
        self._begin: Numbers = np.full(len(ours), _NEVER)
        self._end: Numbers = np.full(len(ours), -1)
        # Whatever was seen of one tells that it was there, of what anybody does too.
        for end in _ends(seen):
            at = np.nonzero(number[end] >= 0)[0]
            member = number[end[at]]
            np.minimum.at(self._begin, member, seen.first_ns[at] // SLOT_NS)
            np.maximum.at(self._end, member, seen.last_ns[at] // SLOT_NS)

    def servers(self) -> Numbers:
        """A first guess: those of one space that serve the same, through the same Services."""
        strong = (self._provider >= 0) & (self._slots >= _STRONG) & ~self._probe & ~self._among
        trait = distinct(self._front, self._what)[1]
        return _alike(self._spaces, self._provider[strong], trait[strong])

    def _of_own(self) -> Mask:
        """Which edges are between those that serve others the same: members of one workload.

        Brokers and databases that keep copies talk among themselves, not all in both directions,
        and none with itself: that says no more of one than that it talks to its own.
        """
        spaces = self._spaces[self._consumer], self._spaces[self._provider]
        both = (self._consumer >= 0) & (self._provider >= 0) & ~self._probe
        inward = both & (self._front == DIRECT) & (spaces[0] == spaces[1])
        served = (self._provider >= 0) & ~self._probe & ~inward
        trait = distinct(self._front, self._what)[1]
        served &= np.isin(trait, trait[served & (self._slots >= _STRONG)])
        alike = _alike(self._spaces, self._provider[served], trait[served])
        same = alike[self._consumer] == alike[self._provider]
        serves = np.isin(self._consumer, self._provider[served])
        return np.asarray(both & same & serves)

    def neighbours(self, group: Numbers) -> _Traits:
        """What each does and with whom, as far as it is known who is who."""
        both = (self._consumer >= 0) & (self._provider >= 0)
        part = self._parts(group, both & (self._reached == DIRECT) & ~self._among)
        consumer = np.where(both, self._next_token + group[self._consumer], self._told_consumer)
        provider = np.where(
            self._provider >= 0, self._next_token + group[self._provider], self._told_provider
        )
        reached = np.where(self._reached != DIRECT, -2 - self._reached, provider)
        nobody = np.zeros_like(part)
        kinds = (np.full_like(part, kind) for kind in (*_Kind, _Kind.AMONG))
        edge, through, known = ~self._probe & ~self._among, self._front != DIRECT, self._process > 0
        what = self._what
        told = [
            (edge, self._consumer, reached, what, part),
            (edge, self._provider, consumer, what, part),
            (edge, self._provider, nobody, what, nobody),
            (through & ~self._probe, self._provider, self._front, what, nobody),
            (known, self._provider, self._process, nobody, nobody),
            (self._probe, self._provider, nobody, what, nobody),
            (self._dialler > 0, self._consumer, self._dialler, nobody, nobody),
            (self._among, self._consumer, nobody, what, nobody),
            (self._among, self._provider, nobody, what, nobody),
        ]
        rows = [np.nonzero(where & (member >= 0))[0] for where, member, *_ in told]
        columns = [
            (member[row], kind[row], *(one[row] for one in how), row)
            for row, kind, (_, member, *how) in zip(rows, kinds, told, strict=True)
        ]
        member, *does, row = (np.concatenate(one) for one in zip(*columns, strict=True))
        trait = distinct(*does)[1]
        begin, end = _span(trait, self._first[row], self._last[row])
        first, which = distinct(member, trait)
        count = np.bincount(which, self._slots[row]).astype(np.int64)
        kind = np.zeros_like(begin)
        kind[trait] = does[0]
        member, trait = member[first], trait[first]
        count = np.minimum(count, (self._end - self._begin + 1)[member])
        return _Traits(member, trait, count, kind, begin, end)

    def parted(self, traits: _Traits, *, judged: bool) -> Numbers:
        """Groups of those that nothing tells apart, numbered by their first members."""
        strong = traits.count >= (1 if judged else _STRONG)
        kept = np.isin(traits.trait, np.unique(traits.trait[strong]))
        found = np.zeros(len(self._spaces), dtype=np.int64)
        total = 0
        for space in np.unique(self._spaces):
            here = np.nonzero(self._spaces == space)[0]
            joined = self._joined(here, traits, kept, judged=judged)
            found[here] = total + joined
            total += int(joined.max()) + 1
        _, first, group = np.unique(found, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[group]

    def _joined(self, here: Numbers, traits: _Traits, kept: Mask, *, judged: bool) -> Numbers:
        """The groups of the members of one space: first replicas, then what does the same."""
        place = np.full(len(self._spaces), -1)
        place[here] = np.arange(len(here))
        at = np.nonzero(kept & (place[traits.member] >= 0))[0]
        names, column = np.unique(traits.trait[at], return_inverse=True)
        # These are by far the largest arrays: members by traits, in place and in half the octets.
        since, until = self._begin[here], self._end[here]
        begin, end, lives, ends = (
            (slot - self._begin.min()).astype(np.float32)
            for slot in (traits.begin[names], traits.end[names], since, until)
        )
        times = np.minimum(end, ends[:, None])
        times -= np.maximum(begin, lives[:, None])
        times += 1
        np.maximum(times, 0, out=times)
        counts = np.zeros_like(times)
        counts[place[traits.member[at]], column] = traits.count[at]
        rows = Rows(np.minimum(counts, times, out=counts), times)
        kind = traits.kind[names]
        telling = Telling(
            ~np.isin(kind, _OF_PROCESSES),
            np.isin(kind, _RATED),
            tuple(kind == one for one in (_Kind.BEHIND, *_OF_PROCESSES)),
        )
        crowd = _crowds(rows, until - since < _STRONG, telling)
        rows = rows.added(crowd)
        # What a job does it does while it runs: its runs are as good as one that was always there.
        many = np.nonzero(np.bincount(crowd) >= _STRONG)[0]
        first, last = (one[many, None] - self._begin.min() for one in _span(crowd, since, until))
        whole = np.minimum(end, last) - np.maximum(begin, first) + 1
        rows.times[many] = np.maximum(rows.times[many], whole)
        replicas = join(rows, _SURE_OF_REPLICAS, telling)
        if not judged:
            return replicas[crowd]
        of_roles = np.isin(kind, _OF_ROLES)
        roles, every = rows.added(replicas).only(of_roles), of_roles[of_roles]
        return join(roles, _SURE_OF_ROLES, Telling(every, ~every))[replicas][crowd]

    def _parts(self, group: Numbers, direct: Mask) -> Numbers:
        """Which part each edge is in, of those between two groups without a Service between.

        Where pairs of groups that look alike fall apart into several islands at one time, these
        are pairs of roles. Islands one after the other are versions of the same.
        """
        part = np.zeros(len(group[self._consumer]), dtype=np.int64)
        strong = np.nonzero(direct & (self._slots >= _STRONG))[0]
        if not len(strong):
            return part
        consumer, provider = self._consumer[strong], self._provider[strong]
        _, block = distinct(group[consumer], group[provider], self._what[strong])
        ends = int(max(consumer.max(), provider.max())) + 1
        sides = (block * 2 * ends + consumer, (block * 2 + 1) * ends + provider)
        _, node = np.unique(np.concatenate(sides), return_inverse=True)
        island = _islands(node[: len(strong)], node[len(strong) :])
        _, island = np.unique(island, return_inverse=True)
        count = int(island.max()) + 1
        begin, end = _span(island, self._first[strong], self._last[strong])
        of_block = np.zeros(count, dtype=np.int64)
        of_block[island] = block
        order = np.lexsort((begin, of_block))
        follows = (of_block[order][1:] == of_block[order][:-1]) & (
            begin[order][1:] < end[order][:-1]
        )
        at_once = np.zeros(int(of_block.max()) + 1, dtype=np.bool_)
        at_once[of_block[order][1:][follows]] = True
        number = np.where(at_once[of_block], np.arange(count) + 1, 0)
        part[strong] = number[island]
        weak = np.nonzero(direct & (self._slots < _STRONG))[0]
        return self._with_weak(part, weak, strong)

    def _with_weak(self, part: Numbers, weak: Numbers, strong: Numbers) -> Numbers:
        """A stray edge is in the part of its provider's other edges on the port, if there is."""
        key = np.concatenate([self._provider[weak], self._provider[strong]])
        what = np.concatenate([self._what[weak], self._what[strong]])
        _, which = distinct(key, what)
        of_key = np.zeros(int(which.max(initial=-1)) + 1, dtype=np.int64)
        of_key[which[len(weak) :]] = part[strong]
        part[weak] = of_key[which[: len(weak)]]
        return part


def _crowds(rows: Rows, brief: Mask, telling: Telling) -> Numbers:
    """The brief ones put together, which can be told from others as a crowd only; others alone.

    One run of a CronJob does too little to be told from a replica of another consumer of the same
    provider, but all its runs together lack what that one's replicas do.
    """
    at = np.nonzero(brief)[0]
    crowd = np.arange(len(brief))
    crowd[at] = len(brief) + join(rows.take(at), _SURE_OF_REPLICAS, telling)
    return np.unique(crowd, return_inverse=True)[1]


def _ends(seen: Behaviour) -> tuple[Numbers, Numbers]:
    return seen.consumer, seen.provider


def _span(which: Numbers, first: Numbers, last: Numbers) -> tuple[Numbers, Numbers]:
    """The least first and the greatest last of each group of rows."""
    begin = np.full(int(which.max(initial=-1)) + 1, _NEVER)
    end = np.full_like(begin, -1)
    np.minimum.at(begin, which, first)
    np.maximum.at(end, which, last)
    return begin, end


def _spaces(snapshot: Snapshot, ours: Numbers) -> Numbers:
    """A number for what never mixes: Kubernetes cluster, namespace and kind."""
    numbers: dict[tuple[str, str, ItemKind], int] = {}
    items = (snapshot.items[position] for position in ours.tolist())
    keys = ((item.cluster, item.namespace, item.kind) for item in items)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _alike(spaces: Numbers, member: Numbers, trait: Numbers) -> Numbers:
    """The members of one space that have just the same traits, as numbers of groups."""
    drawn = np.random.default_rng(0).integers(1, 2**62, int(trait.max(initial=-1)) + 1)
    row = distinct(member, trait)[0]
    mark = np.zeros(len(spaces), dtype=np.int64)
    np.add.at(mark, member[row], drawn[trait[row]])
    return distinct(spaces, mark)[1]


def _islands(one: Numbers, other: Numbers) -> Numbers:
    """For each edge of a graph the least node that it hangs together with."""
    label = np.arange(int(max(one.max(), other.max())) + 1)
    while True:
        least = np.minimum(label[one], label[other])
        before = label.copy()
        np.minimum.at(label, one, least)
        np.minimum.at(label, other, least)
        label = label[label]
        if np.array_equal(before, label):
            return label[one]
