"""The audit trail."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.api.numbers import RowNumber
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time, parse_time
from ringfence.store.relational.changes import Sought, find_changes

router = APIRouter(tags=["changes"])


class ChangeResponse(BaseModel):
    """One change; `source` is the address it came from."""

    number: int
    at: str
    actor: str
    source: str
    object: str = Field(description="What was changed, as KIND/NAME.")
    what: str
    difference: list[str]


class ChangesQuery(BaseModel):
    """Which changes: those that fit all that is given."""

    object: str = Field(default="", description="KIND/NAME, or a name of whatever kind.")
    actor: str = ""
    since: str | None = None
    until: str | None = None
    before: RowNumber | None = Field(default=None, description="`next` of a page before.")
    limit: int = Field(default=200, ge=1, le=1_000)


class ChangesResponse(BaseModel):
    """Changes, the newest first."""

    items: list[ChangeResponse]
    next: int | None = Field(description="`before` of the next page; null: there is none.")


@router.get("/changes")
async def list_changes(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[ChangesQuery, Query()]
) -> ChangesResponse:
    """List who changed what, the newest first."""
    now_ns = services.clock()
    since_ns, until_ns = (
        None if text is None else parse_time(text, now_ns) for text in (asked.since, asked.until)
    )
    sought = Sought(asked.object, asked.actor, since_ns, until_ns, asked.before)
    async with services.database.read() as connection:
        found = await find_changes(connection, principal.tenant, sought, asked.limit + 1)
    shown = found[: asked.limit]
    return ChangesResponse(
        items=[
            ChangeResponse(
                number=number,
                at=format_time(change.at_ns),
                actor=change.actor,
                source=change.source,
                object=change.object,
                what=change.what,
                difference=change.difference.splitlines(),
            )
            for number, change in shown
        ],
        next=shown[-1][0] if len(found) > len(shown) else None,
    )
