"""Who a client is to the control plane: a key that never leaves the client, and a certificate.

A client gets its first certificate for a one-time token (enrolment.py), and each later one for the
certificate before it.
"""

import os
import tempfile
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.link.errors import LinkError, RefusedError
from ringfence.model.client import ClientKind
from ringfence.wire.limits import SIGNED_PREFIX

_FILE = "identity.json"


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

    def verify(self, signature: bytes, directive: bytes) -> None:
        """Raise RefusedError unless the control plane's CA signed this directive."""
        try:
            authority = x509.load_pem_x509_certificate(self.ca.encode()).public_key()
        except ValueError as error:
            raise RefusedError(f"the CA that is kept cannot be read: {error}") from error
        if not isinstance(authority, ec.EllipticCurvePublicKey):
            raise RefusedError("the CA that is kept has no elliptic-curve key")
        try:
            authority.verify(signature, SIGNED_PREFIX + directive, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise RefusedError("the control plane's CA did not sign it") from error

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


def target(config: LinkConfig, identity: Identity) -> str:
    """Whom to dial, as `host:port`."""
    host = urlsplit(config.server).hostname or ""
    return f"[{host}]:{identity.grpc_port}" if ":" in host else f"{host}:{identity.grpc_port}"


def renewed(identity: Identity, key: str, certificate: str) -> Identity:
    """The same client with its next key and certificate."""
    return replace(identity, key=key, certificate=certificate)
