"""The inventory's timeline, kept in memory and written behind to the database."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from ringfence.control.address_sets import AddressSetKeeper
from ringfence.control.background import Background
from ringfence.control.metrics import Metrics
from ringfence.control.names import DnsNames
from ringfence.control.times import Clock
from ringfence.inventory.timeline import Change, Timeline
from ringfence.model.address import Network
from ringfence.model.ids import RevisionId, TenantId
from ringfence.policy.moment import Moment, moment
from ringfence.store.relational.database import Database
from ringfence.store.relational.revisions import load_revisions, put_revisions

_WRITE_EVERY_SECONDS = 0.2
_AT_ONCE = 500
"""More would hold up others: they become rows on the event loop."""


class Inventory:
    """Owns the timeline. What a crash loses of the last moments, connectors tell again."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        metrics: Metrics,
        fetch_networks: tuple[Network, ...] = (),
    ) -> None:
        self._clock = clock
        self.timeline = Timeline()
        self.names = DnsNames(clock, database, tenant, self.timeline, metrics)
        """What DNS answered."""
        self.address_sets = AddressSetKeeper(clock, database, tenant, fetch_networks, metrics)
        """What address sets hold."""
        self._database, self._tenant, self._metrics = database, tenant, metrics
        self._on_change: list[Callable[[], None]] = []
        self._unwritten: dict[RevisionId, Change] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._following = Background("inventory", self._pause, self._catch_up, metrics)

    async def start(self) -> None:
        """Take up the stored history."""
        async with self._database.read() as connection:
            self.timeline.load(await load_revisions(connection, self._tenant))
        await self.names.start()
        await self.address_sets.start()
        self._metrics.items.set_function(lambda: len(self.timeline.latest().items))
        self._metrics.names_refused.set_function(lambda: self.names.resolutions.refused)
        self._metrics.address_sets_failing.set_function(self.address_sets.failing)
        self._following.start()

    async def stop(self) -> None:
        """Write what is left."""
        await self.address_sets.stop()
        await self.names.stop()
        async with self._writing:  # cut short, a write would hold the database for a moment more
            await self._following.stop()
        while self._unwritten:
            await self._write()

    def now(self, patterns: Collection[str] | None = None) -> Moment:
        """What policies mean now, besides what exists, if they name no others of DNS than these."""
        contents = self.address_sets.contents
        return moment(self.names.resolutions, contents, self._clock(), patterns)

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Have a quick function called after every change."""
        self._on_change.append(on_change)

    def record(self, changes: Iterable[Change]) -> None:
        """Have the timeline's changes stored, and tell who depends on the inventory."""
        fresh = {change.revision: change for change in changes}
        if not fresh:
            return
        self._unwritten.update(fresh)
        self._metrics.unwritten.set(len(self._unwritten))
        self._wake.set()
        for callback in self._on_change:
            callback()

    async def _pause(self) -> None:
        await self._wake.wait()
        await asyncio.sleep(_WRITE_EVERY_SECONDS)
        self._wake.clear()

    async def _catch_up(self) -> None:
        try:
            while self._unwritten:
                await self._write()
        except Exception:
            self._wake.set()
            raise

    async def _write(self) -> None:
        batch = dict(islice(self._unwritten.items(), _AT_ONCE))
        async with self._writing, self._database.write() as connection:
            await put_revisions(connection, self._tenant, batch.values())
        for revision, change in batch.items():
            if self._unwritten.get(revision) is change:
                del self._unwritten[revision]
        self._metrics.unwritten.set(len(self._unwritten))
