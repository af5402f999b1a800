"""Requests between workspaces, what was answered, and the rules that answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model import query
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.ids import PolicyId, ScopeName, TenantId, WorkspaceName
from ringfence.model.protocol import PortRange
from ringfence.store.relational.tables import approval_rules, requests


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request and its state; `text` is what granting it changes in the provider's workspace.

    `actor` answered it, or raised it if nobody has, at `changed_ns`; `reason` is the answer's.
    """

    id: str
    state: State
    workspace: WorkspaceName
    policy: PolicyId
    provider_workspace: WorkspaceName
    text: str
    reason: str
    actor: str
    raised_ns: int
    changed_ns: int


async def load_requests(connection: AsyncConnection, tenant: TenantId) -> list[HeldRequest]:
    """Every request, the latest first."""
    wanted = select(requests).where(requests.c.tenant == tenant)
    rows = await connection.execute(wanted.order_by(requests.c.changed_ns.desc(), requests.c.id))
    return [
        HeldRequest(
            row.id,
            State(row.state),
            WorkspaceName(row.workspace),
            PolicyId(row.policy),
            WorkspaceName(row.provider_workspace),
            row.text,
            row.reason,
            row.actor,
            row.raised_ns,
            row.changed_ns,
        )
        for row in rows
    ]


async def put_requests(
    connection: AsyncConnection, tenant: TenantId, held: Iterable[HeldRequest]
) -> None:
    """Write requests down, each in the place of what was known of it."""
    for one in held:
        await remove_requests(connection, tenant, [one.id])
        await connection.execute(
            insert(requests).values(
                tenant=tenant,
                id=one.id,
                state=one.state.value,
                workspace=one.workspace,
                policy=one.policy,
                provider_workspace=one.provider_workspace,
                text=one.text,
                reason=one.reason,
                actor=one.actor,
                raised_ns=one.raised_ns,
                changed_ns=one.changed_ns,
            )
        )


async def remove_requests(
    connection: AsyncConnection, tenant: TenantId, ids: Iterable[str]
) -> None:
    """Forget requests."""
    for one in ids:
        same = (requests.c.tenant == tenant, requests.c.id == one)
        await connection.execute(delete(requests).where(*same))


async def load_approval_rules(connection: AsyncConnection, tenant: TenantId) -> list[ApprovalRule]:
    """Every rule, the oldest first."""
    held = approval_rules
    wanted = select(held).where(held.c.tenant == tenant).order_by(held.c.created_ns, held.c.id)
    return [
        ApprovalRule(
            row.id,
            WorkspaceName(row.provider_workspace),
            ScopeName(row.scope),
            query.parse(row.provider) if row.provider is not None else None,
            row.protocol,
            tuple(PortRange(first, last) for first, last in row.ports),
            row.actor,
            row.created_ns,
        )
        for row in await connection.execute(wanted)
    ]


async def add_approval_rule(
    connection: AsyncConnection, tenant: TenantId, rule: ApprovalRule
) -> None:
    """Add a rule; fails on one that exists (StaleError)."""
    await connection.execute(
        insert(approval_rules).values(
            tenant=tenant,
            id=rule.id,
            provider_workspace=rule.provider_workspace,
            scope=rule.scope,
            provider=None if rule.provider is None else str(rule.provider),
            protocol=rule.protocol,
            ports=[[one.first, one.last] for one in rule.ports],
            actor=rule.actor,
            created_ns=rule.created_ns,
        )
    )


async def remove_approval_rule(connection: AsyncConnection, tenant: TenantId, rule: str) -> None:
    """Take a rule away; what it has approved stays."""
    held = approval_rules
    await connection.execute(delete(held).where(held.c.tenant == tenant, held.c.id == rule))
