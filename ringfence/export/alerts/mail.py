"""Notices as e-mail over SMTP."""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import make_msgid

from ringfence.export.alerts.interface import AlertSink, Message, text, title
from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError

_TIMEOUT_SECONDS = 20.0
_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_PERMANENT = range(500, 600)
_LOGIN_WANTED = frozenset({530, 534, 535, 538})
"""Of the login: somebody may mend the password, and then the same words help."""


class Mail(AlertSink):
    """`smtp://HOST:25?from=A@B&to=C@D,E@F`, `smtp+starttls://` or `smtps://`.

    With `username=NAME` the secret is the password, which goes over TLS only. `ca-file=PATH` names
    other certificates to trust than the system's.
    """

    options = frozenset({"from", "to", "username", "ca-file"})
    takes_secret = True

    def __init__(self, url: ExportUrl, secret: str) -> None:
        self._name, self._scheme = str(url), url.scheme
        self._host, self._port = url.host(_PORTS[url.scheme])
        if not {"from", "to"} <= url.options.keys():
            raise InputError(f"alert sink {url}: write ?from=ADDRESS&to=ADDRESS,ADDRESS")
        self._from, self._to = url.options["from"], url.options["to"].split(",")
        self._user, self._secret = url.options.get("username", ""), secret
        if bool(self._user) != bool(secret):
            raise InputError(f"alert sink {url}: a username and a secret go together")
        if not (self._user + secret).isascii():
            raise InputError(
                f"alert sink {url}: a username and a secret have ASCII characters only"
            )
        if secret and url.scheme == "smtp":
            raise InputError(f"alert sink {url}: a password needs smtp+starttls or smtps")
        for address in (self._from, *self._to):
            if (
                "@" not in address
                or not address.isascii()
                or not address.isprintable()
                or any(c in address for c in " <>")
            ):
                raise InputError(f"alert sink {url}: {address!r} is no address")
        try:
            self._trusted = ssl.create_default_context(cafile=url.options.get("ca-file"))
        except OSError as error:
            raise InputError(f"alert sink {url}: ca-file is no file of certificates") from error

    async def send(self, notices: Sequence[Message]) -> None:
        """Send one message to all that are to have it."""
        await asyncio.to_thread(self._send, notices)

    def _send(self, notices: Sequence[Message]) -> None:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = (
            title(notices), self._from, ", ".join(self._to)
        )  # fmt: skip
        message["Message-ID"] = make_msgid(domain="ringfence")
        # Mail of one alert stands together.
        message["References"] = f"<alert-{notices[0].id}@ringfence>"
        message.set_content(f"{title(notices)}\n\n{text(notices)}\n")
        try:
            with self._connect() as server:
                if self._user:
                    server.login(self._user, self._secret)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            told = f"{self._name}: it refused all addresses"
            if all(code in _PERMANENT for code in codes):
                raise RefusedError(told, len(notices)) from None
            raise ExportError(told) from None
        except smtplib.SMTPAuthenticationError:
            raise ExportError(f"{self._name}: it does not take this username and secret") from None
        except smtplib.SMTPResponseException as error:
            told = f"{self._name}: it answered {error.smtp_code}"
            wrong_login = error.smtp_code in _LOGIN_WANTED
            if error.smtp_code in _PERMANENT and not wrong_login:
                raise RefusedError(told, len(notices)) from None
            raise ExportError(told) from None
        except Exception as error:  # noqa: BLE001 - what encodes raises many things
            # Its text may have the password.
            raise ExportError(f"{self._name}: {type(error).__name__}") from None

    def _connect(self) -> smtplib.SMTP:
        place, seconds = (self._host, self._port), _TIMEOUT_SECONDS
        if self._scheme == "smtps":
            return smtplib.SMTP_SSL(*place, timeout=seconds, context=self._trusted)
        server = smtplib.SMTP(*place, timeout=seconds)
        if self._scheme == "smtp+starttls":
            server.starttls(context=self._trusted)
        return server
