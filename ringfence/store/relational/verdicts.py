"""Which versions are under analysis, and the counts of what analysis found, by time and cause."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Text, cast, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.flow import Category
from ringfence.model.ids import PolicyId, TenantId, Version, WorkspaceName
from ringfence.model.tally import Cause, Tally
from ringfence.model.verdict import Decision, EndRole
from ringfence.store.relational.tables import analyses, past_analyses
from ringfence.store.relational.tables import verdicts as held

Named = tuple[WorkspaceName, Version]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A version that is under analysis, who began it and when, epoch ns."""

    workspace: WorkspaceName
    version: Version
    actor: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class Told:
    """What was found of a version in a time, [start, end) in epoch ns."""

    named: Named
    start_ns: int
    end_ns: int
    enforced: bool
    tally: Tally


async def all_analyses(connection: AsyncConnection, tenant: TenantId) -> list[Analysis]:
    """Those under way, by name and version."""
    wanted = select(analyses).where(analyses.c.tenant == tenant)
    rows = await connection.execute(wanted.order_by(analyses.c.workspace, analyses.c.version))
    return [Analysis(row.workspace, row.version, row.actor, row.since_ns) for row in rows]


async def begin_analysis(connection: AsyncConnection, tenant: TenantId, one: Analysis) -> None:
    """Begin one; fails where it is under way (StaleError)."""
    await connection.execute(
        insert(analyses).values(
            tenant=tenant,
            workspace=one.workspace,
            version=one.version,
            actor=one.actor,
            since_ns=one.since_ns,
        )
    )


async def end_analysis(
    connection: AsyncConnection, tenant: TenantId, named: Named, now_ns: int
) -> bool:
    """End one; whether it was under way. What it found stays."""
    workspace, version = named
    ended = await connection.scalar(
        delete(analyses)
        .where(
            analyses.c.tenant == tenant,
            analyses.c.workspace == workspace,
            analyses.c.version == version,
        )
        .returning(analyses.c.since_ns)
    )
    if ended is None:
        return False
    row = {"workspace": workspace, "version": version, "since_ns": ended, "until_ns": now_ns}
    await connection.execute(insert(past_analyses).values(tenant=tenant, **row))
    return True


async def analysed_since(
    connection: AsyncConnection, tenant: TenantId, since_ns: int
) -> list[Named]:
    """The versions that are under analysis, or were so at some time since then, epoch ns."""
    past = past_analyses.c
    rows = await connection.execute(
        select(past.workspace, past.version).where(past.tenant == tenant, past.until_ns > since_ns)
    )
    ended = [(WorkspaceName(row.workspace), Version(row.version)) for row in rows]
    return ended + [(one.workspace, one.version) for one in await all_analyses(connection, tenant)]


async def asked_for(
    connection: AsyncConnection, tenant: TenantId, named: Named, now_ns: int
) -> list[tuple[int, int]]:
    """When somebody had a version under analysis: [start, end) in epoch ns, the oldest first."""
    workspace, version = named
    held = past_analyses.c
    rows = await connection.execute(
        select(held.since_ns, held.until_ns)
        .where(held.tenant == tenant, held.workspace == workspace, held.version == version)
        .order_by(held.since_ns)
    )
    spans = [(row.since_ns, row.until_ns) for row in rows]
    under_way = await all_analyses(connection, tenant)
    return spans + [(o.since_ns, now_ns) for o in under_way if (o.workspace, o.version) == named]


async def put_told(
    connection: AsyncConnection,
    tenant: TenantId,
    span: tuple[int, int],
    told: Iterable[Told],
    *,
    of: Iterable[Named] | None = None,
) -> None:
    """Write down what was found within a time, in place of what stood there: `of` these versions.

    None means of all.
    """
    start_ns, end_ns = span
    within = delete(held).where(
        held.c.tenant == tenant, held.c.start_ns >= start_ns, held.c.start_ns < end_ns
    )
    if of is None:
        await connection.execute(within)
    for workspace, version in of or ():
        await connection.execute(
            within.where(held.c.workspace == workspace, held.c.version == version)
        )
    rows = [
        {
            "tenant": tenant,
            "workspace": one.named[0],
            "version": one.named[1],
            "start_ns": one.start_ns,
            "end_ns": one.end_ns,
            "enforced": one.enforced,
            "category": one.tally.cause.category,
            "rules": {role: msgspec.to_builtins(rule) for role, rule in one.tally.cause.rules},
            "consumer": one.tally.cause.consumer,
            "provider": one.tally.cause.provider,
            "protocol": one.tally.cause.protocol,
            "port": one.tally.cause.port,
            "conversations": one.tally.conversations,
            "last_ns": one.tally.last_ns,
        }
        for one in told
    ]
    if rows:
        await connection.execute(insert(held), rows)


async def told_since(
    connection: AsyncConnection,
    tenant: TenantId,
    since_ns: int,
    until_ns: int,
    named: Named | None = None,
    *,
    categories: Iterable[Category] = Category,
    enforced: bool = False,
) -> list[Told]:
    """What was found of times that have a part of [since, until), the oldest first.

    Of one version if one is `named`; with `enforced` only while the version was.
    """
    wanted = select(held).where(
        held.c.tenant == tenant,
        held.c.end_ns > since_ns,
        held.c.start_ns < until_ns,
        held.c.category.in_(list(categories)),
    )
    if named is not None:
        wanted = wanted.where(held.c.workspace == named[0], held.c.version == named[1])
    if enforced:
        wanted = wanted.where(held.c.enforced)
    return list(map(_told, await connection.execute(wanted.order_by(held.c.start_ns, held.c.id))))


async def last_decided(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName
) -> dict[tuple[Version, PolicyId], int]:
    """When each policy of each version of a workspace last decided anything, epoch ns."""
    rules = cast(held.c.rules, Text)
    wanted = select(held.c.version, rules.label("rules"), func.max(held.c.last_ns).label("last_ns"))
    wanted = wanted.where(held.c.tenant == tenant, held.c.workspace == workspace)
    found: dict[tuple[Version, PolicyId], int] = {}
    for row in await connection.execute(wanted.group_by(held.c.version, rules)):
        for rule in msgspec.json.decode(row.rules, type=dict[EndRole, Decision]).values():
            if rule.policy and (rule.workspace, rule.version) == (workspace, row.version):
                key = rule.version, rule.policy
                found[key] = max(found.get(key, 0), row.last_ns)
    return found


async def oldest_told(connection: AsyncConnection, tenant: TenantId) -> int | None:
    """When the first time begins that is told of, epoch ns; None where none is."""
    wanted = select(func.min(held.c.start_ns)).where(held.c.tenant == tenant)
    found: int | None = await connection.scalar(wanted)
    return found


async def forget_before(connection: AsyncConnection, tenant: TenantId, before_ns: int) -> None:
    """Forget what was found of times that began earlier."""
    past = past_analyses.c
    await connection.execute(
        delete(past_analyses).where(past.tenant == tenant, past.until_ns < before_ns)
    )
    await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.start_ns < before_ns)
    )


def _told(row: Any) -> Told:
    rules = tuple(
        (EndRole(role), msgspec.convert(rule, Decision)) for role, rule in row.rules.items()
    )
    ends = row.consumer, row.provider, row.protocol, row.port
    return Told(
        (WorkspaceName(row.workspace), Version(row.version)),
        row.start_ns,
        row.end_ns,
        row.enforced,
        Tally(Cause(Category(row.category), rules, *ends), row.conversations, row.last_ns),
    )
