"""Taking scopes, named filters, address sets and workspaces away again."""

from fastapi import APIRouter, status

from ringfence.control.auth import AuthorDep
from ringfence.control.effect import take_effect
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.policies import load_documents, load_enforced
from ringfence.control.removal import users
from ringfence.control.services import ServicesDep
from ringfence.control.trial import load_before
from ringfence.model.words import named
from ringfence.policy.difference import ChangeKind, DocumentKind, difference
from ringfence.policy.document import Documents
from ringfence.store.relational.removal import remove_document
from ringfence.store.relational.requests import load_approval_rules
from ringfence.store.relational.trials import load_trial

router = APIRouter(tags=["documents"])


@router.delete("/documents/{kind}/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def remove(kind: DocumentKind, name: str, services: ServicesDep, author: AuthorDep) -> None:
    """Take a document away; refused where something uses it.

    The versions of a workspace are kept, and counted on should it be made again.
    """
    tenant = author.principal.tenant
    async with services.database.write() as connection:
        latest, _ = await load_documents(connection, tenant)
        gone = [
            change
            for change in difference(latest, Documents())
            if (change.kind, change.name) == (kind, name)
        ]
        if not gone:
            raise NotFoundError(f"there is no {kind} {name!r}")
        now = await load_enforced(connection, tenant)
        before = await load_before(connection, tenant, await load_trial(connection, tenant))
        enforced = [*now, *(one for one in before if one not in now)]
        rules = await load_approval_rules(connection, tenant)
        if used_by := users(kind, name, latest, enforced, rules):
            raise ConflictError(f"{kind} {name!r} is used by {named(used_by)}")
        await remove_document(connection, tenant, kind, name)
        what, lines = f"{ChangeKind.DELETED} {kind} {name}", "\n".join(gone[0].lines)
        about = f"{kind.lower()}/{name}"
        await author.note(connection, services.clock(), what, lines, about=about)
    await take_effect(services)
