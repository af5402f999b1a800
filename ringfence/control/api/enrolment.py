"""Enrolment: the tokens that let agents and connectors in, and their first certificates."""

from fastapi import APIRouter, Depends, Request, status
from pydantic import BaseModel, Field

from ringfence.control.audit import Author
from ringfence.control.auth import AuthorDep, BearerDep, digest, new_token, source_of
from ringfence.control.errors import ConflictError, UnauthenticatedError
from ringfence.control.grpc_service import protocol_text
from ringfence.control.identity import ClientIdentity, Principal, Role
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.model.client import ClientKind
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId
from ringfence.store.relational.tokens import (
    EnrolmentToken,
    add_enrolment_token,
    is_enrolment_token,
    use_enrolment_token,
)
from ringfence.wire.limits import PROTOCOL

_REFUSED = "this enrolment token is unknown, expired or used up; make a new one"


async def _may_enrol(token: BearerDep, services: ServicesDep) -> None:
    async with services.database.read() as connection:
        if not await is_enrolment_token(connection, digest(token), services.clock()):
            raise UnauthenticatedError(_REFUSED)


router = APIRouter(tags=["enrolment"])
enrol_router = APIRouter(tags=["enrolment"], dependencies=[Depends(_may_enrol)])
"""Guarded by the enrolment token that its one route takes, not by an API token."""


class EnrolmentTokenRequest(BaseModel):
    """Whom the token is to let in, how often and for how long."""

    kind: ClientKind
    kubernetes_cluster: str = Field(description="Empty for hosts outside Kubernetes.")
    uses: int = Field(default=1, ge=1, le=100_000)
    ttl_seconds: int = Field(default=3600, ge=1, le=366 * 86400)


class EnrolmentTokenResponse(BaseModel):
    """The token, which is shown this once."""

    token: str
    expires_at: str


class EnrolRequest(BaseModel):
    """A client that asks for its first certificate."""

    protocol: int
    kind: ClientKind
    name: str = Field(min_length=1)
    kubernetes_cluster: str
    csr_pem: str


class EnrolResponse(BaseModel):
    """The certificate, whom to trust, and where to go on."""

    certificate_pem: str
    ca_pem: str
    grpc_port: int


@router.post("/enrolment-tokens", status_code=status.HTTP_201_CREATED)
async def create_enrolment_token(
    request: EnrolmentTokenRequest, services: ServicesDep, author: AuthorDep
) -> EnrolmentTokenResponse:
    """Make a token with which `uses` clients can enrol."""
    if request.kind is ClientKind.CONNECTOR and not request.kubernetes_cluster:
        raise InputError("a connector speaks for a Kubernetes cluster: name it")
    token, now_ns = new_token("rfe"), services.clock()
    expires_ns = now_ns + request.ttl_seconds * 10**9
    made = EnrolmentToken(
        digest(token),
        author.principal.tenant,
        author.principal.actor,
        request.kind,
        ClusterId(request.kubernetes_cluster),
        request.uses,
        now_ns,
        expires_ns,
    )
    what = (
        f"made an enrolment token for {request.uses} {request.kind}(s) "
        f"of {request.kubernetes_cluster or 'no Kubernetes cluster'}"
    )
    async with services.database.write() as connection:
        await add_enrolment_token(connection, made)
        await author.note(connection, now_ns, what, about="enrolment-token")
    return EnrolmentTokenResponse(token=token, expires_at=format_time(expires_ns))


@enrol_router.post("/enrol")
async def enrol(
    asked: EnrolRequest, token: BearerDep, services: ServicesDep, request: Request
) -> EnrolResponse:
    """Exchange one use of an enrolment token for a client certificate.

    A refused request leaves the token's uses as they were.
    """
    now_ns = services.clock()
    async with services.database.write() as connection:
        used = await use_enrolment_token(connection, digest(token), now_ns)
        if used is None:
            raise UnauthenticatedError(_REFUSED)
        if asked.protocol != PROTOCOL:
            raise ConflictError(protocol_text(asked.protocol))
        if (asked.kind, asked.kubernetes_cluster) != (used.kind, used.kubernetes_cluster):
            raise InputError(
                f"this token enrols a client of kind {used.kind!r} in the Kubernetes cluster "
                f"{used.kubernetes_cluster!r}, not {asked.kind.value!r} in "
                f"{asked.kubernetes_cluster!r}"
            )
        if asked.kind is ClientKind.AGENT:
            services.agents.require_free(asked.name, used.kubernetes_cluster, now_ns)
        identity = ClientIdentity(asked.kind, asked.name, used.kubernetes_cluster, used.tenant)
        signed = services.authority.sign_client(asked.csr_pem.encode(), identity, now_ns)
        author = Author(
            Principal(f"{asked.kind}/{asked.name}", used.tenant, Role.VIEWER, None),
            source_of(request),
        )
        about = f"{asked.kind}/{asked.name}"
        await author.note(connection, now_ns, f"enrolled {asked.kind} {asked.name}", about=about)
    return EnrolResponse(
        certificate_pem=signed.decode(),
        ca_pem=services.authority.certificate_pem.decode(),
        grpc_port=services.grpc_port,
    )
