"""The certificates are what Kubernetes and TLS clients ask of them."""

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from ringfence.lab.pki import Authority, KeyPair


async def _handshake(authority: Authority, server: KeyPair, client: KeyPair, name: str) -> str:
    """Connect with mutual TLS over loopback; returns the client's name as the server saw it."""
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cert))
    listening.load_cert_chain(server.cert, server.key)
    listening.verify_mode = ssl.CERT_REQUIRED
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = writer.get_extra_info("peercert")["subject"]
        seen.set_result(dict(pair for rdn in subject for pair in rdn)["commonName"])
        writer.close()

    connecting = ssl.create_default_context(cafile=str(authority.cert))
    connecting.load_cert_chain(client.cert, client.key)
    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=listening) as tcp:
        port = tcp.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=connecting, server_hostname=name
        )
        common_name = await seen
        writer.close()
        return common_name


async def test_certificates_serve_their_hosts_and_name_their_user(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    server = authority.issue("server", "kube-apiserver", "system:masters", ["localhost", "::1"])
    client = authority.issue("client", "system:node:node1", "system:nodes")
    assert await _handshake(authority, server, client, "localhost") == "system:node:node1"
    with pytest.raises(ssl.SSLCertVerificationError):
        await _handshake(authority, server, client, "elsewhere")


def test_keys_are_private(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("admin", "admin", "system:masters")
    kubeconfig = authority.kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", pair)
    for path in (pair.key, kubeconfig):
        assert path.stat().st_mode & 0o077 == 0
    assert json.loads(kubeconfig.read_text())["current-context"] == "lab"
