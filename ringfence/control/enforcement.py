"""What is enforced, and what each node has to do for it.

The desired state of a node is a function of the inventory, the scopes, the enforced versions and
the quarantines. It is worked out again, as far as it is touched, when any of them changes, when a
policy expires, when a name in a policy gets or loses an address and when an address set holds
something else, and sent to the nodes for which it came out different. The ports that its
Kubernetes cluster declares go with it. A change that comes alone is worked out at once; those that
follow it closely wait for each other.
"""

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.audit import Author
from ringfence.control.background import Alarm, Background
from ringfence.control.compilation import Compilation, Standing
from ringfence.control.errors import ConflictError
from ringfence.control.inventory import Inventory
from ringfence.control.judged import JudgedBy
from ringfence.control.metrics import Metrics
from ringfence.control.plan import Plan
from ringfence.control.planning import Planning, Wanted
from ringfence.control.policies import load_judged_by
from ringfence.control.times import Clock
from ringfence.control.trial import (
    Asked,
    Task,
    begun,
    judged_before,
    refusal_on_trial,
    tasks,
    told_of,
)
from ringfence.inventory.living import News
from ringfence.inventory.ports import DeclaredPorts
from ringfence.model.errors import RingfenceError
from ringfence.model.fqdn import fqdn_matches
from ringfence.model.ids import ItemKey, RevisionId, TenantId
from ringfence.model.override import Override
from ringfence.model.workload import Item
from ringfence.policy.moment import expiries, patterns
from ringfence.policy.nodes import Surroundings
from ringfence.store.relational.changes import last_change
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import (
    Enforced,
    describe_set,
    enforce,
    enforced_now,
)
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.trials import Trial, begin_trial, end_trial, load_trial
from ringfence.wire.generated.agent_pb2 import DeclaredPort, Directive, Fallback

_LOG = structlog.get_logger(__name__)
_LARGEST_REVISION = 1 << 62
_SETTLE_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Desired:
    """What one node has to do, and since when it is this."""

    revision: int
    task: Task


_NOTHING = _Desired(0, Task(b""))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is enforced as of a change of documents, by its number, and what time alone changes."""

    number: int
    judged_by: JudgedBy
    trial: Trial | None
    before: JudgedBy
    """By what to judge where the trial is taken back; with no workspaces without a trial."""
    patterns: frozenset[str]
    expiries: tuple[int, ...]


class Enforcement:
    """Decides, remembers and hands out what nodes enforce."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        inventory: Inventory,
        agents: Agents,
        metrics: Metrics,
        surroundings: Surroundings,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._inventory, self._agents, self._metrics = inventory, agents, metrics
        self.surroundings = surroundings
        self._planning = Planning(database, tenant, inventory, surroundings)
        self._enforcing: bool | None = None
        self._loaded: _Loaded | None = None
        self._patterns: frozenset[str] = frozenset()
        self._alarm = Alarm(clock, self._wake)
        self._altered = inventory.timeline.follow()
        self._news: dict[ItemKey, tuple[RevisionId, Item] | None] = {}
        """What is not compiled yet."""
        self._standing = Standing(surroundings)
        self._before: Standing | None = None
        """While something is on trial, what was enforced before."""
        self._desired: dict[NodeKey, _Desired] = {}
        self._ports = DeclaredPorts()
        self._other_ports = False
        """Whether agents are still to be told of other ones."""
        self._revision = 0
        self._settled_at = 0.0
        """From when on a change need not wait for others, by the event loop's clock."""
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()
        self._pause_seconds = _RETRY_SECONDS
        self._following = Background("enforcement", self._settle, self._follow, metrics)
        self.problem = ""
        """Why nodes still have an older state than they should; empty if they have not."""
        self.warnings: tuple[str, ...] = ()
        """Where the rules of now admit more than their policies say."""

    async def start(self) -> None:
        """Work out the desired state, and keep it up to date."""
        self._inventory.subscribe(self._wake)
        self._inventory.names.subscribe(self._hear_names)
        self._inventory.address_sets.subscribe(self._wake)
        await self.refresh()
        self._following.start()

    async def stop(self) -> None:
        """Work nothing out any more; agents keep what they have."""
        self._alarm.cancel()
        await self._following.stop()

    def touch(self) -> None:
        """Documents or quarantines that the desired state depends on have changed."""
        self._loaded = None
        self._wake()

    async def refresh(self) -> None:
        """Work the desired state out now, by the documents of now; where that fails, later too."""
        self.touch()
        async with self._lock:
            await self._recompute()

    def _hear_names(self, names: frozenset[str]) -> None:
        if any(fqdn_matches(pattern, name) for pattern in self._patterns for name in names):
            self._wake()

    def _wake(self) -> None:
        self._dirty.set()

    def directive(self, node: NodeKey) -> Directive | None:
        """What a node is to do; None where it is not known yet, so that it keeps what it has.

        How it reports is for `Modes` to fill in.
        """
        desired = self._desired.get(node) if self._enforcing is not False else _NOTHING
        if desired is None:
            return None
        cluster, name = node
        task = desired.task
        fallback = None
        if task.fallback is not None:
            fallback = Fallback(node_policy=task.fallback, at_ns=task.fallback_ns)
        return Directive(
            revision=desired.revision,
            node_policy=task.policy,
            kubernetes_cluster=cluster,
            node=name,
            fallback=fallback,
            declared_ports=[
                DeclaredPort(protocol=protocol, port=port)
                for protocol, port in sorted(self._ports.of(cluster))
            ],
        )

    def desired_revision(self, node: NodeKey) -> int:
        """The revision that a node should report, 0 where nothing is enforced."""
        desired = self._desired.get(node) if self._enforcing else None
        return desired.revision if desired is not None else 0

    def outgrow(self, node: NodeKey, reported: int) -> None:
        """Number a node's directive after the revision that its agent reports, if that is later.

        It is of a run before this one, whose clock was ahead.
        """
        desired = self._desired.get(node)
        if desired is not None and desired.revision < reported < _LARGEST_REVISION:
            self._desired[node] = replace(desired, revision=reported + 1)
            self._agents.notify([node])

    def problem_of(self, node: NodeKey) -> str:
        """Why there is no up-to-date directive for a node; empty if there is one."""
        if self.problem:
            return self.problem
        if self._enforcing is not False and node not in self._desired:
            return "the inventory does not hold this node: is the connector of its cluster running?"
        return ""

    async def current(self) -> Enforced:
        """The enforced set."""
        async with self._database.read() as connection:
            return await enforced_now(connection, self._tenant)

    async def plan(
        self,
        wanted: Wanted,
        overrides: Collection[Override],
        expected: int | None = None,
        asked: Asked | None = None,
    ) -> Plan:
        """What enforcing these workspaces, and no others, would change; `asked` as in `enforce`.

        Raises ConflictError where something else is enforced than at revision `expected`.
        """
        return (await self._planning.plan(wanted, overrides, expected, asked))[1]

    async def enforce(
        self,
        wanted: Wanted,
        overrides: Collection[Override],
        author: Author,
        expected: int | None = None,
        asked: Asked | None = None,
    ) -> Plan:
        """Enforce these workspaces and no others; raises ConflictError where that is refused.

        It is as well where something else is enforced by now than at revision `expected`. `asked`
        for a trial, it is to be taken back unless that goes well. On return the nodes' directives
        are worked out, though not yet in force.
        """
        # A plan takes its time, and a quarantine does not wait for it.
        current, plan, named = await self._planning.plan(wanted, overrides, expected, asked)
        if plan.refused:
            raise ConflictError(plan.refused)
        pairs = plan.workspaces
        async with self._lock:
            if asked and pairs == current.workspaces:
                raise ConflictError("this is enforced already: there is nothing to try")
            if pairs != current.workspaces:
                now_ns, actor = self._clock(), author.principal.actor
                staged_until_ns = None if asked and asked.nodes is not None else 0
                fresh = Enforced(plan.revision, pairs, actor, now_ns, staged_until_ns)
                what = f"enforced {describe_set(fresh)}{told_of(asked)}"
                async with self._database.write() as connection:
                    await self._refuse_changed(connection, current, off=not (pairs or asked))
                    await self._planning.refuse_changed(connection, pairs, named)
                    await enforce(connection, self._tenant, fresh)
                    await self._end_trial(connection)
                    if asked:
                        trial = begun(asked, fresh, current)
                        await begin_trial(connection, self._tenant, trial)
                    told = "\n".join(plan.changes)
                    await author.note(connection, now_ns, what, told, about="enforcement")
            elif not pairs:
                await self._keep_off(current, author)
            self._wake()  # so that it is done in the background where it fails here
            await self._recompute()
        return plan

    async def _keep_off(self, current: Enforced, author: Author) -> None:
        """End a trial of no rules, so that none come back; raises ConflictError."""
        async with self._database.write() as connection:
            await self._refuse_changed(connection, current, off=True)
            if await self._end_trial(connection):
                what = f"confirmed revision {current.revision}"
                await author.note(connection, self._clock(), what, "", about="enforcement")

    async def _refuse_changed(
        self, connection: AsyncConnection, planned_on: Enforced, *, off: bool
    ) -> None:
        """Raise ConflictError where a plan, of no rules at all if `off`, does not hold any more."""
        if await enforced_now(connection, self._tenant) != planned_on:
            raise ConflictError(
                "something else was enforced meanwhile: run it again to see the new plan"
            )
        trial = await load_trial(connection, self._tenant)
        if not off and (why := refusal_on_trial(trial)):
            raise ConflictError(why)

    async def _end_trial(self, connection: AsyncConnection) -> bool:
        """End a trial of an enforced set, if one is under way; whether one was."""
        trial = await load_trial(connection, self._tenant)
        if trial is None or trial.cluster is not None:
            return False
        await end_trial(connection, self._tenant)
        return True

    async def _settle(self) -> None:
        """Until something has changed; what failed may have done so for a moment only."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_seconds if self.problem else None):
                await self._dirty.wait()
        longer = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._pause_seconds = longer if self.problem else _RETRY_SECONDS
        now = asyncio.get_running_loop().time
        await asyncio.sleep(max(self._settled_at - now(), 0))
        self._dirty.clear()

    async def _follow(self) -> None:
        async with self._lock:
            try:
                await self._recompute()
                self._settled_at = asyncio.get_running_loop().time() + _SETTLE_SECONDS
            except Exception as error:
                self._fail(f"an error inside the control plane ({error!r})")
                raise

    async def _recompute(self) -> None:
        """Bring the directives up to date; on failure nodes keep what they have."""
        self._other_ports |= self._hear()
        try:
            loaded = await self._load_enforced()
            moment, judged_by = self._inventory.now(loaded.patterns), loaded.judged_by
            self._patterns = loaded.patterns
            named = self._inventory.names.resolutions.instants(self._patterns)
            self._alarm.set((*loaded.expiries, *named), moment.at_ns)
            sides = judged_by, loaded.before
            any_rules = any(one.workspaces or one.quarantines or one.live for one in sides)
            compilation = fallback = Compilation({}, ())
            news = dict(self._news)
            if any_rules:
                standing, before = await self._stand(loaded)
                compilation = await asyncio.to_thread(standing.compile, judged_by, news, moment)
                if before:
                    work = before.compile
                    fallback = await asyncio.to_thread(work, loaded.before, news, moment)
            else:
                self._before = None
                await asyncio.to_thread(self._standing.rest, news)
            self._forget(news)
        except RingfenceError as error:
            self._fail(str(error))
            return
        nodes = tasks(compilation.nodes, fallback.nodes, loaded.trial)
        self.problem, self.warnings = "", compilation.warnings
        for_all = self._enforcing != any_rules or self._other_ports
        self._enforcing = any_rules
        changed = [key for key, task in nodes.items() if self._renew(key, task)]
        self._desired = {key: self._desired[key] for key in nodes}
        self._agents.notify([agent.key for agent in self._agents.all()] if for_all else changed)
        self._other_ports = False

    def _hear(self) -> bool:
        """Take up what items have become; whether other ports are declared now."""
        fresh = {key: self._inventory.timeline.living(key) for key in self._altered}
        self._altered.clear()
        self._news |= fresh
        return self._ports.take({key: now[1] if now else None for key, now in fresh.items()})

    def _forget(self, news: News) -> None:
        """These news are compiled; newer ones of the same items are not."""
        for key, now in news.items():
            if key in self._news and self._news[key] is now:
                del self._news[key]

    async def _load_enforced(self) -> _Loaded:
        """What is enforced, read again only where a document has changed since."""
        async with self._database.read() as connection:
            number, known = await last_change(connection, self._tenant), self._loaded
            if known is not None and known.number == number:
                # What quarantines hold is written down without being a change of anybody's.
                held = tuple(await load_quarantines(connection, self._tenant))
                return replace(
                    known,
                    judged_by=replace(known.judged_by, quarantines=held),
                    before=replace(known.before, quarantines=held),
                )
            judged_by = await load_judged_by(connection, self._tenant)
            trial = await load_trial(connection, self._tenant)
            before = await judged_before(connection, self._tenant, judged_by, trial)
        enforced = (*judged_by.workspaces, *before.workspaces)
        told = frozenset(patterns(enforced)), tuple(expiries(enforced))
        self._loaded = loaded = _Loaded(number, judged_by, trial, before, *told)
        return loaded

    async def _stand(self, loaded: _Loaded) -> tuple[Standing, Standing | None]:
        """Where what is enforced stands compiled, and what was before a trial.

        What stands compiled when a trial begins is the set before it, so going back takes no time.
        """
        if loaded.trial and self._before is None:
            # In a thread: one that was given up may still compile, and holds what stands.
            forked = await asyncio.to_thread(self._standing.fork)
            self._standing, self._before = forked, self._standing
        if not loaded.trial and self._before is not None:
            if self._before.is_of(loaded.judged_by):
                self._standing = self._before
            self._before = None
        return self._standing, self._before

    def _fail(self, reason: str) -> None:
        self.problem = f"what is enforced cannot be turned into rules: {reason}"
        self._metrics.compile_failures.inc()
        _LOG.error("desired state unknown", reason=reason)

    def _renew(self, key: NodeKey, task: Task) -> bool:
        held = self._desired.get(key)
        if held is not None and held.task == task:
            return False
        # Grows over restarts too, without being stored; where the clock was set back see `outgrow`.
        self._revision = max(self._revision + 1, self._clock() // 10**6)
        revision = max(self._revision, held.revision + 1) if held else self._revision
        self._desired[key] = _Desired(revision, task)
        return True
