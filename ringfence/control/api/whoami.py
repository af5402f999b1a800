"""Whose token this is."""

from fastapi import APIRouter
from pydantic import BaseModel

from ringfence.control.auth import PrincipalDep
from ringfence.control.identity import Role
from ringfence.control.times import format_time

router = APIRouter(tags=["tokens"])


class WhoAmI(BaseModel):
    """The bearer of the token; `expires_at` is null for a token without an end."""

    actor: str
    tenant: str
    role: Role
    expires_at: str | None


@router.get("/whoami")
async def whoami(principal: PrincipalDep) -> WhoAmI:
    """Say who the bearer of the token is."""
    ends = principal.expires_ns
    return WhoAmI(
        actor=principal.actor,
        tenant=principal.tenant,
        role=principal.role,
        expires_at=format_time(ends) if ends is not None else None,
    )
