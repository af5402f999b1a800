"""Ends trials of the enforced set: kept when somebody confirms in time, else taken back.

What is on trial stands in the database, so a control plane that was away at the end of one takes it
back when it starts. Nodes that hear nothing go back by themselves (`ringfence/agent/orders.py`).
"""

import asyncio
from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.audit import Author
from ringfence.control.background import Background
from ringfence.control.enforcement import Enforcement
from ringfence.control.errors import ConflictError
from ringfence.control.metrics import Metrics
from ringfence.control.services import Clock
from ringfence.model.ids import TenantId
from ringfence.store.relational.changes import Change, add_change
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import describe_set, enforce, enforced_at
from ringfence.store.relational.trials import Trial, end_trial, load_trial

_LOOK_SECONDS = 0.5
_NOBODY = "ringfence", "trial"
"""Who takes back what nobody confirmed, and from where."""

_LOG = structlog.get_logger(__name__)


class Trials:
    """Follows the trial under way, of which there is one at most."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        enforcement: Enforcement,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._enforcement = enforcement
        self._following = Background("trials", self._pause, self._look, metrics)

    async def start(self) -> None:
        """Take back what should have been meanwhile, and follow what is under way."""
        await self._look()
        self._following.start()

    async def stop(self) -> None:
        """Follow no more; what is on trial stays so."""
        await self._following.stop()

    async def current(self) -> Trial | None:
        """The trial under way."""
        async with self._database.read() as connection:
            return await load_trial(connection, self._tenant)

    async def confirm(self, author: Author) -> Trial:
        """Keep what is on trial; raises ConflictError where nothing is."""
        async with self._database.write() as connection:
            trial = await self._under_way(connection)
            await end_trial(connection, self._tenant)
            what = f"confirmed revision {trial.revision}"
            await author.note(connection, self._clock(), what, about="enforcement")
        await self._enforcement.refresh()
        return trial

    async def revert(self, author: Author) -> int:
        """Go back to what was enforced before; the new revision.

        Raises ConflictError where nothing is on trial.
        """
        actor, source = author.principal.actor, author.source
        return await self._take_back("", actor, source)

    async def _take_back(self, why: str, actor: str, source: str, only: Trial | None = None) -> int:
        now_ns = self._clock()
        async with self._database.write() as connection:
            trial = await self._under_way(connection)
            if only not in (None, trial):
                raise ConflictError("another change is on trial by now")
            before = await enforced_at(connection, self._tenant, trial.previous)
            fresh = replace(before, revision=trial.revision + 1, actor=actor, since_ns=now_ns)
            await enforce(connection, self._tenant, fresh)
            await end_trial(connection, self._tenant)
            what = f"reverted revision {trial.revision}: enforced {describe_set(before)}"
            change = Change(now_ns, actor, source, "enforcement", what, why)
            await add_change(connection, self._tenant, change)
        _LOG.warning("change of the enforced set reverted", revision=trial.revision, reason=why)
        await self._enforcement.refresh()
        return fresh.revision

    async def _under_way(self, connection: AsyncConnection) -> Trial:
        trial = await load_trial(connection, self._tenant)
        if trial is None:
            raise ConflictError("nothing is on trial: see `ringfence enforce`")
        return trial

    async def _pause(self) -> None:
        await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        trial = await self.current()
        if trial is None or self._clock() < trial.until_ns:
            return
        await self._take_back("not confirmed in time", *_NOBODY, only=trial)
