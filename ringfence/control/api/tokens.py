"""API tokens: who has one, one more, and one less."""

from fastapi import APIRouter, status
from pydantic import BaseModel, Field, field_validator

from ringfence.control.auth import AuthorDep, PrincipalDep, digest, new_token
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.identity import ITSELF, Role
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.store.relational.tokens import Token, add_token, all_tokens, remove_token

router = APIRouter(prefix="/tokens", tags=["tokens"])
_ID_LETTERS = 12
_LONGEST_SECONDS = 100 * 366 * 86400


class TokenResponse(BaseModel):
    """A token without its secret; `expires_at` is null for one without an end."""

    id: str
    actor: str
    created_at: str
    expires_at: str | None


class TokensResponse(BaseModel):
    """Tokens, the oldest first."""

    items: list[TokenResponse]


class TokenRequest(BaseModel):
    """Whose token it is to be, and for how long, without an end for null."""

    actor: str = Field(min_length=1, max_length=100)
    ttl_seconds: int | None = Field(default=None, ge=1, le=_LONGEST_SECONDS)

    @field_validator("actor")
    @classmethod
    def _is_a_person(cls, actor: str) -> str:
        if actor == ITSELF:
            raise ValueError(f"{ITSELF!r} is how the control plane signs: choose another name")
        return actor


class NewTokenResponse(TokenResponse):
    """The token itself, which is shown this once."""

    token: str


@router.get("")
async def list_tokens(services: ServicesDep, principal: PrincipalDep) -> TokensResponse:
    """List the API tokens."""
    async with services.database.read() as connection:
        held = await all_tokens(connection, principal.tenant)
    return TokensResponse(items=[_response(token) for token in held])


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_token(
    request: TokenRequest, services: ServicesDep, author: AuthorDep
) -> NewTokenResponse:
    """Make one more administrator's token."""
    text, now_ns = new_token("rf"), services.clock()
    ends = now_ns + request.ttl_seconds * 10**9 if request.ttl_seconds else None
    tenant = author.principal.tenant
    made = Token(digest(text), tenant, request.actor, Role.ADMIN, now_ns, ends)
    async with services.database.write() as connection:
        await add_token(connection, made)
        what = f"made token {_id(made)} for {made.actor}"
        await author.note(connection, now_ns, what, about=f"token/{_id(made)}")
    return NewTokenResponse(**dict(_response(made)), token=text)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_token(id: str, services: ServicesDep, author: AuthorDep) -> None:  # noqa: A002
    """Revoke a token at once, which is refused for the last one that opens anything."""
    now_ns = services.clock()
    async with services.database.write() as connection:
        held = await all_tokens(connection, author.principal.tenant)
        chosen = next((token for token in held if _id(token) == id), None)
        if chosen is None:
            raise NotFoundError(f"there is no token {id!r}")
        others = [token for token in held if token is not chosen]
        if not any(token.expires_ns is None or token.expires_ns > now_ns for token in others):
            raise ConflictError("without this token nobody could log in: make another one first")
        await remove_token(connection, chosen.digest)
        what = f"revoked token {id} of {chosen.actor}"
        await author.note(connection, now_ns, what, about=f"token/{id}")


def _response(token: Token) -> TokenResponse:
    return TokenResponse(
        id=_id(token),
        actor=token.actor,
        created_at=format_time(token.created_ns),
        expires_at=format_time(token.expires_ns) if token.expires_ns is not None else None,
    )


def _id(token: Token) -> str:
    """Enough of the digest to tell tokens apart, of which nobody can make the token."""
    return token.digest[:_ID_LETTERS]
