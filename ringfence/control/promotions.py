"""Where scopes stand on their path, and the way back of one that raises an alarm."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import structlog

from ringfence.control.alerts import Alerts
from ringfence.control.audit import Author
from ringfence.control.background import Background
from ringfence.control.beside import deleted_above, load_beside
from ringfence.control.continuous import Span, slot_of
from ringfence.control.enforcement import Enforcement
from ringfence.control.errors import ConflictError
from ringfence.control.identity import ITSELF, Principal, Role
from ringfence.control.metrics import Metrics
from ringfence.control.noise import noise_among
from ringfence.control.policies import load_judged_by, load_workspace
from ringfence.control.staged import Watch
from ringfence.control.times import Clock
from ringfence.control.trials import Trials
from ringfence.model.flow import Category
from ringfence.model.ids import ScopeName, Version, WorkspaceName
from ringfence.model.promotion import Criteria, Facts, Stage
from ringfence.model.tally import Tally
from ringfence.store.flows.queries import OLDEST_WINDOW
from ringfence.store.relational.alerts import Alert, load_alerts
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import (
    NEVER,
    enforced_at,
    enforced_now,
    enforced_sets,
    version_before,
)
from ringfence.store.relational.promotions import Promotion, all_promotions, put_promotion
from ringfence.store.relational.trials import load_trial
from ringfence.store.relational.verdicts import Named, all_analyses, analysed_since, told_since
from ringfence.store.relational.workspaces import heads

_LOG = structlog.get_logger(__name__)
_SECOND = 10**9


class Promotions:
    """Knows how far scopes are, and takes back what was promoted and misdrops."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        watch: Watch,
        enforcement: Enforcement,
        trials: Trials,
        alerts: Alerts,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, watch.tenant
        self._watch, self._enforcement, self._trials = watch, enforcement, trials
        self._alerts, self._looked = alerts, asyncio.Event()
        self._following = Background("promotions", self._pause, self._look, metrics)

    async def start(self) -> None:
        """Heed alarms."""
        self._alerts.subscribe(self._looked.set)
        self._following.start()

    async def stop(self) -> None:
        """Heed no more."""
        await self._following.stop()

    async def facts(
        self, scope: ScopeName, criteria: Criteria
    ) -> tuple[Facts, tuple[WorkspaceName, Version] | None]:
        """How far a scope is, and with which version."""
        now_ns, tenant = self._clock(), self._tenant
        oldest = (await self._watch.store.query(OLDEST_WINDOW, {"tenant": tenant})).to_pylist()
        first_ns = oldest[0]["first_ns"] or now_ns
        observed = (now_ns - first_ns) // _SECOND
        async with self._database.read() as connection:
            found = [
                one for one in await heads(connection, tenant) if one.scope == scope and one.primary
            ]
            if not found:
                return Facts(Stage.OBSERVE, observed), None
            enforced = await enforced_now(connection, tenant)
            trial = await load_trial(connection, tenant)
            name = found[0].name
            version = dict(enforced.workspaces).get(name)
            is_enforced = version == found[0].latest
            named = name, found[0].latest
            asked = {
                (one.workspace, one.version): one.since_ns
                for one in await all_analyses(connection, tenant)
            }
            since_ns = enforced.since_ns if is_enforced else asked.get(named)
            quiet_ns = now_ns - criteria.quiet_seconds * _SECOND
            told = await told_since(connection, tenant, quiet_ns, now_ns, named)
            # What was judged beside it lately has a part in the counts, also if that was stopped.
            analysed = await analysed_since(connection, tenant, slot_of(quiet_ns, now_ns)[0])
            beside = await load_beside(connection, tenant, *named, analysed=analysed)
            deleted = await deleted_above(connection, tenant, name, analysed)
            if since_ns is not None and not is_enforced:
                # What came under analysis above it later, or in another's place, judges anew.
                since_ns = max(since_ns, *(asked.get(one, since_ns) for one in beside.versions), 0)
            before = NEVER
            if trial is not None:
                before = await enforced_at(connection, tenant, trial.previous)
        staged = (
            is_enforced
            and trial is not None
            and trial.nodes is not None
            and dict(before.workspaces).get(name) != version
        )
        stage = Stage.DISCOVER if since_ns is None else Stage.ANALYSE
        if is_enforced:
            stage = Stage.STAGED if staged else Stage.ENFORCED
        counts = dict.fromkeys(Category, 0)
        for one in told:
            counts[one.tally.cause.category] += one.tally.conversations
        seen = self._trials.seen
        facts = Facts(
            stage,
            observed,
            (now_ns - since_ns) // _SECOND if since_ns is not None else 0,
            counts[Category.PERMITTED],
            counts[Category.ESCAPED],
            counts[Category.MISDROPPED],
            seen.conversations if staged else 0,
            seen.unforeseen if staged else 0,
            enforced.revision if staged else 0,
            beside=tuple(f"{above}@p{number}" for above, number in beside.versions),
            deleted=tuple(f"{above}@p{number}" for above, number in deleted),
        )
        if stage is Stage.ANALYSE and facts.escaped and facts.coverage < criteria.coverage:
            escaped = [one.tally for one in told if one.tally.cause.category is Category.ESCAPED]
            span = quiet_ns, now_ns
            facts = replace(facts, noise=await self._noise(escaped, named, beside.versions, span))
        return facts, named

    async def _noise(
        self, escaped: list[Tally], named: Named, beside: Iterable[Named], span: Span
    ) -> int:
        """How many of the conversations that escaped are noise."""
        async with self._database.read() as connection:
            workspace, _ = await load_workspace(connection, self._tenant, *named)
            judged_by = await load_judged_by(connection, self._tenant, [*beside, named])
        return await noise_among(escaped, self._watch, judged_by, workspace, *span)

    async def demoted_ns(self, one: Promotion) -> int | None:
        """When what was promoted was taken back; None once something else of it is enforced."""
        if one.workspace is None or one.demoted_ns is None:
            return None
        since = one.demoted_ns, self._clock() + 1
        async with self._database.read() as connection:
            sets = await enforced_sets(connection, self._tenant, since)
        versions = {dict(each.workspaces).get(one.workspace) for each in sets}
        return one.demoted_ns if len(versions) <= 1 else None

    async def _pause(self) -> None:
        await self._looked.wait()
        self._looked.clear()

    async def alarm(self, one: Promotion) -> Alert | None:
        """The open alarm on which what was promoted is taken back, None for none."""
        named = one.workspace, one.version
        async with self._database.read() as connection:
            enforced = await enforced_now(connection, self._tenant)
            alerts = await load_alerts(connection, self._tenant)
        # Once taken back, it is a person's decision to enforce it again.
        taken_back = one.demoted_ns is not None
        if taken_back or not one.criteria.demote or named not in enforced.workspaces:
            return None
        alarms = (
            alert
            for alert in alerts
            if alert.cause.category is Category.MISDROPPED and alert.last_ns >= enforced.since_ns
        )
        return next((alarm for alarm in alarms if decided(alarm, one)), None)

    async def _look(self) -> None:
        async with self._database.read() as connection:
            every = await all_promotions(connection, self._tenant)
        for one in every:
            if alarm := await self.alarm(one):
                await self._demote(one, alarm)

    async def _demote(self, one: Promotion, alarm: Alert) -> None:
        """Enforce what was enforced of the workspace before, nothing of it if that was nothing."""
        assert one.workspace is not None
        assert one.version is not None
        why = describe(alarm)
        async with self._database.read() as connection:
            enforced = await enforced_now(connection, self._tenant)
            before = await version_before(connection, self._tenant, one.workspace, one.version)
        wanted: list[tuple[WorkspaceName, Version | None]] = [
            pair for pair in enforced.workspaces if pair[0] != one.workspace
        ]
        if before is not None:
            wanted.append((one.workspace, before))
        author = Author(Principal(ITSELF, self._tenant, Role.ADMIN, None), "promotion")
        try:
            await self._enforcement.enforce(wanted, [], author, enforced.revision)
        except ConflictError as error:
            _LOG.error("not demoted yet", scope=one.scope, problem=str(error))
            return
        now_ns = self._clock()
        demoted = Promotion(one.scope, one.criteria, one.workspace, one.version, now_ns, why)
        async with self._database.write() as connection:
            await put_promotion(connection, self._tenant, demoted)
            what = f"demoted {one.workspace}@p{one.version}: {why}"
            await author.note(connection, now_ns, what, about=f"scope/{one.scope}")
        _LOG.warning("demoted", scope=one.scope, reason=why)


def decided(alarm: Alert, one: Promotion) -> bool:
    """Whether a rule of what was promoted decided what raised an alarm."""
    return any(
        (rule.workspace, rule.version) == (one.workspace, one.version)
        for _, rule in alarm.cause.rules
    )


def describe(alarm: Alert) -> str:
    """An alarm as people read it."""
    cause = alarm.cause
    return f"alert {alarm.id}: misdropped {cause.consumer} to {cause.provider} {cause.port}"
