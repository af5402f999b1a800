"""Who may call the API: tokens, kept by their digest only, and what their bearers may do."""

import hashlib
import secrets
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ringfence.control.audit import Author
from ringfence.control.errors import ForbiddenError, UnauthenticatedError
from ringfence.control.identity import Principal, Role
from ringfence.control.services import ServicesDep
from ringfence.store.relational.tokens import find_token

_TOKEN_BYTES = 32
_READING = frozenset({"GET", "HEAD"})
_bearer = HTTPBearer(auto_error=False, description="An API token, or to enrol an enrolment token")


def new_token(prefix: str) -> str:
    """A token with 256 random bits, for people to keep: it is shown once."""
    return f"{prefix}_{secrets.token_urlsafe(_TOKEN_BYTES)}"


def digest(token: str) -> str:
    """What is kept of a token. It is random, so a fast hash without salt is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def bearer_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """The token of a request; raises UnauthenticatedError where there is none."""
    if credentials is None:
        raise UnauthenticatedError("send a token: `Authorization: Bearer TOKEN`")
    return credentials.credentials


BearerDep = Annotated[str, Depends(bearer_token)]


async def authenticate(request: Request, services: ServicesDep, token: BearerDep) -> Principal:
    """The bearer of a known token that is still valid; a viewer may only read.

    Every router but enrolment's is included under this dependency.
    """
    async with services.database.read() as connection:
        known = await find_token(connection, digest(token))
    if known is None:
        raise UnauthenticatedError("this token is not known; ask an administrator for one")
    if known.expires_ns is not None and known.expires_ns <= services.clock():
        raise UnauthenticatedError("this token has expired; ask an administrator for a new one")
    role = Role(known.role)
    if role is not Role.ADMIN and request.method not in _READING:
        raise ForbiddenError(f"{known.actor} may only read; this needs an administrator's token")
    return Principal(known.actor, known.tenant, role, known.expires_ns)


PrincipalDep = Annotated[Principal, Depends(authenticate)]


def source_of(request: Request) -> str:
    """The address that a request came from."""
    return request.client.host if request.client else "unknown"


def _author(request: Request, principal: PrincipalDep) -> Author:
    return Author(principal, source_of(request))


AuthorDep = Annotated[Author, Depends(_author)]
