"""Ends trials of what is enforced: kept when somebody confirms in time, else taken back.

A staged one is kept if little is dropped at its nodes that analysis did not foresee (`staged.py`).

What is on trial stands in the database, so a control plane that was away at the end of one takes it
back when it starts. Nodes that hear nothing go back by themselves (`ringfence/agent/orders.py`).
"""

import asyncio
import time
from collections.abc import Collection

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.audit import Author
from ringfence.control.background import Background
from ringfence.control.enforcement import Enforcement
from ringfence.control.errors import ConflictError
from ringfence.control.metrics import Metrics
from ringfence.control.policies import load_judged_by
from ringfence.control.staged import NOTHING_SEEN, Before, Seen, Step, Tried, Watch, decide
from ringfence.control.times import Clock
from ringfence.control.trial import judged_before
from ringfence.model.errors import RingfenceError
from ringfence.model.ids import TenantId
from ringfence.store.relational.changes import Change, add_change
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import (
    Enforced,
    describe_set,
    enforce,
    enforced_at,
    enforced_now,
    spread,
)
from ringfence.store.relational.kubernetes import switch_enforced_cluster
from ringfence.store.relational.trials import Trial, end_trial, load_trial

_LOOK_SECONDS = 0.5
_LOOK_AT_STAGE_NS = 10 * 10**9
_LOOK_AT_END_NS = 10**9
_NOBODY = "ringfence", "trial"
"""Who ends a trial when nobody does, and from where."""

_LOG = structlog.get_logger(__name__)


class Trials:
    """Follows the trial under way, of which there is one at most."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        enforcement: Enforcement,
        agents: Agents,
        watch: Watch,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._enforcement, self._agents, self._watch = enforcement, agents, watch
        self._followed: Trial | None = None
        self._due_ns = 0  # its end, by the monotonic clock
        self._looked_ns = 0
        self._before: Before | None = None
        """The trial looked at, when that was last, and what was seen before it, which stays so."""
        self.seen = NOTHING_SEEN
        """Of the staged trial under way, at the last look."""
        self._following = Background("trials", self._pause, self._look, metrics)

    async def start(self) -> None:
        """Take back what should have been meanwhile, and follow what is under way."""
        trial = await self.current()
        if trial is None or trial.nodes is None:  # what a stage has seen may take long to find
            await self._look()
        self._following.start()

    async def stop(self) -> None:
        """Follow no more; what is on trial stays so."""
        await self._following.stop()

    async def current(self) -> Trial | None:
        """The trial under way."""
        async with self._database.read() as connection:
            return await load_trial(connection, self._tenant)

    async def confirm(self, author: Author, expected: int | None = None) -> Trial:
        """Keep what is on trial, everywhere.

        Raises ConflictError where nothing is, or not revision `expected`.
        """
        trial = await self.current()
        revision = trial.revision if trial and trial.cluster is None else None
        if trial and expected not in (None, revision):
            raise ConflictError(f"{trial.what} is on trial, not {expected}")
        actor, source = author.principal.actor, author.source
        return await self._keep("confirmed", actor, source, only=trial)

    async def revert(self, author: Author) -> int:
        """Go back to what was enforced before; the revision by then.

        Raises ConflictError where nothing is on trial.
        """
        return await self._take_back("", author.principal.actor, author.source)

    async def _keep(
        self, verb: str, actor: str, source: str, why: str = "", only: Trial | None = None
    ) -> Trial:
        async with self._database.write() as connection:
            trial = await self._under_way(connection, only)
            await end_trial(connection, self._tenant)
            now_ns, what = self._clock(), f"{verb} {trial.what}"
            if trial.nodes is not None:
                await spread(connection, self._tenant, trial.revision, now_ns)
            change = Change(now_ns, actor, source, "enforcement", what, why)
            await add_change(connection, self._tenant, change)
        await self._enforcement.refresh()
        return trial

    async def _take_back(self, why: str, actor: str, source: str, only: Trial | None = None) -> int:
        now_ns = self._clock()
        async with self._database.write() as connection:
            trial = await self._under_way(connection, only)
            await end_trial(connection, self._tenant)
            told = await self._go_back(connection, trial, actor, now_ns)
            what = f"reverted {trial.what}: {told}"
            change = Change(now_ns, actor, source, "enforcement", what, why)
            await add_change(connection, self._tenant, change)
            revision = (await enforced_now(connection, self._tenant)).revision
        _LOG.warning("change of what is enforced reverted", change=trial.what, reason=why)
        await self._enforcement.refresh()
        return revision

    async def _go_back(
        self, connection: AsyncConnection, trial: Trial, actor: str, now_ns: int
    ) -> str:
        """Make what was enforced before a trial so again, and tell what that is."""
        if trial.cluster is not None:
            switched = connection, self._tenant, trial.cluster, actor, now_ns
            on = await switch_enforced_cluster(*switched)
            return f"its policies {'enforced' if on else 'no longer enforced'}"
        before = await enforced_at(connection, self._tenant, trial.previous)
        fresh = Enforced(trial.revision + 1, before.workspaces, actor, now_ns)
        await enforce(connection, self._tenant, fresh)
        return f"enforced {describe_set(before)}"

    async def _under_way(self, connection: AsyncConnection, only: Trial | None) -> Trial:
        """The trial under way, if it is the one that is meant; raises ConflictError."""
        trial = await load_trial(connection, self._tenant)
        if trial is None or only not in (None, trial):
            raise ConflictError("nothing is on trial: see `ringfence enforce`")
        return trial

    async def _pause(self) -> None:
        await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        trial = await self.current()
        if trial != self._followed:
            self._followed, self._looked_ns = trial, self._clock()
            self._before, self.seen = None, NOTHING_SEEN
            self._due_ns = time.monotonic_ns() + (self._left_ns(trial) if trial else 0)
        if trial is None:
            return
        # A clock that is set back makes no trial longer.
        now_ns = max(self._clock(), trial.until_ns - (self._due_ns - time.monotonic_ns()))
        if trial.nodes is not None:
            await self._look_at_stage(trial, trial.nodes, now_ns)
        elif now_ns >= trial.until_ns:
            await self._take_back("not confirmed in time", *_NOBODY, only=trial)

    def _left_ns(self, trial: Trial) -> int:
        """How long a trial may still last: all of its time, if it seems to lie ahead."""
        return trial.until_ns - max(trial.began_ns, self._clock())

    async def _look_at_stage(self, trial: Trial, nodes: Collection[NodeKey], now_ns: int) -> None:
        over = now_ns >= trial.until_ns
        if now_ns < self._looked_ns + (_LOOK_AT_END_NS if over else _LOOK_AT_STAGE_NS):
            return
        self._looked_ns = now_ns
        try:
            self.seen = await self._see(trial, nodes, now_ns)
            problem = self._absent(nodes)
        except RingfenceError as error:
            problem = f"what was seen is not known: {error}"
            _LOG.warning("cannot look at a stage", revision=trial.revision, problem=str(error))
        step, why = decide(trial, self.seen, problem, now_ns)
        if step is Step.TAKE_BACK:
            await self._take_back(why, *_NOBODY, only=trial)
        elif step is Step.KEEP:
            await self._keep("enforced everywhere", *_NOBODY, why, trial)

    async def _see(self, trial: Trial, nodes: Collection[NodeKey], now_ns: int) -> Seen:
        async with self._database.read() as connection:
            judged_by = await load_judged_by(connection, self._tenant)
            before = await judged_before(connection, self._tenant, judged_by, trial)
        tried = Tried(judged_by, before, nodes, trial.began_ns, trial.until_ns)
        if now_ns <= self._watch.settled_ns(tried):
            return NOTHING_SEEN
        if self._before is None:
            self._before = await self._watch.look_before(tried, now_ns)
        return await self._watch.look(tried, self._before, now_ns)

    def _absent(self, nodes: Collection[NodeKey]) -> str:
        """Why what is on trial is not in force at one of its nodes; empty if it is at all."""
        agents = {agent.key: agent for agent in self._agents.all()}
        for node in nodes:
            agent = agents.get(node)
            if agent is None or not agent.connected:
                return f"the agent of {node[1]} is not connected"
            wanted = self._enforcement.desired_revision(node)
            if agent.stale_reason or agent.state.enforced_revision != wanted:
                return f"it is not in force at {node[1]}: {agent.stale_reason or 'no answer'}"
        return ""
