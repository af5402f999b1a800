"""What a client asks the control plane over HTTP: its first certificate, and which port to dial.

Once it is enrolled it has hardly ever to ask, so it imports this when it does: an HTTP client takes
5 MB of memory.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import msgspec

from ringfence.link.errors import LinkError, RefusedError, UnreachableError
from ringfence.link.identity import Identity, LinkConfig, new_request
from ringfence.wire.limits import LARGEST_SKEW_SECONDS, PROTOCOL

_TIMEOUT_S = 10.0


class _Enrolment(msgspec.Struct):
    certificate_pem: str
    ca_pem: str
    grpc_port: int


class _Health(msgspec.Struct):
    grpc_port: int


async def enrol(config: LinkConfig) -> Identity:
    """Exchange the one-time token for a certificate; raises UnreachableError, RefusedError."""
    token = _read_token(config)
    key, request = new_request(config.kind, config.name)
    asked = {
        "protocol": PROTOCOL,
        "kind": config.kind,
        "name": config.name,
        "kubernetes_cluster": config.kubernetes_cluster,
        "csr_pem": request,
    }
    async with _calling(config) as client:
        # A token is spent by its use, so what can be checked is checked before.
        _check_clock((await client.get("/healthz")).headers.get("date"))
        bearer = {"Authorization": f"Bearer {token}"}
        reply = await client.post("/api/v1/enrol", json=asked, headers=bearer)
        if not reply.is_success:
            raise _explain_reply(config, reply)
        granted = msgspec.json.decode(reply.content, type=_Enrolment)
    return Identity(granted.grpc_port, granted.certificate_pem, granted.ca_pem, key)


async def find_port(config: LinkConfig) -> int:
    """The port of the control plane's gRPC now; raises UnreachableError, RefusedError."""
    async with _calling(config) as client:
        return msgspec.json.decode((await client.get("/healthz")).content, type=_Health).grpc_port


@asynccontextmanager
async def _calling(config: LinkConfig) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the control plane's HTTP API; says what its failures mean."""
    context = _trust(config)
    try:
        async with httpx.AsyncClient(
            base_url=config.server, verify=context, timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            yield client
    except httpx.HTTPError as error:
        raise _explain_failure(config, error) from error
    except msgspec.DecodeError as error:
        raise RefusedError(
            f"{config.server} does not answer as a control plane does: {error}"
        ) from error


def _read_token(config: LinkConfig) -> str:
    try:
        token = config.token_file.read_text().strip()
    except OSError as error:
        raise RefusedError(
            f"{config.name} has no valid certificate and no enrolment token: {error}; make one with"
            f" `ringfence tokens enrol {config.kind}` and write it there"
        ) from error
    if not token:
        raise RefusedError(f"the enrolment token in {config.token_file} is empty")
    return token


def _trust(config: LinkConfig) -> ssl.SSLContext:
    if urlsplit(config.server).scheme != "https":
        raise RefusedError(f"the control plane's address {config.server!r} must begin https://")
    try:
        return ssl.create_default_context(cafile=str(config.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise RefusedError(
            f"cannot read the control plane's CA from {config.ca_file}: {error}"
        ) from error


def _check_clock(date: str | None) -> None:
    """Certificates mean nothing between clocks that disagree; `date` is the HTTP header."""
    if date is None:
        return
    skew = datetime.now(UTC) - parsedate_to_datetime(date)
    if abs(skew).total_seconds() > LARGEST_SKEW_SECONDS:
        way = "ahead of" if skew > timedelta(0) else "behind"
        raise RefusedError(
            f"this machine's clock is {abs(skew).total_seconds():.0f} s {way} the control plane's:"
            " set it (NTP) and try again"
        )


def _explain_reply(config: LinkConfig, reply: httpx.Response) -> LinkError:
    try:
        detail = str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = reply.reason_phrase
    if reply.is_server_error:
        return UnreachableError(f"{config.server} answered {reply.status_code}: {detail}")
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        return RefusedError(
            f"the enrolment token in {config.token_file} was refused ({detail}): it is unknown,"
            " expired or used up; make a new one"
        )
    return RefusedError(f"the control plane refused to enrol {config.name}: {detail}")


_CLOCK_CODES = {9, 10}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def _explain_failure(config: LinkConfig, error: BaseException) -> LinkError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        said = str(error) or type(error).__name__
        return UnreachableError(f"no control plane at {config.server}: {said}")
    if cause.verify_code in _CLOCK_CODES:
        return RefusedError(
            f"the certificate of {config.server} is not valid now ({cause.verify_message}):"
            " compare this machine's clock with the control plane's"
        )
    return RefusedError(
        f"{config.server} is not the control plane of the CA in {config.ca_file}:"
        f" {cause.verify_message}"
    )
