"""Notices in HTTP requests: a webhook of anybody's, or one in Slack's format."""

import ssl
from abc import abstractmethod
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx

from ringfence.export.alerts.interface import AlertSink, Message, fields, text, title
from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError

_TIMEOUT_SECONDS = 20.0
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class _Http(AlertSink):
    """Posts JSON; the receiver is told in errors by a name that is no secret."""

    takes_secret = True

    _name: str
    _url: str
    _headers: dict[str, str]
    _trusted: ssl.SSLContext | None = None
    """What is trusted instead of what everybody trusts; None for the latter."""

    @abstractmethod
    def body(self, notices: Sequence[Message]) -> dict[str, Any]:
        """What is posted."""

    async def send(self, notices: Sequence[Message]) -> None:
        """Post one request; any answer of 2xx is a yes. Nobody reads what else it says."""
        body, headers = self.body(notices), self._headers
        try:
            async with (
                httpx.AsyncClient(
                    timeout=_TIMEOUT_SECONDS, trust_env=False, verify=self._trusted or True
                ) as client,
                client.stream("POST", self._url, json=body, headers=headers) as answer,
            ):
                pass
        except Exception as error:  # noqa: BLE001 - what encodes raises many things
            # Its text may have the URL or the token.
            raise ExportError(f"{self._name}: {type(error).__name__}") from None
        if answer.is_success:
            return
        told = f"{self._name}: it answered {answer.status_code}"
        if answer.is_server_error or answer.status_code in _AGAIN:
            after = answer.headers.get("retry-after", "")
            raise ExportError(told, float(after) if after.isdecimal() else 0.0)
        raise RefusedError(told, len(notices))


class Webhook(_Http):
    """`webhook+https://HOST/PATH` (or `+http`); the secret goes as a bearer token.

    `?ca-file=PATH` names other certificates to trust than the usual ones.
    """

    options = frozenset({"ca-file"})

    def __init__(self, url: ExportUrl, secret: str) -> None:
        scheme = url.scheme.removeprefix("webhook+")
        if not url.place:
            raise InputError(f"alert sink {url}: write webhook+https://HOST/PATH")
        self._name, self._url = str(url), f"{scheme}://{url.place}{url.path}"
        if not _fits(self._url):
            raise InputError(f"alert sink {url}: it is no URL that HTTP can be asked for")
        if not (secret.isascii() and secret.isprintable()):
            raise InputError(f"alert sink {url}: a token has printable ASCII characters only")
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}
        if "ca-file" not in url.options:
            return
        if scheme != "https":
            raise InputError(f"alert sink {url}: ca-file is for webhook+https")
        try:
            self._trusted = ssl.create_default_context(cafile=url.options["ca-file"])
        except OSError as error:
            raise InputError(f"alert sink {url}: ca-file is no file of certificates") from error

    def body(self, notices: Sequence[Message]) -> dict[str, Any]:
        """The notice's own fields."""
        return fields(notices)


class Slack(_Http):
    """`slack:`; the secret is the URL of an incoming webhook, of Slack or what has its format."""

    def __init__(self, url: ExportUrl, secret: str) -> None:
        if url.place or url.path or not _fits(secret):
            raise InputError(
                "a Slack sink is `slack:`, and its secret the webhook's URL, https://…"
            )
        self._name, self._url, self._headers = f"slack: at {httpx.URL(secret).host}", secret, {}

    def body(self, notices: Sequence[Message]) -> dict[str, Any]:
        """A message with a header and a section (Slack's Block Kit); `text` is the fallback."""
        header = {"type": "plain_text", "text": title(notices)[:150]}
        section = {"type": "mrkdwn", "text": _escaped(text(notices))[:3000]}
        return {
            "text": _escaped(title(notices)),
            "blocks": [
                {"type": "header", "text": header},
                {"type": "section", "text": section},
            ],
        }


def _fits(address: str) -> bool:
    """Whether a URL can be asked for over HTTP."""
    try:
        url = httpx.URL(address)
        port = urlsplit(address).port
    except (httpx.InvalidURL, ValueError):  # of `ValueError`: IDNA, IPv6 and ports
        return False
    return url.scheme in ("http", "https") and bool(url.host) and port != 0


def _escaped(line: str) -> str:
    """Names are hostile: none makes a link or calls a channel."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
