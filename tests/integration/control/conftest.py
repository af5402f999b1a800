"""A real control plane on loopback, with its real stores, and real clients of it."""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ringfence.control.config import ControlConfig, Listen
from ringfence.control.ingest import NEWS_NS
from ringfence.control.server import ControlPlane
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from ringfence.wire.limits import PROTOCOL
from tests.unit.control.shop import CLUSTER

COMMAND = Path(sys.executable).with_name("ringfence")


@dataclass
class Clock:
    """The control plane's: so far ahead that the news of a window that ends now has come."""

    ahead_ns: int = NEWS_NS

    def __call__(self) -> int:
        """Epoch ns."""
        return time.time_ns() + self.ahead_ns

    def end_window(self) -> int:
        """When a window ends that knows all that is known by now; the news of it has come."""
        end_ns = self()
        self.ahead_ns += NEWS_NS
        return end_ns


@dataclass
class World:
    """A running control plane and how to talk to it."""

    plane: ControlPlane
    data_dir: Path
    token: str
    verify: ssl.SSLContext
    http: httpx.AsyncClient
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        """Call the API as administrator and expect success."""
        answer = await self.http.request(method, f"/api/v1{path}", **more)
        assert answer.is_success, answer.text
        return answer.json()

    def context(self, token: str = "") -> dict[str, str]:
        """The environment in which the command talks to it, as administrator."""
        return {
            "RINGFENCE_SERVER": str(self.http.base_url),
            "RINGFENCE_TOKEN": token or self.token,
            "RINGFENCE_CA": str(self.data_dir / "ca.pem"),
        }

    async def run(self, *words: str, token: str = "") -> tuple[int | None, str, str]:
        """Run the command; its exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            COMMAND, *words, env={**os.environ, **self.context(token)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, said = await process.communicate()
        return process.returncode, out.decode(), said.decode()

    async def enrolment_token(self, kind: str, uses: int = 1, cluster: str = CLUSTER) -> str:
        """A token that enrols clients of a kind."""
        body = {"kind": kind, "kubernetes_cluster": cluster, "uses": uses, "ttl_seconds": 60}
        return str((await self.ok("POST", "/enrolment-tokens", json=body))["token"])

    async def enrol(self, kind: str, name: str, cluster: str = CLUSTER) -> ControlPlaneStub:
        """A gRPC client with a certificate of its own."""
        token = await self.enrolment_token(kind, cluster=cluster)
        key, csr = make_request()
        body = {
            "protocol": PROTOCOL,
            "kind": kind,
            "name": name,
            "kubernetes_cluster": cluster,
            "csr_pem": csr,
        }
        headers = {"Authorization": f"Bearer {token}"}
        granted = await self.ok("POST", "/enrol", json=body, headers=headers)
        credentials = grpc.ssl_channel_credentials(
            str(granted["ca_pem"]).encode(), key, str(granted["certificate_pem"]).encode()
        )
        channel = grpc.aio.secure_channel(f"127.0.0.1:{granted['grpc_port']}", credentials)
        self.channels.append(channel)
        return ControlPlaneStub(channel)


def make_request() -> tuple[bytes, str]:
    """A key, and a signing request by it that claims to be somebody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody-else")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, signed.decode()


def make_config(data_dir: Path, **more: Any) -> ControlConfig:
    """Free ports on loopback."""
    free = Listen("127.0.0.1", 0)
    return ControlConfig(**{"data_dir": data_dir, "http_listen": free, "grpc_listen": free, **more})


@pytest.fixture
def clock() -> Clock:
    """The clock of each control plane that a test starts."""
    return Clock()


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    """Starts a control plane on one data directory, again and again if asked to."""
    running: list[World] = []
    token_file = tmp_path / "admin-token"

    async def run(clock: Callable[[], int] = clock, **more: Any) -> World:
        for world in running:
            await stop(world)
        running.clear()
        data_dir = tmp_path / "data"
        config = make_config(
            data_dir, admin_token_file=token_file, advertise=("127.0.0.1",), **more
        )
        plane = ControlPlane(config, clock)
        await plane.start()
        token = token_file.read_text().strip()
        verify = ssl.create_default_context(cafile=str(data_dir / "ca.pem"))
        http = httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{plane.http_port}",
            headers={"Authorization": f"Bearer {token}"},
            verify=verify,
            trust_env=False,
            timeout=60,  # a busy machine is no failure
        )
        world = World(plane, data_dir, token, verify, http)
        running.append(world)
        return world

    async def stop(world: World) -> None:
        for channel in world.channels:
            await channel.close()
        await world.http.aclose()
        await world.plane.stop()

    yield run
    for world in running:
        await stop(world)


@pytest.fixture
async def world(start: Callable[[], Awaitable[World]]) -> World:
    """A fresh control plane."""
    return await start()
