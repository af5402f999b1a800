"""The control plane's own certificate authority: its server certificate, and its clients'."""

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence.control.errors import ForbiddenError, StartError
from ringfence.control.files import write_private
from ringfence.control.identity import ClientIdentity
from ringfence.model.client import ClientKind
from ringfence.model.errors import InputError
from ringfence.model.ids import DEFAULT_TENANT, ClusterId
from ringfence.wire.limits import LARGEST_SKEW_SECONDS, SIGNED_PREFIX

CLIENT_LIFETIME = timedelta(days=30)
"""Clients renew at a third of it, so a control plane or a node may be away for 20 days; longer, and
every client needs a new token. A short life would protect no more: nobody can revoke a certificate,
and who holds the key could renew it as its owner does."""
_SERVER_LIFETIME = timedelta(days=365)
_CA_LIFETIME = timedelta(days=3650)
_BACKDATED = timedelta(seconds=LARGEST_SKEW_SECONDS)
"""So that a peer whose clock is a little behind takes a new certificate."""
_LONGEST_NAME = 64
"""Of a common name or a unit: RFC 5280, appendix A.1."""


class Authority:
    """Signs with an elliptic-curve key (P-256) that never leaves the data directory."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def load(cls, directory: Path, now_ns: int) -> "Authority":
        """The authority kept in `ca.pem` and `ca.key`, made on first use; raises StartError."""
        certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
        if not key_file.exists():
            certificate, key = _make_authority(now_ns)
            write_private(key_file, _key_pem(key))
            made = cls(certificate, key)
            certificate_file.write_bytes(made.certificate_pem)
            return made
        try:
            kept = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            signed = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(
                f"the certificate authority in {directory} cannot be read: {error}; "
                "restore ca.pem and ca.key, or remove both and enrol every agent anew"
            ) from error
        if not isinstance(kept, ec.EllipticCurvePrivateKey):
            raise StartError(f"{key_file} holds no elliptic-curve key")
        return cls(signed, kept)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate, which its clients trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server_certificate(self, names: Iterable[str], now_ns: int) -> tuple[bytes, bytes]:
        """A certificate for host names and addresses, and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ringfence control plane")])
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._sign(
            _builder(
                subject, self._certificate.subject, key.public_key(), now_ns, _SERVER_LIFETIME
            ).add_extension(alternatives, critical=False),
            key.public_key(),
            ExtendedKeyUsageOID.SERVER_AUTH,
        )
        return certificate, _key_pem(key)

    def sign_client(self, csr_pem: bytes, identity: ClientIdentity, now_ns: int) -> bytes:
        """A client certificate (PEM) for the key of a signing request; raises InputError.

        The names in it are the identity's, whatever the request asks for: CN the client's name,
        O its kind, OU its Kubernetes cluster.
        """
        try:
            request = x509.load_pem_x509_csr(csr_pem)
        except ValueError as error:
            raise InputError(f"csr_pem is not a certificate signing request: {error}") from error
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not request.is_signature_valid:
            raise InputError("csr_pem must be signed by the elliptic-curve key that it holds")
        pairs = [
            (NameOID.COMMON_NAME, identity.name),
            (NameOID.ORGANIZATION_NAME, identity.kind.value),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, identity.kubernetes_cluster),
        ]
        for _, text in pairs:
            if len(text) > _LONGEST_NAME:
                raise InputError(f"{text!r} does not fit a certificate: at most 64 characters")
        if not identity.name:
            raise InputError("a client needs a name")
        subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in pairs if text])
        builder = _builder(subject, self._certificate.subject, key, now_ns, CLIENT_LIFETIME)
        return self._sign(builder, key, ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign_directive(self, directive: bytes) -> bytes:
        """The signature by which an agent knows a directive for this control plane's."""
        return self._key.sign(SIGNED_PREFIX + directive, ec.ECDSA(hashes.SHA256()))

    def _sign(
        self,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePublicKey,
        purpose: x509.ObjectIdentifier,
    ) -> bytes:
        signed = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return signed.public_bytes(serialization.Encoding.PEM)


def read_identity(certificate_pem: bytes) -> ClientIdentity:
    """Who a client is by its certificate, which TLS has verified; raises ForbiddenError."""
    subject = x509.load_pem_x509_certificate(certificate_pem).subject

    def field(oid: x509.ObjectIdentifier) -> str:
        found = subject.get_attributes_for_oid(oid)
        return str(found[0].value) if found else ""

    try:
        kind = ClientKind(field(NameOID.ORGANIZATION_NAME))
    except ValueError as error:
        raise ForbiddenError("the certificate names no kind of client; enrol anew") from error
    return ClientIdentity(
        kind,
        field(NameOID.COMMON_NAME),
        ClusterId(field(NameOID.ORGANIZATIONAL_UNIT_NAME)),
        DEFAULT_TENANT,
    )


def _make_authority(now_ns: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ringfence control plane CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now_ns, _CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_ns: int,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_ns // 10**9, tz=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
