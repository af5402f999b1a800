"""Continuous analysis: what arrives is judged by every version under analysis, and counted.

What is enforced is under analysis too. Counts stand by slots of time, to one of which each window
of an agent belongs: the one in which it ended. A slot is judged anew, and its counts are replaced,
when more of it arrives, and while something in it is pending. It is judged by what was enforced in
its own time, so neither late reports nor later decisions rewrite what was true.

Windows that end within a reporting interval after a change of what is enforced tell of neither set
and are left out. While a set is on trial at some nodes, nothing is told of what is enforced: other
nodes rightly do what the set before says. Slots of hours ago are joined to whole hours.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.analysis import judge
from ringfence.control.arrivals import Arrivals, Listener
from ringfence.control.background import Background
from ringfence.control.beside import load_beside
from ringfence.control.judged import JudgedBy
from ringfence.control.metrics import Metrics
from ringfence.control.policies import load_judged_by, load_set
from ringfence.control.staged import Watch
from ringfence.control.tallies import fold, items_of, tally
from ringfence.control.times import Clock
from ringfence.flows.connections import records
from ringfence.flows.disposition import PATIENCE_NS, dispose
from ringfence.model.flow import Category
from ringfence.model.tally import Cause, Tally
from ringfence.store.flows.queries import HOPS
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import Enforced, enforced_sets
from ringfence.store.relational.verdicts import (
    Named,
    Told,
    all_analyses,
    forget_before,
    oldest_told,
    put_told,
    told_since,
)

SLOT_NS = 300 * 10**9
HOUR_NS = 3600 * 10**9
_FINE_NS = 2 * HOUR_NS
"""For how long slots stay apart."""
KEPT_NS = 90 * 24 * HOUR_NS
PROGRAMMING_NS = 2 * 10**9
"""What a node may take until new rules are in force."""

Span = tuple[int, int]
"""[start, end) in epoch ns."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a slot throughout which one set was in force: at some nodes alone if `staged`."""

    span: Span
    enforced: Enforced
    staged: bool = False


def segments(span: Span, sets: Iterable[Enforced], settling_ns: int) -> Iterator[Segment]:
    """The parts of a slot; `sets` are those enforced by and during it, the oldest first."""
    start_ns, end_ns = span
    for one, later in pairwise([*sets, None]):
        assert one is not None
        begins = max(start_ns, one.since_ns + settling_ns if one.revision > 0 else start_ns)
        ends = min(end_ns, later.since_ns if later else end_ns)
        staged_ns = ends if one.staged_until_ns is None else min(one.staged_until_ns, ends)
        if begins < staged_ns:
            yield Segment((begins, staged_ns), one, staged=True)
        if one.staged_until_ns != 0:
            begins = max(begins, staged_ns + settling_ns)
        if begins < ends:
            yield Segment((begins, ends), one)


def slot_of(window_end_ns: int, now_ns: int) -> Span:
    """The slot to which a window belongs."""
    width = SLOT_NS if window_end_ns > fine_since(now_ns) else HOUR_NS
    start_ns = (window_end_ns - 1) // width * width
    return start_ns, start_ns + width


def fine_since(now_ns: int) -> int:
    """From when on slots are not joined to hours, epoch ns: a whole hour."""
    return (now_ns - _FINE_NS) // HOUR_NS * HOUR_NS


class Continuous:
    """Judges what arrives, and keeps the counts."""

    def __init__(
        self, clock: Clock, database: Database, watch: Watch, arrivals: Arrivals, metrics: Metrics
    ) -> None:
        self._clock, self._database = clock, database
        self._watch, self._arrivals, self._tenant = watch, arrivals, watch.tenant
        self._due: set[Span] = set()
        self._listener: Listener | None = None
        self._listening = contextlib.ExitStack()
        self._on_judged: list[Callable[[], None]] = []
        self._following = Background("analysis", self._hear, self._judge_due, metrics)
        self.through_ns = 0
        """All that had arrived by then has been judged, epoch ns."""

    async def start(self) -> None:
        """Judge what is yet to be judged of the last minutes, and what arrives."""
        now_ns = self._clock()
        for at_ns in range(now_ns - 2 * PATIENCE_NS, now_ns + SLOT_NS, SLOT_NS):
            self._due.add(slot_of(at_ns, now_ns))
        self._listener = self._listening.enter_context(self._arrivals.listen(self._tenant))
        self._following.start()

    async def stop(self) -> None:
        """Judge no more."""
        await self._following.stop()
        self._listening.close()

    def subscribe(self, on_judged: Callable[[], None]) -> None:
        """Have a quick function called when counts have changed."""
        self._on_judged.append(on_judged)

    def renew(self) -> None:
        """What is under analysis has changed: judge the slot of now by it too."""
        now_ns = self._clock()
        self._due.add(slot_of(now_ns, now_ns))
        if self._listener:
            self._listener.wake()

    async def _hear(self) -> None:
        assert self._listener
        now_ns = self._clock()
        windows = await self._listener.windows(self._watch.interval_ns / 10**9)
        self._due |= {slot_of(window.end_ns, now_ns) for window in windows}

    async def _judge_due(self) -> None:
        now_ns = self._clock()
        await self._join_hours(now_ns)
        for span in sorted(self._due):
            pending = await self._judge_slot(span, now_ns)
            if not pending or now_ns - span[1] > 2 * PATIENCE_NS:
                self._due.discard(span)
        self.through_ns = now_ns
        for callback in self._on_judged:
            callback()

    async def _judge_slot(self, span: Span, now_ns: int) -> bool:
        """Judge what a slot has by now; whether some of it is pending."""
        async with self._database.read() as connection:
            wanted = [
                (one.workspace, one.version)
                for one in await all_analyses(connection, self._tenant)
                if one.since_ns < span[1]
            ]
            sets = await enforced_sets(connection, self._tenant, span)
            settling_ns = self._watch.interval_ns + PROGRAMMING_NS
            parts = []
            for segment in segments(span, sets, settling_ns):
                judges = await self._judges(connection, segment, wanted)
                parts.append((segment, judges))
        found = [
            Told(named, *segment.span, enforced, one)
            for segment, judges in parts
            for named, enforced, one in await self._judge(segment.span, judges, now_ns)
        ]
        told = joined(span, found)
        judged = {named for _, judges in parts for _, names, _ in judges for named in names}
        async with self._database.write() as connection:
            await put_told(connection, self._tenant, span, told, of=judged)
        return any(one.tally.cause.category is Category.PENDING for one in told)

    async def _judges(
        self, connection: AsyncConnection, segment: Segment, wanted: Collection[Named]
    ) -> list[tuple[JudgedBy, list[Named], bool]]:
        """By what to judge, which of its workspaces to tell of, and whether it is enforced."""
        enforced = segment.enforced
        held = await load_set(connection, self._tenant, enforced)
        base = await load_judged_by(connection, self._tenant, enforced=held)
        # First what is enforced, also where nothing is told of it: what drops is held against it.
        told = [*enforced.workspaces] if not segment.staged else []
        judges = [(base, told, True)]
        for name, version in wanted:
            if (name, version) not in enforced.workspaces:
                beside = await load_beside(
                    connection, self._tenant, name, version, enforced=enforced, analysed=wanted
                )
                by = await load_judged_by(
                    connection, self._tenant, [*beside.versions, (name, version)], enforced=held
                )
                judges.append((by, [(name, version)], False))
        return judges

    async def _judge(
        self, span: Span, judges: Iterable[tuple[JudgedBy, list[Named], bool]], now_ns: int
    ) -> list[tuple[Named, bool, Tally]]:
        judges = list(judges)
        if not any(named for _, named, _ in judges):
            return []
        window = {"tenant": self._tenant, "since": span[0], "until": span[1]}
        hops = await self._watch.store.query(HOPS, window)
        seen = await asyncio.to_thread(records, hops)
        fate = await asyncio.to_thread(dispose, seen, self._watch.through(), now_ns)
        told, item_of = [], items_of(self._watch.history.timeline)
        rightly: NDArray[np.bool_] = np.zeros(len(seen), np.bool_)
        for judged_by, named, enforced in judges:
            names = [name for name, _ in named]
            judged = await judge(seen, self._watch.history, span[1], judged_by, *names)
            if enforced:
                rightly, counted_as = fate.dropped & ~judged.allowed, fate
            else:  # what is enforced rightly drops says nothing of a version that allows it
                counted_as = replace(fate, drops=fate.drops * ~(rightly & judged.allowed))
            for one in named:
                view = judged.views[one[0]]
                counted = await asyncio.to_thread(
                    tally, seen, counted_as, view, judged.allowed, judged.deciding, item_of
                )
                told += [(one, enforced, each) for each in counted]
        return told

    async def _join_hours(self, now_ns: int) -> None:
        """Join slots that have become old, and forget what is older still."""
        until_ns = fine_since(now_ns)
        async with self._database.read() as connection:
            oldest = await oldest_told(connection, self._tenant)
            if oldest is None:
                return
            since_ns = max(oldest // HOUR_NS * HOUR_NS, until_ns - 24 * HOUR_NS)
            told = await told_since(connection, self._tenant, since_ns, until_ns)
        apart = [one for one in told if one.end_ns - one.start_ns < HOUR_NS]
        hours = {one.start_ns // HOUR_NS * HOUR_NS for one in apart}
        if not hours and oldest >= now_ns - KEPT_NS:
            return
        async with self._database.write() as connection:
            for hour, every in groupby(told, key=lambda one: one.start_ns // HOUR_NS * HOUR_NS):
                if hour in hours:
                    span = hour, hour + HOUR_NS
                    await put_told(connection, self._tenant, span, joined(span, every))
            await forget_before(connection, self._tenant, now_ns - KEPT_NS)


def joined(span: Span, every: Iterable[Told]) -> list[Told]:
    """What was found in parts of a time, as of the whole of it."""
    found: dict[tuple[Named, bool], dict[Cause, Tally]] = {}
    for one in every:
        fold(found.setdefault((one.named, one.enforced), {}), one.tally)
    return [
        Told(named, *span, enforced, one)
        for (named, enforced), tallies in found.items()
        for one in tallies.values()
    ]
