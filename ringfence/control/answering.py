"""Writes down how requests between workspaces are answered, and the versions that grant them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.times import Clock
from ringfence.control.writing import store_workspace
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.ids import TenantId, Version
from ringfence.model.policy import Workspace
from ringfence.policy.approval import Answers
from ringfence.policy.difference import Change as DocumentChange
from ringfence.policy.difference import difference
from ringfence.policy.document import Documents
from ringfence.policy.requests import Request, grant
from ringfence.store.relational.changes import Change, add_change
from ringfence.store.relational.requests import (
    HeldRequest,
    load_requests,
    put_requests,
    remove_requests,
)

Versions = Sequence[tuple[Workspace, Version]]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and from where."""

    name: str
    source: str


ITSELF = Actor("ringfence", "policies and inventory")


class Answering:
    """Writes answers in the transactions of others."""

    def __init__(self, clock: Clock, tenant: TenantId) -> None:
        self._clock, self._tenant = clock, tenant

    async def answer(self, connection: AsyncConnection, answers: Answers, latest: Versions) -> None:
        """Raise, close and grant what the answers say."""
        now_ns = self._clock()
        workspaces = [one for one, _ in latest]
        raised = self.raised(answers.raised, workspaces, State.PENDING, ITSELF)
        await put_requests(connection, self._tenant, raised)
        await remove_requests(connection, self._tenant, answers.closed)
        for identifier, what in (
            *((one.id, f"raised {name_request(one)}") for one in raised),
            *((one, f"closed request {one}: it is needed no longer") for one in answers.closed),
        ):
            about = about_request(identifier)
            change = Change(now_ns, ITSELF.name, ITSELF.source, about, what, "")
            await add_change(connection, self._tenant, change)
        by_rule: dict[str, tuple[ApprovalRule, list[Request]]] = {}
        for request, rule in answers.granted:
            by_rule.setdefault(rule.id, (rule, []))[1].append(request)
        for rule, some in by_rule.values():
            reason = f"by rule {rule.id}"
            actor = Actor(rule.actor, reason)
            latest = await self.grant(connection, some, latest, actor, reason)

    async def grant(
        self,
        connection: AsyncConnection,
        granted: Collection[Request],
        latest: Versions,
        actor: Actor,
        reason: str,
    ) -> Versions:
        """Write new versions of the workspaces that are asked, and return the latest ones."""
        now_ns, after = self._clock(), list[tuple[Workspace, Version]]()
        workspaces = [one for one, _ in latest]
        since = {one.id: one.raised_ns for one in await load_requests(connection, self._tenant)}
        held = [
            replace(one, raised_ns=since.get(one.id, now_ns))
            for one in self.raised(granted, workspaces, State.APPROVED, actor, reason)
        ]
        await put_requests(connection, self._tenant, held)
        for workspace, version in latest:
            its = [one for one in granted if one.provider_workspace == workspace.name]
            fresh = grant(workspace, its)
            after.append((fresh, Version(version + (fresh != workspace))))
            if fresh == workspace:
                continue
            (change,) = _compare(workspace, fresh)
            await store_workspace(connection, self._tenant, after[-1], actor.name, now_ns)
            what = f"approved requests to workspace {fresh.name}: {', '.join(o.id for o in its)}"
            about = f"workspace/{fresh.name}"
            told = "\n".join((*change.lines, reason) if reason else change.lines)
            noted = Change(now_ns, actor.name, actor.source, about, what, told)
            await add_change(connection, self._tenant, noted)
        return after

    def raised(
        self,
        requests: Iterable[Request],
        workspaces: Iterable[Workspace],
        state: State,
        actor: Actor,
        reason: str = "",
    ) -> list[HeldRequest]:
        """The requests as they are kept."""
        held = {one.name: one for one in workspaces}
        now_ns = self._clock()
        return [
            HeldRequest(
                one.id,
                state,
                one.workspace,
                one.policy,
                one.provider_workspace,
                "\n".join(_told(held[one.provider_workspace], one)),
                reason,
                actor.name,
                now_ns,
                now_ns,
            )
            for one in requests
        ]


def _compare(old: Workspace, new: Workspace) -> list[DocumentChange]:
    return difference(Documents(workspaces=(old,)), Documents(workspaces=(new,)))


def _told(workspace: Workspace, request: Request) -> Iterable[str]:
    """What granting the request changes in the workspace, for whom, and despite what."""
    granted, held = grant(workspace, [request]), {one.id for one in workspace.policies}
    added = tuple(one for one in granted.policies if one.id not in held)
    if added:  # nothing else changes then, and a large workspace need not be compared
        workspace, granted = (replace(workspace, policies=some) for some in ((), added))
    yield from _compare(workspace, granted)[0].lines
    if request.anybody:
        yield f"for consumers outside scope {request.scope} too"
    if request.denied_by:
        yield f"ahead of its {', '.join(request.denied_by)}, which denies"


def about_request(identifier: str) -> str:
    """What a change of a request is about."""
    return f"request/{identifier}"


def name_request(held: HeldRequest) -> str:
    """The request, with both workspaces, in a sentence."""
    return (
        f"request {held.id} of {held.workspace}/{held.policy} "
        f"to workspace {held.provider_workspace}"
    )
