"""Experiments: versions held against flows of the past, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.tally import Tally
from ringfence.store.relational.tables import experiments as held


@dataclass(frozen=True, slots=True)
class Experiment:
    """A version against the flows of [since, until), times in epoch ns.

    Without `ended_ns` it is under way or waits for its turn; then there is a `result` or a
    `problem`.
    """

    id: int
    workspace: WorkspaceName
    version: Version
    since_ns: int
    until_ns: int
    actor: str
    began_ns: int
    ended_ns: int | None = None
    problem: str = ""
    result: tuple[Tally, ...] = ()


async def add_experiment(
    connection: AsyncConnection, tenant: TenantId, wanted: Experiment
) -> Experiment:
    """Write one down that is yet to be done; its id is made here."""
    made = await connection.execute(
        insert(held)
        .values(
            tenant=tenant,
            workspace=wanted.workspace,
            version=wanted.version,
            since_ns=wanted.since_ns,
            until_ns=wanted.until_ns,
            actor=wanted.actor,
            began_ns=wanted.began_ns,
            problem="",
        )
        .returning(held)
    )
    return _experiment(made.one())


async def end_experiment(
    connection: AsyncConnection,
    number: int,
    now_ns: int,
    result: Sequence[Tally],
    problem: str = "",
) -> None:
    """Write down what came of one."""
    values = {"ended_ns": now_ns, "problem": problem, "result": msgspec.to_builtins(result)}
    await connection.execute(update(held).where(held.c.id == number).values(**values))


async def all_experiments(connection: AsyncConnection, tenant: TenantId) -> list[Experiment]:
    """Every one, the latest first."""
    wanted = select(held).where(held.c.tenant == tenant).order_by(held.c.id.desc())
    return list(map(_experiment, await connection.execute(wanted)))


async def find_experiment(
    connection: AsyncConnection, tenant: TenantId, number: int
) -> Experiment | None:
    """The one of that id."""
    wanted = select(held).where(held.c.tenant == tenant, held.c.id == number)
    row = (await connection.execute(wanted)).one_or_none()
    return _experiment(row) if row else None


async def remove_experiment(connection: AsyncConnection, tenant: TenantId, number: int) -> bool:
    """Forget one; whether there was one."""
    found = await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.id == number)
    )
    return bool(found.rowcount)


def _experiment(row: Any) -> Experiment:
    return Experiment(
        row.id,
        row.workspace,
        row.version,
        row.since_ns,
        row.until_ns,
        row.actor,
        row.began_ns,
        row.ended_ns,
        row.problem,
        msgspec.convert(row.result or (), tuple[Tally, ...]),
    )
