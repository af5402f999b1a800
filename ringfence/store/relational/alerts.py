"""Alerts, their sinks, and the notices that sinks are still to have."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import TenantId
from ringfence.model.tally import Cause
from ringfence.store.relational.tables import alert_notices, alert_sinks
from ringfence.store.relational.tables import alerts as held


@dataclass(frozen=True, slots=True)
class Alert:
    """One cause of what ought not to be, from its first conversation on; times are epoch ns.

    Something was last told of it at `heard_ns`. It is resolved at `resolved_ns`, None while it is
    open.
    """

    id: str
    cause: Cause
    conversations: int
    first_ns: int
    last_ns: int
    heard_ns: int
    resolved_ns: int | None = None


@dataclass(frozen=True, slots=True)
class HeldSink:
    """A sink; `problem` is why its last attempt failed, empty if it did not.

    `secret` is sealed (`control.secrets`), empty for none.
    """

    name: str
    url: str
    secret: str = field(repr=False)
    actor: str
    changed_ns: int
    refused: int = 0
    problem: str = ""

    @property
    def place(self) -> str:
        """What its secret is sealed for."""
        return f"alert sink {self.name} {self.url}"


async def load_alerts(
    connection: AsyncConnection, tenant: TenantId, since_ns: int | None = None
) -> list[Alert]:
    """The open ones, and those with a conversation since then; the latest first."""
    still = held.c.resolved_ns.is_(None)
    wanted = still if since_ns is None else or_(still, held.c.last_ns >= since_ns)
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant, wanted).order_by(held.c.last_ns.desc())
    )
    return [
        Alert(
            row.id,
            msgspec.convert(row.cause, Cause),
            row.conversations,
            row.first_ns,
            row.last_ns,
            row.heard_ns,
            row.resolved_ns,
        )
        for row in rows
    ]


async def put_alert(connection: AsyncConnection, tenant: TenantId, alert: Alert) -> None:
    """Write an alert down as it is now."""
    await connection.execute(delete(held).where(held.c.tenant == tenant, held.c.id == alert.id))
    told = msgspec.to_builtins(alert)
    await connection.execute(insert(held).values(tenant=tenant, **told))


async def forget_alerts(connection: AsyncConnection, tenant: TenantId, before_ns: int) -> None:
    """Forget those that were resolved earlier."""
    await connection.execute(
        delete(held).where(held.c.tenant == tenant, held.c.resolved_ns < before_ns)
    )


async def all_sinks(connection: AsyncConnection, tenant: TenantId) -> list[HeldSink]:
    """Every sink, by name."""
    rows = await connection.execute(
        select(alert_sinks).where(alert_sinks.c.tenant == tenant).order_by(alert_sinks.c.name)
    )
    return [
        HeldSink(row.name, row.url, row.secret, row.actor, row.changed_ns, row.refused, row.problem)
        for row in rows
    ]


async def put_sink(connection: AsyncConnection, tenant: TenantId, sink: HeldSink) -> None:
    """Add a sink, or put it in place of the one of its name."""
    await _forget(connection, tenant, sink.name)
    await connection.execute(
        insert(alert_sinks).values(
            tenant=tenant,
            name=sink.name,
            url=sink.url,
            secret=sink.secret,
            actor=sink.actor,
            changed_ns=sink.changed_ns,
            refused=sink.refused,
            problem=sink.problem,
        )
    )


async def remove_sink(connection: AsyncConnection, tenant: TenantId, name: str) -> bool:
    """Remove a sink, with what it has not had yet; whether there was one."""
    mine = alert_notices.c.tenant == tenant, alert_notices.c.sink == name
    await connection.execute(delete(alert_notices).where(*mine))
    return await _forget(connection, tenant, name)


async def _forget(connection: AsyncConnection, tenant: TenantId, name: str) -> bool:
    found = await connection.execute(
        delete(alert_sinks).where(alert_sinks.c.tenant == tenant, alert_sinks.c.name == name)
    )
    return bool(found.rowcount)


async def note_attempt(
    connection: AsyncConnection, tenant: TenantId, name: str, refused: int, problem: str
) -> None:
    """Write down how a sink's last attempt went; `refused` notices more it would not take."""
    await connection.execute(
        update(alert_sinks)
        .where(alert_sinks.c.tenant == tenant, alert_sinks.c.name == name)
        .values(refused=alert_sinks.c.refused + refused, problem=problem)
    )


async def queue_notices(
    connection: AsyncConnection, tenant: TenantId, notices: Iterable[Any]
) -> None:
    """Have every sink hear of these."""
    told = [msgspec.to_builtins(one) for one in notices]
    for sink in await all_sinks(connection, tenant) if told else ():
        rows = [{"tenant": tenant, "sink": sink.name, "notice": one} for one in told]
        await connection.execute(insert(alert_notices), rows)


async def next_notices(
    connection: AsyncConnection, tenant: TenantId, sink: str, limit: int
) -> list[tuple[int, Any]]:
    """The oldest notices that a sink is to have, each with its number; at most `limit`."""
    wanted = select(alert_notices.c.id, alert_notices.c.notice).where(
        alert_notices.c.tenant == tenant, alert_notices.c.sink == sink
    )
    rows = await connection.execute(wanted.order_by(alert_notices.c.id).limit(limit))
    return [(row.id, row.notice) for row in rows]


async def drop_notices(connection: AsyncConnection, numbers: Iterable[int]) -> None:
    """Notices were delivered, or never will be."""
    await connection.execute(delete(alert_notices).where(alert_notices.c.id.in_(list(numbers))))
