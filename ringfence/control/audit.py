"""Writes down who changed what, in the transaction that changes it."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.identity import Principal
from ringfence.store.relational.changes import Change, add_change


@dataclass(frozen=True, slots=True)
class Author:
    """Who acts, and from which address."""

    principal: Principal
    source: str

    async def note(
        self,
        connection: AsyncConnection,
        now_ns: int,
        what: str,
        difference: str = "",
        *,
        about: str,
    ) -> None:
        """Add one change of `about`, KIND/NAME, to the audit trail."""
        change = Change(now_ns, self.principal.actor, self.source, about, what, difference)
        await add_change(connection, self.principal.tenant, change)
