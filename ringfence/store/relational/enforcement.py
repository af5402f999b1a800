"""Which workspace versions are enforced; earlier sets are kept."""

from dataclasses import dataclass, replace

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class Enforced:
    """The set of enforced versions since a time; `revision` counts from 1, 0 before the first.

    Until `staged_until_ns` it was in force at some nodes alone; 0: it never was so, None: it is.
    """

    revision: int
    workspaces: tuple[tuple[WorkspaceName, Version], ...]
    actor: str
    since_ns: int
    staged_until_ns: int | None = 0


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which a version was enforced; `until_ns` None: it is."""

    actor: str
    since_ns: int
    until_ns: int | None


NEVER = Enforced(0, (), "", 0)


def describe_set(enforced: Enforced) -> str:
    """The set as people write it."""
    return ", ".join(f"{name}@p{version}" for name, version in enforced.workspaces) or "nothing"


async def enforced_now(connection: AsyncConnection, tenant: TenantId) -> Enforced:
    """What is enforced."""
    held = tables.enforcement
    wanted = select(held).where(held.c.tenant == tenant)
    found = await connection.execute(wanted.order_by(held.c.revision.desc()).limit(1))
    row = found.one_or_none()
    return _enforced(row) if row else NEVER


async def enforced_at(connection: AsyncConnection, tenant: TenantId, revision: int) -> Enforced:
    """What was enforced at a revision; nothing at 0."""
    held = tables.enforcement
    wanted = select(held).where(held.c.tenant == tenant, held.c.revision == revision)
    row = (await connection.execute(wanted)).one_or_none()
    return _enforced(row) if row else NEVER


async def enforced_sets(
    connection: AsyncConnection, tenant: TenantId, span: tuple[int, int]
) -> list[Enforced]:
    """The sets that were enforced at some time within [start, end), the oldest first."""
    start_ns, end_ns = span
    held = tables.enforcement
    wanted = select(held).where(held.c.tenant == tenant, held.c.since_ns < end_ns)
    rows = await connection.execute(wanted.order_by(held.c.revision))
    found = [NEVER, *map(_enforced, rows)]
    earlier = [one for one in found if one.since_ns <= start_ns]
    return found[len(earlier) - 1 :]


async def version_before(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName, version: Version
) -> Version | None:
    """Which other version of a workspace was enforced before this one was last; None for none.

    Times in which nothing of the workspace was do not count.
    """
    held = tables.enforcement
    wanted = select(held).where(held.c.tenant == tenant).order_by(held.c.revision.desc())
    reached = False
    for one in map(_enforced, await connection.execute(wanted)):
        found = dict(one.workspaces).get(workspace)
        if reached and found not in (None, version):
            return found
        reached = reached or found == version
    return None


async def last_enforced(
    connection: AsyncConnection, tenant: TenantId, workspace: WorkspaceName
) -> dict[Version, Period]:
    """When each version of a workspace that ever was enforced last was."""
    held = tables.enforcement
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.revision)
    )
    periods: dict[Version, Period] = {}
    before: Version | None = None
    for one in map(_enforced, rows):
        version = dict(one.workspaces).get(workspace)
        if version == before:
            continue
        if before is not None:
            periods[before] = replace(periods[before], until_ns=one.since_ns)
        if version is not None:
            periods[version] = Period(one.actor, one.since_ns, None)
        before = version
    return periods


async def enforce(connection: AsyncConnection, tenant: TenantId, enforced: Enforced) -> None:
    """Make a set the enforced one; fails on a revision that exists (StaleError)."""
    await connection.execute(
        insert(tables.enforcement).values(
            tenant=tenant,
            revision=enforced.revision,
            workspaces=[list(pair) for pair in enforced.workspaces],
            actor=enforced.actor,
            since_ns=enforced.since_ns,
            staged_until_ns=enforced.staged_until_ns,
        )
    )


async def spread(connection: AsyncConnection, tenant: TenantId, revision: int, now_ns: int) -> None:
    """Write down that a staged set is in force everywhere from now on."""
    held = tables.enforcement
    await connection.execute(
        update(held)
        .where(held.c.tenant == tenant, held.c.revision == revision)
        .values(staged_until_ns=now_ns)
    )


def _enforced(row: object) -> Enforced:
    pairs = tuple(
        (WorkspaceName(name), Version(version))
        for name, version in row.workspaces  # type: ignore[attr-defined]
    )
    times = row.since_ns, row.staged_until_ns  # type: ignore[attr-defined]
    return Enforced(row.revision, pairs, row.actor, *times)  # type: ignore[attr-defined]
