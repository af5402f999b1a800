"""The audit trail."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from ringfence.control.api.times import format_time
from ringfence.control.auth import PrincipalDep
from ringfence.control.services import ServicesDep
from ringfence.store.relational.changes import recent_changes

router = APIRouter(tags=["changes"])


class ChangeResponse(BaseModel):
    """One change; `source` is the address it came from."""

    at: str
    actor: str
    source: str
    what: str
    difference: str


class ChangesResponse(BaseModel):
    """Changes, the newest first."""

    items: list[ChangeResponse]


@router.get("/changes")
async def list_changes(
    services: ServicesDep,
    principal: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> ChangesResponse:
    """List who changed what, the newest first."""
    async with services.database.read() as connection:
        found = await recent_changes(connection, principal.tenant, limit)
    return ChangesResponse(
        items=[
            ChangeResponse(
                at=format_time(change.at_ns),
                actor=change.actor,
                source=change.source,
                what=change.what,
                difference=change.difference,
            )
            for change in found
        ]
    )
