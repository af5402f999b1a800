"""The address sets of a tenant, how their lists fared, and what they held."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.inventory.contents import Content
from ringfence.model.address_set import (
    AddressSet,
    Fetched,
    Source,
    Uploaded,
    Written,
    format_range,
    parse_range,
)
from ringfence.model.ids import AddressSetName, TenantId
from ringfence.store.relational.tables import address_set_contents as contents
from ringfence.store.relational.tables import address_sets as held


@dataclass(frozen=True, slots=True)
class Refreshed:
    """How a set's list fared: when it was last read and last asked for, epoch ns, None for never.

    `problem` is why the last attempt failed, empty if it did not.
    """

    refreshed_ns: int | None = None
    tried_ns: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HeldSet:
    """A set, who made it as it is, and how its list fared."""

    address_set: AddressSet
    actor: str
    changed_ns: int
    refreshed: Refreshed


async def all_address_sets(connection: AsyncConnection, tenant: TenantId) -> list[HeldSet]:
    """Every address set, by name."""
    rows = await connection.execute(
        select(held).where(held.c.tenant == tenant).order_by(held.c.name)
    )
    return [
        HeldSet(
            AddressSet(AddressSetName(row.name), _source(row.source)),
            row.actor,
            row.changed_ns,
            Refreshed(row.refreshed_ns, row.tried_ns, row.problem),
        )
        for row in rows
    ]


async def load_address_set(
    connection: AsyncConnection, tenant: TenantId, name: AddressSetName
) -> AddressSet | None:
    """The address set of that name, None where there is none."""
    source = await connection.scalar(
        select(held.c.source).where(held.c.tenant == tenant, held.c.name == name)
    )
    return None if source is None else AddressSet(name, _source(source))


async def put_address_sets(
    connection: AsyncConnection,
    tenant: TenantId,
    address_sets: Iterable[AddressSet],
    actor: str,
    now_ns: int,
) -> None:
    """Create or replace address sets; what they hold stays until it is read anew."""
    for one in address_sets:
        await connection.execute(
            delete(held).where(held.c.tenant == tenant, held.c.name == one.name)
        )
        await connection.execute(
            insert(held).values(
                tenant=tenant,
                name=one.name,
                source=_written(one.source),
                actor=actor,
                changed_ns=now_ns,
                problem="",
            )
        )


async def put_refreshed(
    connection: AsyncConnection, tenant: TenantId, name: AddressSetName, refreshed: Refreshed
) -> None:
    """Write down how a set's list fared."""
    await connection.execute(
        update(held)
        .where(held.c.tenant == tenant, held.c.name == name)
        .values(**msgspec.to_builtins(refreshed))
    )


async def load_contents(connection: AsyncConnection, tenant: TenantId) -> list[Content]:
    """What sets held, the oldest first."""
    rows = await connection.execute(
        select(contents).where(contents.c.tenant == tenant).order_by(contents.c.from_ns)
    )
    return [Content(AddressSetName(row.name), row.from_ns, row.packed) for row in rows]


async def put_content(
    connection: AsyncConnection, tenant: TenantId, content: Content, over: Collection[Content]
) -> None:
    """Write down what a set holds, and forget what nobody asks for any more."""
    await connection.execute(
        insert(contents).values(
            tenant=tenant, name=content.name, from_ns=content.from_ns, packed=content.packed
        )
    )
    same = (contents.c.name == bindparam("of"), contents.c.from_ns == bindparam("at"))
    old = [{"of": one.name, "at": one.from_ns} for one in over]
    if old:
        await connection.execute(delete(contents).where(contents.c.tenant == tenant, *same), old)


def _written(source: Source) -> dict[str, object]:
    match source:
        case Written(ranges):
            return {"addresses": [format_range(span) for span in ranges]}
        case Fetched(url, every_seconds):
            return {"url": url, "every_seconds": every_seconds}
        case Uploaded():
            return {}


def _source(written: dict[str, object]) -> Source:
    match written:
        case {"addresses": [*addresses]}:
            return Written(tuple(parse_range(str(one)) for one in addresses))
        case {"url": str(url), "every_seconds": int(every_seconds)}:
            return Fetched(url, every_seconds)
        case _:
            return Uploaded()
