"""A Kubernetes API of its own for a test (etcd and kube-apiserver, no nodes), on the loopback.

The API server runs without its watch cache, so that compacting etcd makes it forget history.
"""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ringfence"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Api:
    """A running API server; `call` speaks to it as its administrator."""

    directory: Path
    port: int
    etcd: str

    def kubeconfig(self, token: str = "admin", port: int = 0) -> Path:
        server = f"https://127.0.0.1:{port or self.port}"
        path = self.directory / f"kubeconfig-{token}-{port}"
        cluster = {"server": server, "insecure-skip-tls-verify": True}
        config = {
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        path.write_text(json.dumps(config))
        return path

    def call(self, method: str, path: str, body: Any = None) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        reply = httpx.request(
            method,
            f"https://127.0.0.1:{self.port}{path}",
            content=json.dumps(body) if body is not None else None,
            headers={"Authorization": "Bearer admin", "Content-Type": kind},
            verify=self._no_verify,
            trust_env=False,
        )
        assert reply.is_success, reply.text
        return reply.json()

    @cached_property
    def _no_verify(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def compact(self) -> None:
        """Make etcd forget all but what is there now."""
        key = base64.b64encode(b"\0").decode()
        now = httpx.post(f"{self.etcd}/v3/kv/range", json={"key": key}, trust_env=False).json()
        revision = now["header"]["revision"]
        done = httpx.post(
            f"{self.etcd}/v3/kv/compaction", json={"revision": revision}, trust_env=False
        )
        assert done.is_success, done.text

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            self.call("GET", "/api/v1/namespaces/default")
            return True
        return False


@contextlib.contextmanager
def process(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        running = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def api_server(directory: Path, services: str = "10.100.0.0/24") -> Iterator[Api]:
    """An API server that keeps everything in `directory` and ends with the context.

    ClusterIPs are of the networks `services`.
    """
    programs = sorted(CACHE.glob("kubernetes-*/kube-apiserver"))
    assert programs, f"no kube-apiserver in {CACHE}: run `make setup`, which builds it"
    etcd, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    one = Api(directory, free_port(), etcd)
    (directory / "tokens").write_text(
        "admin,admin,1,system:masters\n"
        "nobody,nobody,2\n"
        "connector,system:serviceaccount:ringfence:connector,3\n"
    )
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,  # the only one that Kubernetes reads
        serialization.NoEncryption(),
    )
    (directory / "key.pem").write_bytes(key)
    etcd_flags = [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]
    flags = [
        f"--etcd-servers={etcd}",
        "--watch-cache=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={one.port}",
        f"--cert-dir={directory}",
        f"--token-auth-file={directory / 'tokens'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={directory / 'key.pem'}",
        f"--service-account-signing-key-file={directory / 'key.pem'}",
        f"--service-cluster-ip-range={services}",
        "--endpoint-reconciler-type=none",
        "--disable-admission-plugins=ServiceAccount",
    ]
    with (
        process(["etcd", *etcd_flags], directory / "etcd.log"),
        process([str(programs[-1]), *flags], directory / "apiserver.log") as server,
    ):
        deadline = time.monotonic() + 60
        while not one.ready():
            said = (directory / "apiserver.log").read_text()[-2000:]
            assert server.poll() is None, f"the API server ended:\n{said}"
            assert time.monotonic() < deadline, f"no API server after 60 s:\n{said}"
            time.sleep(0.2)
        yield one
