"""API tokens and enrolment tokens, kept by their digest only."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.model.ids import ClusterId, TenantId
from ringfence.store.relational import tables


@dataclass(frozen=True, slots=True)
class Token:
    """An API token; `digest` is the SHA-256 of its text in hex."""

    digest: str
    tenant: TenantId
    actor: str
    role: str
    created_ns: int
    expires_ns: int | None


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """What lets `uses_left` clients of one kind and Kubernetes cluster enrol until it expires."""

    digest: str
    tenant: TenantId
    actor: str
    kind: str
    kubernetes_cluster: ClusterId
    uses_left: int
    created_ns: int
    expires_ns: int


async def add_token(connection: AsyncConnection, token: Token) -> None:
    """Keep an API token."""
    await connection.execute(
        insert(tables.tokens).values(
            digest=token.digest,
            tenant=token.tenant,
            actor=token.actor,
            role=token.role,
            created_ns=token.created_ns,
            expires_ns=token.expires_ns,
        )
    )


async def find_token(connection: AsyncConnection, digest: str) -> Token | None:
    """The API token of that digest, expired or not."""
    found = await connection.execute(select(tables.tokens).where(tables.tokens.c.digest == digest))
    row = found.mappings().one_or_none()
    return Token(**row) if row else None


async def any_token(connection: AsyncConnection) -> bool:
    """Whether anybody can log in at all."""
    return (await connection.execute(select(tables.tokens.c.digest).limit(1))).first() is not None


async def all_tokens(connection: AsyncConnection, tenant: TenantId) -> list[Token]:
    """The tenant's API tokens, expired ones too, the oldest first."""
    held = tables.tokens
    wanted = select(held).where(held.c.tenant == tenant).order_by(held.c.created_ns, held.c.digest)
    return [Token(**row) for row in (await connection.execute(wanted)).mappings()]


async def remove_token(connection: AsyncConnection, digest: str) -> None:
    """Forget an API token, which then opens nothing."""
    await connection.execute(delete(tables.tokens).where(tables.tokens.c.digest == digest))


async def add_enrolment_token(connection: AsyncConnection, token: EnrolmentToken) -> None:
    """Keep an enrolment token."""
    await connection.execute(
        insert(tables.enrolment_tokens).values(
            digest=token.digest,
            tenant=token.tenant,
            actor=token.actor,
            kind=token.kind,
            kubernetes_cluster=token.kubernetes_cluster,
            uses_left=token.uses_left,
            created_ns=token.created_ns,
            expires_ns=token.expires_ns,
        )
    )


async def is_enrolment_token(connection: AsyncConnection, digest: str, now_ns: int) -> bool:
    """Whether the token would let a client in."""
    held = tables.enrolment_tokens
    usable = (held.c.digest == digest, held.c.uses_left > 0, held.c.expires_ns > now_ns)
    return (await connection.execute(select(held.c.digest).where(*usable))).first() is not None


async def use_enrolment_token(
    connection: AsyncConnection, digest: str, now_ns: int
) -> EnrolmentToken | None:
    """Take one use off a token in a single statement; None if unknown, expired or used up."""
    held = tables.enrolment_tokens
    used = await connection.execute(
        update(held)
        .where(held.c.digest == digest, held.c.uses_left > 0, held.c.expires_ns > now_ns)
        .values(uses_left=held.c.uses_left - 1)
        .returning(*held.c)
    )
    row = used.mappings().one_or_none()
    return EnrolmentToken(**row) if row else None
