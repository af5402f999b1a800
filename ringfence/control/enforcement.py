"""What is enforced, and what each node has to do for it.

The desired state of a node is a function of the inventory, the scopes, the enforced versions and
the quarantines. It is worked out again, a moment after any of them changes, when a policy expires,
when a name in a policy gets or loses an address and when an address set holds something else, and
sent to the nodes for which it came out different. The ports that its Kubernetes cluster declares
go with it.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.audit import Author
from ringfence.control.background import Alarm, Background
from ringfence.control.compilation import Compilation, Surroundings, compile_nodes
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.judged import JudgedBy, load_judged_by
from ringfence.control.metrics import Metrics
from ringfence.control.plan import Plan, affected, describe_changes, in_force, refusal
from ringfence.control.policies import (
    load_enforced,
    load_shared,
    load_tree,
    load_workspace,
)
from ringfence.control.services import Clock
from ringfence.control.trial import (
    Asked,
    Task,
    begun,
    judged_before,
    refusal_on_trial,
    tasks,
    told_of,
)
from ringfence.inventory.ports import PortSet, declared_ports
from ringfence.model.errors import RingfenceError
from ringfence.model.fqdn import fqdn_matches
from ringfence.model.ids import ClusterId, TenantId, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.policy.document import Documents
from ringfence.policy.moment import expiries, patterns
from ringfence.policy.order import PolicySet
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import (
    Enforced,
    describe_set,
    enforce,
    enforced_now,
)
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.trials import begin_trial, end_trial, load_trial
from ringfence.wire.generated.agent_pb2 import DeclaredPort, Directive, Fallback

_LOG = structlog.get_logger(__name__)
_SETTLE_SECONDS = 0.1
_RETRY_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 120.0

Wanted = Sequence[tuple[WorkspaceName, Version | None]]
"""Workspaces to enforce, the latest version for None."""


@dataclass(frozen=True, slots=True)
class _Desired:
    """What one node has to do, and since when it is this."""

    revision: int
    task: Task


_NOTHING = _Desired(0, Task(b""))


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
        self._enforcing: bool | None = None
        self._patterns: frozenset[str] = frozenset()
        self._alarm = Alarm(self.touch)
        self._desired: dict[NodeKey, _Desired] = {}
        self._ports: dict[ClusterId, PortSet] = {}
        self._revision = 0
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
        self._inventory.subscribe(self.touch)
        self._inventory.names.subscribe(self._hear_names)
        self._inventory.address_sets.subscribe(self.touch)
        await self.refresh()
        self._following.start()

    async def stop(self) -> None:
        """Work nothing out any more; agents keep what they have."""
        self._alarm.cancel()
        await self._following.stop()

    def touch(self) -> None:
        """Something that the desired state depends on has changed."""
        self._dirty.set()

    async def refresh(self) -> None:
        """Work the desired state out now."""
        async with self._lock:
            await self._recompute()

    def _hear_names(self, names: frozenset[str]) -> None:
        if any(fqdn_matches(pattern, name) for pattern in self._patterns for name in names):
            self.touch()

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
                for protocol, port in sorted(self._ports.get(cluster, ()))
            ],
        )

    def desired_revision(self, node: NodeKey) -> int:
        """The revision that a node should report, 0 where nothing is enforced."""
        desired = self._desired.get(node) if self._enforcing else None
        return desired.revision if desired is not None else 0

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
        self, wanted: Wanted, overrides: Collection[Override], expected: int | None = None
    ) -> Plan:
        """What enforcing these workspaces, and no others, would change.

        Raises ConflictError where something else is enforced than at revision `expected`.
        """
        return (await self._plan(wanted, overrides, expected))[1]

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
        async with self._lock:
            current, plan, named = await self._plan(wanted, overrides, expected)
            if plan.refused:
                raise ConflictError(plan.refused)
            pairs = plan.workspaces
            if asked and pairs == current.workspaces:
                raise ConflictError("this is enforced already: there is nothing to try")
            if pairs != current.workspaces:
                now_ns, actor = self._clock(), author.principal.actor
                fresh = Enforced(plan.revision, pairs, actor, now_ns)
                what = f"enforced {describe_set(fresh)}{told_of(asked)}"
                async with self._database.write() as connection:
                    await self._refuse_changed(connection, pairs, named)
                    await enforce(connection, self._tenant, fresh)
                    await end_trial(connection, self._tenant)
                    if asked:
                        trial = begun(asked, fresh, current)
                        await begin_trial(connection, self._tenant, trial)
                    told = "\n".join(plan.changes)
                    await author.note(connection, now_ns, what, told, about="enforcement")
            await self._recompute()
        return plan

    async def _plan(
        self, wanted: Wanted, overrides: Collection[Override], expected: int | None
    ) -> tuple[Enforced, Plan, Documents]:
        """What is enforced now, what this changes, and of which documents it was worked out."""
        async with self._database.read() as connection:
            tree = await load_tree(connection, self._tenant)
            current = await enforced_now(connection, self._tenant)
            if expected not in (None, current.revision):
                raise ConflictError(
                    f"{current.actor} enforced something else meanwhile: see the new plan"
                )
            old = await load_enforced(connection, self._tenant)
            apart = await load_quarantines(connection, self._tenant)
            trial = await load_trial(connection, self._tenant)
            wanted = sorted(set(wanted), key=lambda pair: pair[0])
            new = [await load_workspace(connection, self._tenant, *pair) for pair in wanted]
            pairs = tuple((workspace.name, version) for workspace, version in new)
            named = await self._load(connection, pairs)
        snapshot = self._inventory.timeline.latest()
        moment = self._inventory.now()

        def work() -> Plan:
            before, problem = in_force(snapshot, tree, old, moment, apart)
            after = PolicySet(snapshot, tree, new, moment, apart)
            changes = tuple(describe_changes(old, new))
            return Plan(
                revision=current.revision + bool(changes),
                workspaces=pairs,
                changes=changes,
                workloads=affected(before, after),
                warnings=(
                    *([problem] if problem else []),
                    *compile_nodes(after, self.surroundings).warnings,
                ),
                # All rules may go at any time, and the trial with them.
                refused=refusal(after, overrides) or (refusal_on_trial(trial) if pairs else ""),
            )

        return current, await asyncio.to_thread(work), named

    async def _refuse_changed(
        self,
        connection: AsyncConnection,
        pairs: Sequence[tuple[WorkspaceName, Version]],
        named: Documents,
    ) -> None:
        """Raise ConflictError where the versions, or what they can name, are not these any more."""
        try:
            same = not pairs or await self._load(connection, pairs) == named
        except NotFoundError:
            same = False
        if not same:
            raise ConflictError(
                "what is to be enforced, or what it names, was changed meanwhile: see the new plan"
            )

    async def _load(
        self, connection: AsyncConnection, pairs: Iterable[tuple[WorkspaceName, Version]]
    ) -> Documents:
        """The versions, and all documents that they can name; raises NotFoundError."""
        found = [await load_workspace(connection, self._tenant, *pair) for pair in pairs]
        shared = await load_shared(connection, self._tenant)
        return replace(shared, workspaces=tuple(workspace for workspace, _ in found))

    async def _settle(self) -> None:
        """Until something has changed; what failed may have done so for a moment only."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_seconds if self.problem else None):
                await self._dirty.wait()
        longer = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._pause_seconds = longer if self.problem else _RETRY_SECONDS
        await asyncio.sleep(_SETTLE_SECONDS)
        self._dirty.clear()

    async def _follow(self) -> None:
        async with self._lock:
            try:
                await self._recompute()
            except Exception as error:
                self._fail(f"an error inside the control plane ({error!r})")
                raise

    async def _recompute(self) -> None:
        """Bring the directives up to date; on failure nodes keep what they have."""
        snapshot, moment = self._inventory.timeline.latest(), self._inventory.now()
        ports = self._ports
        self._ports = await asyncio.to_thread(declared_ports, snapshot.items)
        try:
            async with self._database.read() as connection:
                judged_by = await load_judged_by(connection, self._tenant)
                trial = await load_trial(connection, self._tenant)
                before = await judged_before(connection, self._tenant, judged_by, trial)
            enforced = (*judged_by.workspaces, *before.workspaces)
            self._patterns = frozenset(patterns(enforced))
            named = self._inventory.names.resolutions.instants(self._patterns)
            self._alarm.set((*expiries(enforced), *named), moment.at_ns)
            any_rules = bool(enforced or judged_by.quarantines or judged_by.live)

            def work(by: JudgedBy) -> Compilation:
                policy_set = by.ringfence(snapshot, moment)
                return compile_nodes(policy_set, self.surroundings, by.kubernetes(snapshot))

            nothing = Compilation({}, ())
            compilation = await asyncio.to_thread(work, judged_by) if any_rules else nothing
            fallback = await asyncio.to_thread(work, before) if trial else nothing
        except RingfenceError as error:
            self._fail(str(error))
            return
        nodes = tasks(compilation.nodes, fallback.nodes, trial)
        self.problem, self.warnings = "", compilation.warnings
        for_all = self._enforcing != any_rules or self._ports != ports
        self._enforcing = any_rules
        changed = [key for key, task in nodes.items() if self._renew(key, task)]
        self._desired = {key: self._desired[key] for key in nodes}
        self._agents.notify([agent.key for agent in self._agents.all()] if for_all else changed)

    def _fail(self, reason: str) -> None:
        self.problem = f"what is enforced cannot be turned into rules: {reason}"
        self._metrics.compile_failures.inc()
        _LOG.error("desired state unknown", reason=reason)

    def _renew(self, key: NodeKey, task: Task) -> bool:
        held = self._desired.get(key)
        if held is not None and held.task == task:
            return False
        # Grows over restarts too, without being stored.
        self._revision = max(self._revision + 1, self._clock() // 10**6)
        self._desired[key] = _Desired(self._revision, task)
        return True
