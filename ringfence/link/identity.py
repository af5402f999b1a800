"""Who a client is to the control plane: a key that never leaves the client, and a certificate.

A client gets its first certificate for a one-time token (POST /api/v1/enrol), and each later one
for the certificate before it.
"""

import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.link.errors import LinkError, RefusedError, UnreachableError
from ringfence.model.client import ClientKind
from ringfence.wire.limits import LARGEST_SKEW_SECONDS, PROTOCOL

_FILE = "identity.json"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Where the control plane is, and as whom to dial it.

    `server` is its HTTPS address, `ca_file` its own CA in PEM. `token_file` holds the one-time
    enrolment token, which is only read where no certificate is kept that is valid. `state_dir` is
    where it is kept, unless the link is told otherwise.
    `kubernetes_cluster` is empty outside Kubernetes.
    """

    server: str
    ca_file: Path
    token_file: Path
    state_dir: Path
    kind: ClientKind
    name: str
    kubernetes_cluster: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key in PEM, the CA that made both ends', and which port to dial."""

    grpc_port: int
    """The control plane's; where that is, is for the configuration to say."""
    certificate: str
    ca: str
    key: str = field(repr=False)

    @property
    def _lifetime(self) -> tuple[datetime, datetime]:
        certificate = x509.load_pem_x509_certificate(self.certificate.encode())
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""
        return self._lifetime[1]

    @property
    def renewal(self) -> datetime:
        """When to renew: two thirds of the lifetime are left for a control plane that is away."""
        begin, end = self._lifetime
        return begin + (end - begin) / 3


class IdentityStore(Protocol):
    """Where a client keeps its identity from one run to the next; its text says where."""

    async def load(self) -> Identity | None:
        """The identity that was kept, None if there is none; raises LinkError."""

    async def keep(self, identity: Identity) -> None:
        """Keep it in place of the one before; raises LinkError."""


class _Enrolment(msgspec.Struct):
    certificate_pem: str
    ca_pem: str
    grpc_port: int


class _Health(msgspec.Struct):
    grpc_port: int


def new_request(kind: ClientKind, name: str) -> tuple[str, str]:
    """A fresh P-256 key and a signing request for it (CN=name, O=kind), both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, kind),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = request.sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem.decode(), signed.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Keeps an identity in a file for its owner alone."""

    path: Path

    def __str__(self) -> str:
        """Where the identity is."""
        return str(self.path / _FILE)

    async def load(self) -> Identity | None:
        """The identity that was kept, None if there is none; raises LinkError."""
        try:
            data = (self.path / _FILE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LinkError(f"cannot read {self}: {error}") from error
        return decode(data, str(self))

    async def keep(self, identity: Identity) -> None:
        """Write key and certificate at one stroke; raises LinkError."""
        try:
            _write(self.path / _FILE, encode(identity))
        except OSError as error:
            raise LinkError(f"cannot keep the certificate in {self}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # made with mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


def encode(identity: Identity) -> bytes:
    """The identity as a store keeps it."""
    return msgspec.json.encode(identity)


def decode(data: bytes, where: str) -> Identity:
    """What `encode` wrote; raises LinkError on damage."""
    try:
        return msgspec.json.decode(data, type=Identity)
    except msgspec.DecodeError as error:
        raise LinkError(f"cannot read {where}: {error}; remove it and enrol again") from error


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


def target(config: LinkConfig, identity: Identity) -> str:
    """Whom to dial, as `host:port`."""
    host = urlsplit(config.server).hostname or ""
    return f"[{host}]:{identity.grpc_port}" if ":" in host else f"{host}:{identity.grpc_port}"


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


def renewed(identity: Identity, key: str, certificate: str) -> Identity:
    """The same client with its next key and certificate."""
    return replace(identity, key=key, certificate=certificate)


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
