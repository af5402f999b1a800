"""Enrolment, renewal and every way in which they are refused, over real TLS on the loopback."""

import asyncio
import contextlib
import ssl
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.link.channel import Link
from ringfence.link.enrolment import enrol
from ringfence.link.errors import LinkError, RefusedError, UnreachableError
from ringfence.link.identity import (
    Identity,
    LinkConfig,
    StateDirectory,
    new_request,
)
from ringfence.model.client import ClientKind
from ringfence.wire.generated.agent_pb2 import AgentState, RenewReply, RenewRequest
from ringfence.wire.generated.agent_pb2_grpc import (
    ControlPlaneServicer,
    ControlPlaneStub,
    add_ControlPlaneServicer_to_server,
)
from ringfence.wire.limits import PROTOCOL

PEM = serialization.Encoding.PEM


class Authority:
    """A CA that signs whatever it is shown, for `lifetime`."""

    def __init__(self, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.lifetime = lifetime
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        root = self._builder(self._name, self._key.public_key(), timedelta(hours=2)).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca = root.sign(self._key, hashes.SHA256()).public_bytes(PEM)
        self._server_key = ec.generate_private_key(ec.SECP256R1())

    def _builder(
        self, subject: x509.Name, key: Any, lifetime: timedelta, shift: timedelta = timedelta(0)
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC) + shift
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + lifetime)
        )

    def sign(self, request: bytes) -> bytes:
        csr = x509.load_pem_x509_csr(request)
        assert csr.is_signature_valid
        built = self._builder(csr.subject, csr.public_key(), self.lifetime)
        return built.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def server_pair(self, shift: timedelta = timedelta(0)) -> tuple[bytes, bytes]:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "control plane")])
        public = self._server_key.public_key()
        certificate = self._builder(name, public, timedelta(hours=1), shift).add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        key = self._server_key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key, certificate.sign(self._key, hashes.SHA256()).public_bytes(PEM)


@dataclass
class ControlPlane(ControlPlaneServicer):  # type: ignore[misc]
    """A control plane reduced to identity: it enrols for the token `good`, however often."""

    authority: Authority
    skew: timedelta = timedelta(0)
    server_shift: timedelta = timedelta(0)
    enrolled: list[dict[str, Any]] = field(default_factory=list)
    renewals: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    host: str = "localhost"
    https_port: int = 0
    grpc_port: int = 0

    async def Renew(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.renewals.release()
        return RenewReply(certificate_pem=self.authority.sign(request.csr_pem))

    @contextlib.asynccontextmanager
    async def running(self, directory: Path) -> AsyncIterator["ControlPlane"]:
        key, certificate = self.authority.server_pair(self.server_shift)
        pair = directory / "server.pem"
        pair.write_bytes(key + certificate)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
        https = await asyncio.start_server(self._answer, self.host, self.https_port, ssl=context)
        self.https_port = https.sockets[0].getsockname()[1]
        server = grpc.aio.server()
        add_ControlPlaneServicer_to_server(self, server)
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], self.authority.ca, require_client_auth=True
        )
        self.grpc_port = server.add_secure_port(f"{self.host}:0", credentials)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)
            https.close()
            await https.wait_closed()

    def _enrol(self, asked: dict[str, Any], token_is_good: bool) -> tuple[str, dict[str, Any]]:
        if not token_is_good:
            return "401 Unauthorized", {"detail": "token expired"}
        if asked["protocol"] != PROTOCOL:
            return "409 Conflict", {"detail": "another protocol is spoken here"}
        self.enrolled.append(asked)
        return "200 OK", {
            "certificate_pem": self.authority.sign(asked["csr_pem"].encode()).decode(),
            "ca_pem": self.authority.ca.decode(),
            "grpc_port": self.grpc_port,
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, answer = "200 OK", dict[str, Any](grpc_port=self.grpc_port)
        if head.startswith("post /api/v1/enrol "):
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            asked = msgspec.json.decode(await reader.readexactly(length))
            status, answer = self._enrol(asked, "authorization: bearer good\r\n" in head)
        body = msgspec.json.encode(answer)
        date = format_datetime(datetime.now(UTC) + self.skew, usegmt=True)
        writer.write(
            f"HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        writer.close()


def config_for(directory: Path, plane: ControlPlane, token: str = "good") -> LinkConfig:
    ca, token_file = directory / "ca.pem", directory / "token"
    ca.write_bytes(plane.authority.ca)
    token_file.write_text(token + "\n")
    return LinkConfig(
        server=f"https://{plane.host}:{plane.https_port}",
        ca_file=ca,
        token_file=token_file,
        state_dir=directory / "state",
        kind=ClientKind.AGENT,
        name="node1",
        kubernetes_cluster="lab",
    )


@contextlib.asynccontextmanager
async def talking(link: Link) -> AsyncIterator[asyncio.Queue[ControlPlaneStub]]:
    """Holds conversations, and gives each that begins."""
    begun: asyncio.Queue[ControlPlaneStub] = asyncio.Queue()

    async def conversation(stub: ControlPlaneStub) -> None:
        await stub.Renew(RenewRequest(csr_pem=new_request(ClientKind.AGENT, "node1")[1].encode()))
        link.heard()
        begun.put_nowait(stub)
        async for _ in stub.Session(_silence()):
            pass

    await link.start()
    talk = asyncio.create_task(link.converse(conversation))
    try:
        yield begun
    finally:
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        await link.stop()


async def _silence() -> AsyncIterator[AgentState]:
    await asyncio.Event().wait()
    yield AgentState()


async def test_a_client_enrols_once_and_keeps_its_key_to_itself(tmp_path: Path) -> None:
    async with ControlPlane(Authority()).running(tmp_path) as plane:
        config = config_for(tmp_path, plane)
        for _ in range(2):
            async with talking(Link(config)) as begun, asyncio.timeout(10):
                await begun.get()
        identity = await StateDirectory(config.state_dir).load()
        (asked,) = plane.enrolled
        assert (asked["kind"], asked["name"], asked["kubernetes_cluster"]) == (
            "agent", "node1", "lab",
        )  # fmt: skip
        assert "PRIVATE" not in str(asked)
        assert "PRIVATE" not in repr(identity)
        (kept,) = config.state_dir.iterdir()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_a_control_plane_is_found_where_the_configuration_says(tmp_path: Path) -> None:
    """Its name and its ports may change; a client that is enrolled needs no new token."""
    plane = ControlPlane(Authority())
    async with plane.running(tmp_path):
        config = config_for(tmp_path, plane)
        link = Link(config)
        async with talking(link) as begun, asyncio.timeout(10):
            await begun.get()
    plane.host = "127.0.0.1"
    async with plane.running(tmp_path):
        moved = replace(config, server=f"https://127.0.0.1:{plane.https_port}")
        async with talking(Link(moved)) as begun, asyncio.timeout(20):
            await begun.get()
        known = await StateDirectory(config.state_dir).load()
        assert known is not None
        assert known.grpc_port == plane.grpc_port
    assert len(plane.enrolled) == 1


async def test_an_identity_that_could_not_be_kept_is_used_and_kept_later(tmp_path: Path) -> None:
    async with ControlPlane(Authority()).running(tmp_path) as plane:
        store = FullDisk()
        async with talking(Link(config_for(tmp_path, plane), store)) as begun:
            async with asyncio.timeout(10):
                await begun.get()
            store.room = True
            await asyncio.wait_for(store.kept.get(), 10)
        assert len(plane.enrolled) == 1, "the token was good for one"


class FullDisk:
    """Has room for an identity when `room` says so."""

    def __init__(self) -> None:
        self.room = False
        self.kept: asyncio.Queue[Identity] = asyncio.Queue()

    async def load(self) -> Identity | None:
        return None

    async def keep(self, identity: Identity) -> None:
        if not self.room:
            raise LinkError("no space left on device")
        self.kept.put_nowait(identity)


async def test_a_certificate_is_renewed_in_time_and_used(tmp_path: Path) -> None:
    async with ControlPlane(Authority(timedelta(seconds=4))).running(tmp_path) as plane:
        config = config_for(tmp_path, plane)
        link = Link(config)
        await link.start()
        renewed = asyncio.Event()

        async def conversation(stub: ControlPlaneStub) -> None:
            link.heard()
            for _ in range(2):  # the second renewal is made with the first one's result
                await plane.renewals.acquire()
            renewed.set()
            await asyncio.Event().wait()

        talk = asyncio.create_task(link.converse(conversation))
        try:
            await asyncio.wait_for(renewed.wait(), 20)
            assert len(plane.enrolled) == 1
            assert link.problem == ""
        finally:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            await link.stop()


async def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    async with ControlPlane(Authority()).running(tmp_path) as plane:
        config = config_for(tmp_path, plane)
        stranger = tmp_path / "stranger.pem"
        stranger.write_bytes(Authority().ca)
        bad_token = tmp_path / "used"
        bad_token.write_text("bad")
        cases: list[tuple[LinkConfig, type[LinkError], str]] = [
            (replace(config, token_file=bad_token), RefusedError, "expired or used up"),
            (
                replace(config, token_file=tmp_path / "none"),
                RefusedError,
                "ringfence tokens enrol agent",
            ),
            (replace(config, ca_file=stranger), RefusedError, "is not the control plane of the CA"),
            (replace(config, ca_file=tmp_path / "none"), RefusedError, "cannot read the control"),
            (replace(config, server="http://localhost"), RefusedError, "must begin https://"),
            (replace(config, server="https://localhost:1"), UnreachableError, "no control plane"),
        ]
        for broken, kind, said in cases:
            with pytest.raises(kind, match=said):
                await enrol(broken)


async def test_another_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.link.enrolment.PROTOCOL", 99)
    async with ControlPlane(Authority()).running(tmp_path) as plane:
        with pytest.raises(RefusedError, match="another protocol is spoken here"):
            await enrol(config_for(tmp_path, plane))


async def test_clocks_that_disagree_are_named(tmp_path: Path) -> None:
    ahead = ControlPlane(Authority(), skew=timedelta(minutes=-10))
    async with ahead.running(tmp_path) as plane:
        with pytest.raises(RefusedError, match=r"clock is \d{3} s ahead of"):
            await enrol(config_for(tmp_path, plane))
        assert not plane.enrolled, "the token is not spent"
    not_yet = ControlPlane(Authority(), server_shift=timedelta(minutes=30))
    async with not_yet.running(tmp_path) as plane:
        with pytest.raises(RefusedError, match="clock"):
            await enrol(config_for(tmp_path, plane))


async def test_a_lost_control_plane_is_reported_and_dialled_again(tmp_path: Path) -> None:
    plane = ControlPlane(Authority())
    async with plane.running(tmp_path):
        config = config_for(tmp_path, plane)
    link = Link(config)
    await link.start()
    talk = asyncio.create_task(link.converse(lambda _: asyncio.sleep(0)))
    try:
        async with asyncio.timeout(5):
            while "no control plane at" not in link.problem:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        await link.stop()
