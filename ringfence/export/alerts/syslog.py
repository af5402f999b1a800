"""Notices as syslog messages (RFC 5424) over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425)."""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence

import msgspec

from ringfence.export.alerts.interface import AlertSink, Message, shortened
from ringfence.export.errors import ExportError, reason
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError

_PORTS = {"syslog+udp": 514, "syslog+tcp": 601, "syslog+tls": 6514}
_TIMEOUT_SECONDS = 20.0
_LOCAL0, _WARNING, _NOTICE = 16, 4, 5
_ENTERPRISE = 32473
"""The number that RFC 5612 keeps for documentation: we have none of our own."""
_NAMES = {"decided_by": "decidedBy"}


class Syslog(AlertSink):
    """`syslog+udp://HOST:514`, `syslog+tcp://HOST:601`, `syslog+tls://HOST:6514?ca-file=PATH`."""

    options = frozenset({"ca-file"})

    def __init__(self, url: ExportUrl, secret: str) -> None:
        if secret:
            raise InputError(f"alert sink {url}: syslog takes no secret")
        if "ca-file" in url.options and url.scheme != "syslog+tls":
            raise InputError(f"alert sink {url}: ca-file is for syslog+tls")
        self._name, self._scheme = str(url), url.scheme
        self._host, self._port = url.host(_PORTS[url.scheme])
        self._trusted: ssl.SSLContext | None = None
        if url.scheme == "syslog+tls":
            try:
                self._trusted = ssl.create_default_context(cafile=url.options.get("ca-file"))
            except OSError as error:
                raise InputError(f"alert sink {url}: ca-file is no file of certificates") from error

    async def send(self, notices: Sequence[Message]) -> None:
        """Send a message for each; over UDP nobody says that it came."""
        for notice in notices:
            await self._send(notice)

    async def _send(self, notice: Message) -> None:
        message = encode(notice, socket.gethostname(), os.getpid())
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                if self._scheme == "syslog+udp":
                    await self._send_datagram(message)
                else:
                    await self._send_framed(message)
        except TimeoutError as error:
            raise ExportError(f"{self._name}: no answer") from error
        except OSError as error:
            raise ExportError(f"{self._name}: {reason(error)}") from error

    async def _send_datagram(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        place = self._host, self._port
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=place
        )
        transport.sendto(message)
        transport.close()

    async def _send_framed(self, message: bytes) -> None:
        """Send it with its length before it, and wait until the receiver has closed too.

        A TCP connection that breaks later would have lost it unnoticed.
        """
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._trusted)
        try:
            writer.write(b"%d %s" % (len(message), message))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


def _written(value: object) -> str:
    """A datagram has room for a part of a long list only."""
    return ", ".join(shortened(value)) if isinstance(value, list) else str(value)


def encode(notice: Message, host: str, pid: int) -> bytes:
    """A message of RFC 5424: structured data, and the title in UTF-8 after a byte order mark."""
    severity = _WARNING if notice.state == "opened" else _NOTICE
    told = msgspec.to_builtins(notice)
    parameters = " ".join(
        f'{_NAMES.get(name, name)}="{_escaped(_written(value))}"' for name, value in told.items()
    )
    printable = "".join(letter for letter in host if "!" <= letter <= "~")[:255] or "-"
    head = (
        f"<{_LOCAL0 * 8 + severity}>1 {notice.last} {printable} ringfence {pid} ALERT "
        f"[alert@{_ENTERPRISE} {parameters}] "
    )
    return head.encode() + b"\xef\xbb\xbf" + notice.title.encode()


def _escaped(value: str) -> str:
    """RFC 5424 §6.3.3; line breaks would end a message where receivers frame by them."""
    for letter in ("\\", '"', "]"):
        value = value.replace(letter, f"\\{letter}")
    return "".join(letter if letter.isprintable() else " " for letter in value)
