"""Keeps requests between workspaces: raises, grants, refuses and closes them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.answering import ITSELF, Actor, Answering, about_request, name_request
from ringfence.control.audit import Author
from ringfence.control.background import Alarm, Background, attempt
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.metrics import Metrics
from ringfence.control.policies import load_tree, load_workspace
from ringfence.control.times import Clock
from ringfence.inventory.contents import Sets, sets_with
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address_set import AddressSet
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.protocol import PortRange
from ringfence.model.query import Query
from ringfence.model.scope import InventoryFilter, Scope, ScopeTree
from ringfence.policy.approval import Answers, Approvals
from ringfence.policy.document import Documents
from ringfence.policy.moment import Moment, expiries
from ringfence.policy.requests import Needed, needed
from ringfence.store.errors import StaleError
from ringfence.store.relational.database import Database
from ringfence.store.relational.requests import (
    HeldRequest,
    add_approval_rule,
    load_approval_rules,
    load_requests,
    put_requests,
    remove_approval_rule,
)
from ringfence.store.relational.workspaces import heads

_SETTLE_SECONDS = 60.0
_ATTEMPTS = 3
"""How often requests are looked at anew, where people decide otherwise meanwhile."""
_ID_DIGITS = 16
_Asked = tuple[
    tuple[Scope, ...], tuple[InventoryFilter, ...], tuple[Workspace, ...], Sets, tuple[int, ...]
]
"""All that the answer depends on, besides the inventory: at the end what has expired."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """What people decided, from which answers to requests follow."""

    scopes: tuple[Scope, ...]
    filters: tuple[InventoryFilter, ...]
    latest: tuple[tuple[Workspace, Version], ...]
    """The primary workspaces as of their latest versions."""
    rules: tuple[ApprovalRule, ...]

    @property
    def tree(self) -> ScopeTree:
        """The scopes and named filters."""
        return ScopeTree(self.scopes, self.filters)

    @property
    def workspaces(self) -> list[Workspace]:
        """The workspaces, without their versions."""
        return [one for one, _ in self.latest]


class Requests:
    """Owns the requests and the rules that approve them.

    Needed is what the latest versions of all primary workspaces ask of each other. It is worked
    out again when one of them is applied, the inventory has changed or a policy has expired.
    """

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        inventory: Inventory,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._inventory = inventory
        self._answering = Answering(clock, tenant)
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()
        self._following = Background("requests", self._settle, self.refresh, metrics)
        self._alarm = Alarm(clock, self._dirty.set)
        self._last: tuple[Snapshot, _Asked, Needed] | None = None

    async def start(self) -> None:
        """Look at what is needed, and again when the inventory has changed or a policy expired."""
        self._dirty.set()
        self._inventory.subscribe(self._dirty.set)
        self._inventory.address_sets.subscribe(self._dirty.set)
        self._following.start()

    async def stop(self) -> None:
        """Follow it no more."""
        self._alarm.cancel()
        await self._following.stop()

    async def all(self) -> list[HeldRequest]:
        """Every request, the latest first."""
        async with self._database.read() as connection:
            return await load_requests(connection, self._tenant)

    async def rules(self) -> list[ApprovalRule]:
        """Every rule, the oldest first."""
        async with self._database.read() as connection:
            return await load_approval_rules(connection, self._tenant)

    async def foresee(
        self, tree: ScopeTree, held: Documents, given: Documents
    ) -> list[HeldRequest]:
        """What the given workspaces would need, or have been answered; changes nothing."""
        known = {one.id: one for one in await self.all()}
        after = {one.name: one for one in (*held.workspaces, *given.workspaces)}
        primaries = [one for one in after.values() if one.primary]
        found = await self._needed(tree, primaries, self._moment(given.address_sets))
        asking = {one.name for one in given.workspaces}
        its = [one for one in found.requests if one.workspace in asking]
        fresh = [one for one in its if one.id not in known]
        known |= {
            one.id: one for one in self._answering.raised(fresh, primaries, State.PENDING, ITSELF)
        }
        return [known[one.id] for one in its]

    async def refresh(self) -> None:
        """Raise, grant by rules and close what is to be; raises StoreError.

        Where people decide otherwise meanwhile, it is looked at anew.
        """
        async with self._lock:
            for _ in range(_ATTEMPTS - 1):
                with contextlib.suppress(StaleError):
                    await self._refresh()
                    return
            await self._refresh()

    async def follow(self) -> str:
        """Refresh, now or later; why not now, empty if it is done."""
        return await attempt(self.refresh, self._dirty.set)

    async def _refresh(self) -> None:
        async with self._database.read() as connection:
            decided = await self._decided(connection)
            states = {one.id: one.state for one in await load_requests(connection, self._tenant)}
        self._alarm.set(expiries(decided.latest), self._clock())
        tree = decided.tree
        moment = self._moment()
        found = await self._needed(tree, decided.workspaces, moment)
        approvals = Approvals(self._inventory.timeline.latest(), tree, decided.rules, moment)
        answers = await asyncio.to_thread(approvals.decide, states, found)
        if answers != Answers((), (), ()):
            async with self._database.write() as connection:
                await self._refuse_changed(connection, decided)
                await self._answering.answer(connection, answers, decided.latest)

    async def approve(self, identifier: str, reason: str, author: Author) -> HeldRequest:
        """Add a new version, with what is requested, to the workspace that was asked.

        Raises NotFoundError for no such request, ConflictError where it is needed no longer or
        cannot be granted, StaleError where people decide otherwise meanwhile.
        """
        async with self._lock:
            async with self._database.read() as connection:
                held = await self._find(identifier, connection)
                decided = await self._decided(connection)
            found = await self._needed(decided.tree, decided.workspaces, self._moment())
            request = next((one for one in found.requests if one.id == identifier), None)
            if request is None:
                if held.state is State.APPROVED:
                    return held
                raise ConflictError(f"request {identifier} is needed no longer")
            actor = Actor(author.principal.actor, author.source)
            try:
                async with self._database.write() as connection:
                    await self._refuse_changed(connection, decided)
                    await self._answering.grant(
                        connection, [request], decided.latest, actor, reason
                    )
                    held = await self._find(identifier, connection)
            except InputError as error:
                raise ConflictError(f"request {identifier} cannot be granted: {error}") from error
        await self.follow()
        return held

    async def reject(self, identifier: str, reason: str, author: Author) -> HeldRequest:
        """Refuse a request, now and when it is raised again; raises NotFoundError, ConflictError.

        What was approved is in a version of the workspace: there it is to be taken out.
        """
        async with self._lock:
            async with self._database.read() as connection:
                held = await self._find(identifier, connection)
            if held.state is State.APPROVED:
                raise ConflictError(
                    f"request {identifier} is approved: apply workspace "
                    f"{held.provider_workspace} without the policy instead"
                )
            now_ns, actor = self._clock(), author.principal.actor
            refused = replace(
                held, state=State.REJECTED, reason=reason, actor=actor, changed_ns=now_ns
            )
            async with self._database.write() as connection:
                await put_requests(connection, self._tenant, [refused])
                await author.note(
                    connection,
                    now_ns,
                    f"rejected {name_request(held)}",
                    reason,
                    about=about_request(held.id),
                )
        return refused

    async def add_rule(
        self,
        workspace: WorkspaceName,
        scope: ScopeName,
        provider: Query | None,
        traffic: tuple[int | None, tuple[PortRange, ...]],
        author: Author,
    ) -> ApprovalRule:
        """Have requests to a workspace approved at once, pending ones too.

        Raises InputError or NotFoundError for a scope or workspace that there is not.
        """
        protocol, ports = traffic
        now_ns, actor = self._clock(), author.principal.actor
        meaning = repr((workspace, scope, str(provider), protocol, ports))
        identifier = hashlib.sha256(meaning.encode()).hexdigest()[:_ID_DIGITS]
        rule = ApprovalRule(identifier, workspace, scope, provider, protocol, ports, actor, now_ns)
        async with self._database.write() as connection:
            (await load_tree(connection, self._tenant))[scope]
            await load_workspace(connection, self._tenant, workspace)
            for one in await load_approval_rules(connection, self._tenant):
                if one.id == identifier:
                    return one
            await add_approval_rule(connection, self._tenant, rule)
            what = f"workspace {workspace} approves requests of scope {scope} (rule {identifier})"
            await author.note(connection, now_ns, what, about=f"workspace/{workspace}")
        await self.follow()
        return rule

    async def remove_rule(self, identifier: str, author: Author) -> None:
        """Take a rule away; what it approved stays. Raises NotFoundError."""
        async with self._database.write() as connection:
            held = await load_approval_rules(connection, self._tenant)
            if identifier not in {one.id for one in held}:
                raise NotFoundError(f"there is no rule {identifier!r}")
            await remove_approval_rule(connection, self._tenant, identifier)
            what, about = f"removed approval rule {identifier}", f"rule/{identifier}"
            await author.note(connection, self._clock(), what, about=about)

    async def _find(self, identifier: str, connection: AsyncConnection) -> HeldRequest:
        for one in await load_requests(connection, self._tenant):
            if one.id == identifier:
                return one
        raise NotFoundError(f"there is no request {identifier!r}; see `ringfence requests list`")

    async def _decided(self, connection: AsyncConnection) -> _Decided:
        tree = await load_tree(connection, self._tenant)
        latest = [
            await load_workspace(connection, self._tenant, head.name)
            for head in await heads(connection, self._tenant)
            if head.primary
        ]
        rules = await load_approval_rules(connection, self._tenant)
        return _Decided(tree.preorder(), tuple(tree.filters.values()), tuple(latest), tuple(rules))

    async def _refuse_changed(self, connection: AsyncConnection, decided: _Decided) -> None:
        """Raise StaleError where this is not what people decided any more."""
        if await self._decided(connection) != decided:
            raise StaleError("policies, scopes or rules were changed meanwhile; try again")

    def _moment(self, given: Iterable[AddressSet] = ()) -> Moment:
        """What policies ask for now; what DNS tells comes and goes, and raises nothing."""
        now = self._inventory.now()
        return Moment(now.at_ns, sets=sets_with(now.sets, given))

    async def _needed(
        self, tree: ScopeTree, workspaces: Iterable[Workspace], moment: Moment
    ) -> Needed:
        """What is needed; a question that is asked again at once is not worked out again."""
        snapshot = self._inventory.timeline.latest()
        ordered = tuple(sorted(workspaces, key=lambda one: one.name))
        versions = ((one, Version(0)) for one in ordered)
        expired = tuple(sorted({at for at in expiries(versions) if at <= moment.at_ns}))
        filters = tuple(tree.filters.values())
        asked = (tree.preorder(), filters, ordered, moment.sets, expired)
        if self._last is None or self._last[0] is not snapshot or self._last[1] != asked:
            found = await asyncio.to_thread(needed, snapshot, tree, ordered, moment)
            self._last = snapshot, asked, found
        return self._last[2]

    async def _settle(self) -> None:
        """Until something has changed, and a while more, for much changes together."""
        await self._dirty.wait()
        await asyncio.sleep(_SETTLE_SECONDS)
        self._dirty.clear()
