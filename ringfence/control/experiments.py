"""Back-in-time experiments: what a version would have said to the flows of a past time.

The flow store tells the distinct tuples of each hour, and they are judged hour by hour, so that
memory does not grow with the time asked about. Judged is by what is enforced now with the version
in it, and by the inventory of each connection's own time.
"""

import asyncio

import structlog

from ringfence.control.analysis import judge
from ringfence.control.background import Background
from ringfence.control.beside import load_beside
from ringfence.control.continuous import HOUR_NS
from ringfence.control.metrics import Metrics
from ringfence.control.policies import load_judged_by
from ringfence.control.staged import Watch
from ringfence.control.tallies import MOST_CAUSES, fold, items_of, tally
from ringfence.control.times import Clock
from ringfence.flows.connections import records
from ringfence.flows.disposition import dispose
from ringfence.model.errors import RingfenceError
from ringfence.model.tally import Cause, Tally
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.relational.database import Database
from ringfence.store.relational.experiments import (
    Experiment,
    all_experiments,
    end_experiment,
    find_experiment,
)

_LOG = structlog.get_logger(__name__)
_HOURLY = hourly(HOPS)


def hours_of(one: Experiment) -> range:
    """When the hours begin whose flows it judges, whole ones: those that its time touches."""
    return range(one.since_ns // HOUR_NS * HOUR_NS, one.until_ns, HOUR_NS)


class Experiments:
    """Does one after the other; one that a stop cut short begins anew."""

    def __init__(self, clock: Clock, database: Database, watch: Watch, metrics: Metrics) -> None:
        self._clock, self._database, self._watch = clock, database, watch
        self._asked = asyncio.Event()
        self._asked.set()
        self._following = Background("experiments", self._pause, self._do_all, metrics)
        self.progress: dict[int, tuple[int, int]] = {}
        """Of those under way, how many hours are done, and of how many."""

    async def start(self) -> None:
        """Do what is to be done."""
        self._following.start()

    async def stop(self) -> None:
        """Leave the rest to the next start."""
        await self._following.stop()

    def renew(self) -> None:
        """There is another one to do."""
        self._asked.set()

    async def _pause(self) -> None:
        await self._asked.wait()
        self._asked.clear()

    async def _do_all(self) -> None:
        async with self._database.read() as connection:
            every = await all_experiments(connection, self._watch.tenant)
        for one in reversed([one for one in every if one.ended_ns is None]):
            try:
                result, problem = await self._do(one), ""
            except RingfenceError as error:
                result, problem = [], str(error)
                _LOG.error("experiment failed", experiment=one.id, problem=problem)
            finally:
                self.progress.pop(one.id, None)
            if result is not None:
                async with self._database.write() as connection:
                    await end_experiment(connection, one.id, self._clock(), result, problem)

    async def _do(self, one: Experiment) -> list[Tally] | None:
        """What comes of one, None where it was removed meanwhile; raises RingfenceError."""
        hours = hours_of(one)
        found: dict[Cause, Tally] = {}
        for done, start_ns in enumerate(hours):
            self.progress[one.id] = done, len(hours)
            async with self._database.read() as connection:
                if await find_experiment(connection, self._watch.tenant, one.id) is None:
                    return None
            for each in await self._judge(one, start_ns):
                fold(found, each, MOST_CAUSES)
        return sorted(found.values(), key=lambda each: -each.conversations)

    async def _judge(self, one: Experiment, start_ns: int) -> list[Tally]:
        tenant, until_ns = self._watch.tenant, start_ns + HOUR_NS
        async with self._database.read() as connection:
            beside = await load_beside(connection, tenant, one.workspace, one.version)
            wanted = [*beside.versions, (one.workspace, one.version)]
            judged_by = await load_judged_by(connection, tenant, wanted)
        window = {"tenant": tenant, "since": start_ns, "until": until_ns}
        hops = await self._watch.store.query(_HOURLY, window)
        seen = await asyncio.to_thread(records, hops)
        fate = await asyncio.to_thread(dispose, seen, self._watch.through(), self._clock())
        judged = await judge(seen, self._watch.history, until_ns, judged_by, one.workspace)
        item_of = items_of(self._watch.history.timeline)
        return await asyncio.to_thread(
            tally, seen, fate, judged.in_view, judged.allowed, judged.deciding, item_of
        )
