"""All packets as classes that no rule tells apart, each judged by two tables of rules.

A clause is one bit. On each axis the numbers that pass the same matches make one kind, a row with
the bits of the clauses that they may meet. A class is a kind of every axis, and the AND of their
rows is the clauses that its packets do meet: the lowest bit of a chain decides. Axes are joined
one by one. What a clause that asks nothing of the axes to come decides already, no later one of
its chain can change; so those bits go, and what differs in nothing else becomes one kind.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as flatten

import numpy as np
from numpy.typing import NDArray

from ringfence.policy import bits
from ringfence.policy.bits import Bits
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.packets import (
    Axis,
    Call,
    Clause,
    Match,
    Outcome,
    Packet,
    Ranges,
    Table,
)

_WORD = 64
_BATCH = 1 << 15
"""Classes that are judged at a time."""
_MOST_CLASSES = 1 << 24
_MOST_WORDS = 1 << 25
"""Of memory for the rows of kinds, 256 MiB: a pod may write rules into its table that tell
everything apart."""
_ENDS = (
    (Axis.DESTINATION, Axis.LEAVES_BY, Axis.LEAVES_BY_KIND),
    (Axis.SOURCE, Axis.CAME_BY, Axis.CAME_BY_KIND),
)
"""Axes that rules ask together, so that most of the kinds on one of them are alone on the other."""
_PLACES = {axis: place for place, axis in enumerate(Axis)}
_Key = tuple[int, str]
"""A table, and a chain in it."""


@dataclass(frozen=True)
class Kinds:
    """n kinds of packets on some axes: `rows` has their bits, `numbers` one member of each."""

    rows: Bits
    numbers: dict[Axis, list[int]]
    members: dict[Axis, NDArray[np.intp]]
    """For each row the place in `numbers` on each axis."""

    def join(self, other: "Kinds") -> "Kinds":
        """The kinds on the axes of both."""
        mine, its = len(self.rows), len(other.rows)
        if mine * its * self.rows.shape[1] > _MOST_WORDS:
            raise UnprovableError(f"rules tell {mine} times {its} kinds of packets apart, too many")
        rows = self.rows[:, None, :] & other.rows[None, :, :]
        members = {axis: np.repeat(at, its) for axis, at in self.members.items()}
        members |= {axis: np.tile(at, mine) for axis, at in other.members.items()}
        return Kinds(
            rows.reshape(mine * its, -1), {**self.numbers, **other.numbers}, members
        )  # fmt: skip

    def distinct(self) -> "Kinds":
        """One of each kind."""
        chosen, _ = bits.distinct(self.rows)
        chosen.sort()
        members = {axis: at[chosen] for axis, at in self.members.items()}
        return Kinds(self.rows[chosen], self.numbers, members)

    def member(self, row: int) -> dict[Axis, int]:
        """A packet of a kind, by its number on each axis."""
        return {axis: self.numbers[axis][at[row]] for axis, at in self.members.items()}


@dataclass(frozen=True)
class Disagreement:
    """Classes in which two tables say something else, and a packet of some of them."""

    classes: int
    differing: int
    packets: tuple[Packet, ...]


def disagreement(one: Table, other: Table, hook: str, limit: int) -> Disagreement:
    """Where two tables about one family differ at a hook; at most `limit` packets show it."""
    clauses = _Clauses((one, other), hook)
    destinations, sources = (_kinds(clauses, axes) for axes in _ENDS)
    ends = destinations.join(sources)
    first = _kinds(clauses, [axis for axis in Axis if axis not in flatten(*_ENDS)])
    clauses.settle(ends.rows, set(first.numbers))
    ends = ends.distinct()
    classes = len(first.rows) * len(ends.rows)
    if classes > _MOST_CLASSES:
        raise UnprovableError(f"rules tell {classes} classes of packets apart, too many")
    step = max(1, _BATCH // len(ends.rows))
    differing, packets = 0, list[Packet]()
    for start in range(0, len(first.rows), step):
        batch = first.rows[start : start + step, None, :] & ends.rows[None, :, :]
        rows = batch.reshape(-1, batch.shape[2])
        wrong = np.flatnonzero(clauses.outcomes(0, rows) != clauses.outcomes(1, rows))
        differing += len(wrong)
        for row in wrong[: limit - len(packets)].tolist():
            at, end = divmod(row, len(ends.rows))
            numbers = first.member(start + at) | ends.member(end)
            packets.append(Packet(one.family, numbers))
    return Disagreement(classes, differing, tuple(packets))


def _kinds(clauses: "_Clauses", axes: Sequence[Axis]) -> Kinds:
    """The kinds of packets on some axes that clauses tell apart."""
    found = Kinds(clauses.every[None, :], {}, {})
    seen = set[Axis]()
    for axis in axes:
        if axis not in clauses.matches:
            continue
        found = found.join(clauses.kinds(axis))
        seen.add(axis)
        clauses.settle(found.rows, clauses.matches.keys() - seen)
        found = found.distinct()
    return found


class _Clauses:
    """The clauses of two tables that a packet may meet at one hook, as bits."""

    def __init__(self, tables: Sequence[Table], hook: str) -> None:
        self.family = tables[0].family
        self.bases = [[(side, name) for name in table.hooks.get(hook, ())]
                      for side, table in enumerate(tables)]  # fmt: skip
        order = _callers_first(tables, flatten(*self.bases))
        self.chains: dict[_Key, _Chain] = {}
        words = 0
        for key in order:
            held = tables[key[0]].chains[key[1]]
            self.chains[key] = made = _Chain(held, words)
            words = made.words.stop
        self.every = np.zeros(max(words, 1), dtype="<u8")
        self.matches: dict[Axis, list[tuple[int, Match]]] = {}
        self._calls: dict[_Key, Bits] = {}
        for key, chain in self.chains.items():
            for at, clause in enumerate(chain.clauses):
                self._place(key, chain.first + at, clause)

    def _place(self, key: _Key, bit: int, clause: Clause) -> None:
        self.every[bit // _WORD] |= np.uint64(1 << bit % _WORD)
        for one in clause.matches:
            self.matches.setdefault(one.axis, []).append((bit, one))
        if isinstance(clause.verdict, Call):
            callee = (key[0], clause.verdict.chain)
            called = self._calls.setdefault(callee, np.zeros_like(self.every))
            called[bit // _WORD] |= np.uint64(1 << bit % _WORD)

    def kinds(self, axis: Axis) -> Kinds:
        """The kinds of packets on one axis."""
        matches, size = self.matches[axis], axis.size(self.family)
        cuts = {0}
        for _, one in matches:
            for first, last in one.values:
                cuts |= {first, last + 1}
        starts = sorted(cut for cut in cuts if cut < size)
        rows = np.tile(self.every, (len(starts), 1))
        for bit, one in matches:
            outside = _among(starts, one.values)
            if not one.negated:
                outside = ~outside
            rows[outside, bit // _WORD] &= ~np.uint64(1 << bit % _WORD)
        return Kinds(rows, {axis: starts}, {axis: np.arange(len(starts))}).distinct()

    def settle(self, rows: Bits, left: Collection[Axis]) -> None:
        """Take the bits away that decide nothing any more, whatever is on the axes left."""
        bases = set(flatten(*self.bases))
        for key, chain in self.chains.items():
            part = rows[:, chain.words]
            live = np.flatnonzero(part.any(axis=1))  # of many chains most rows meet few
            if not len(live):
                continue
            some = part[live]
            some &= chain.through[bits.first(some & chain.settling(left))]
            if key not in bases:
                calls = self._calls[key]
                words = np.flatnonzero(calls)
                reached = (rows[np.ix_(live, words)] & calls[words]).any(axis=1)
                some[~reached] = 0
            part[live] = some

    def outcomes(self, side: int, rows: Bits) -> NDArray[np.uint8]:
        """What one table may do with each class, as the value of an `Outcome`."""
        accept = np.uint8(Outcome.ACCEPT.value)
        found: NDArray[np.uint8] = np.full(len(rows), accept)
        told: dict[_Key, NDArray[np.uint8]] = {}
        for key in self.bases[side]:
            going = np.flatnonzero(found & accept)
            found[going] = found[going] & ~accept | self._say(key, rows, going, told)
        return found

    def _say(
        self, key: _Key, rows: Bits, asked: NDArray[np.intp], told: dict[_Key, NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """What a chain does with the rows asked for; those that were `told` are not asked again."""
        if key not in told:
            told[key] = np.full(len(rows), Outcome.NOTHING.value, dtype=np.uint8)
        fresh = asked[told[key][asked] == Outcome.NOTHING.value]
        told[key][fresh] = self._ask(key, rows, fresh, told)
        return told[key][asked]

    def _ask(
        self, key: _Key, rows: Bits, asked: NDArray[np.intp], told: dict[_Key, NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        chain = self.chains[key]
        part = rows[asked, chain.words]
        found = np.zeros(len(asked), dtype=np.uint8)
        active = np.arange(len(asked))
        while len(active):
            at = bits.first(part[active])
            said: NDArray[np.uint8] = chain.says[at]
            goes_on, callees = ~chain.certain[at], chain.callees[at]
            for callee in np.unique(callees[callees >= 0]).tolist():
                going = callees == callee
                callee_key = (key[0], chain.called[callee])
                said[going] = self._say(callee_key, rows, asked[active[going]], told)
            back = chain.returns[at] & (said & Outcome.RETURN.value != 0)
            said[back] &= ~np.uint8(Outcome.RETURN.value)
            found[active] |= said
            goes_on |= back
            active = active[goes_on]
            part[active] &= ~chain.through[at[goes_on]]
        return found


class _Chain:
    """One chain: its clauses, and where their bits stand in a row."""

    def __init__(self, clauses: tuple[Clause, ...], first_word: int) -> None:
        count = len(clauses)
        self.clauses, self.first = clauses, first_word * _WORD
        self.words = slice(first_word, first_word + max(1, -(-count // _WORD)))
        width = self.words.stop - first_word
        # The last row stands for none of them.
        self.through = np.full((count + 1, width), ~np.uint64(0), dtype="<u8")
        octets = np.packbits(np.tri(count, width * _WORD, dtype=np.bool_), 1, bitorder="little")
        self.through[:count] = octets.view("<u8")
        self.called = sorted({c.verdict.chain for c in clauses if isinstance(c.verdict, Call)})
        self.says = np.zeros(count + 1, dtype=np.uint8)
        self.says[-1] = Outcome.RETURN.value
        self.certain = np.ones(count + 1, dtype=np.bool_)
        self.returns = np.zeros(count + 1, dtype=np.bool_)
        self.callees = np.full(count + 1, -1)
        asked = [_axes({one.axis for one in clause.matches}) for clause in clauses]
        self._asked = np.array(asked, dtype=np.uint32)
        for at, clause in enumerate(clauses):
            self.certain[at] = clause.certain
            if isinstance(clause.verdict, Call):
                self.callees[at] = self.called.index(clause.verdict.chain)
                self.returns[at] = not clause.verdict.goto
            else:
                self.says[at] = clause.verdict.value

    def settling(self, left: Collection[Axis]) -> Bits:
        """The bits of clauses that decide whatever is on the axes left."""
        settles = self.certain[:-1] & ~self.returns[:-1] & (self._asked & _axes(left) == 0)
        found = np.zeros(self.through.shape[1], dtype="<u8")
        octets = np.packbits(settles, bitorder="little")
        found.view(np.uint8)[: len(octets)] = octets
        return found


def _axes(some: Collection[Axis]) -> int:
    """Axes as bits."""
    return sum(1 << _PLACES[axis] for axis in some)


def _among(starts: list[int], values: Ranges) -> NDArray[np.bool_]:
    """Which of the cells that begin at `starts`, cut by the values, lie in them."""
    found = np.zeros(len(starts), dtype=np.bool_)
    for first, last in values:
        found[bisect_left(starts, first) : bisect_left(starts, last + 1)] = True
    return found


def _callers_first(tables: Sequence[Table], bases: Iterator[_Key]) -> list[_Key]:
    """All chains that are reached, each after those that call it. No kernel takes a loop."""
    done: dict[_Key, None] = {}

    def visit(key: _Key) -> None:
        if key not in done:
            for clause in tables[key[0]].chains[key[1]]:
                if isinstance(clause.verdict, Call):
                    visit((key[0], clause.verdict.chain))
            done[key] = None

    for base in bases:
        visit(base)
    return list(reversed(done))
