"""What every kind of exporter is, and how an operator names one."""

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from ringfence.model.errors import InputError

KINDS = {
    "ipfix+udp": ("ipfix", "Ipfix"),
    "ipfix+tcp": ("ipfix", "Ipfix"),
    "jsonl": ("jsonl", "JsonLines"),
    "kafka": ("kafka", "Kafka"),
    "kafka+tls": ("kafka", "Kafka"),
    "otlp+http": ("otlp", "Otlp"),
    "otlp+https": ("otlp", "Otlp"),
}
"""Scheme: (module of this package, class). A module is imported when its kind is asked for."""

_LAST_PORT = 65535


class Exporter(ABC):
    """Hands conversations to one receiver. Not for concurrent use."""

    options: ClassVar[frozenset[str]] = frozenset()
    """What may stand behind the `?` of its URL."""

    @abstractmethod
    def __init__(self, url: "ExportUrl") -> None:
        """Inert; raises InputError where the URL does not fit the kind."""

    @abstractmethod
    async def send(self, conversations: pa.RecordBatch) -> None:
        """Hand over a batch of CONVERSATIONS, connecting first where need be.

        Raises ExportError, after which the whole batch may be sent again, or RefusedError.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the receiver; `send` connects again."""


@dataclass(frozen=True, slots=True)
class ExportUrl:
    """`scheme://place/path?option=value`; holds no secret, so it may be logged."""

    scheme: str
    place: str
    path: str
    options: dict[str, str]

    def __str__(self) -> str:
        """Without the options, as logs and metrics name the exporter."""
        return f"{self.scheme}:{f'//{self.place}' if self.place else ''}{self.path}"

    def host_port(self, default: int) -> tuple[str, int]:
        """The one receiver that `place` names; raises InputError."""
        return host_port(self.place, default)

    def whole(self, option: str, default: int) -> int:
        """An option that is a number from 1 on; raises InputError."""
        text = self.options.get(option, str(default))
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"export {self}: {option}={text!r} is not a number from 1 on")
        return int(text)

    def secret(self, option: str) -> str:
        """The text of the file that an option names, empty without one; raises InputError."""
        if option not in self.options:
            return ""
        path = Path(self.options[option])
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"export {self}: {option}={str(path)!r} cannot be read") from error


def host_port(text: str, default: int) -> tuple[str, int]:
    """Read `host`, `host:port` or `[IPv6]:port`; raises InputError."""
    host, port = text, str(default)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= _LAST_PORT:
        raise InputError(f"{text!r}: write HOST or HOST:PORT, an IPv6 address as [::1]:PORT")
    return host, int(port)


def parse_url(text: str) -> ExportUrl:
    """Read what `--export` is given; raises InputError."""
    try:
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise InputError(f"export {text!r}: {error}") from error
    if parts.scheme not in KINDS:
        raise InputError(f"export {text!r}: begin with one of {', '.join(KINDS)}, and a colon")
    if "@" in parts.netloc:
        raise InputError(
            f"an export to {parts.netloc.rpartition('@')[2]} has a user or password in its URL, "
            "which others on the machine can read: name files in options"
        )
    if parts.fragment:
        raise InputError(f"export {text!r}: nothing may follow a '#'; write it %23")
    for option, value in options:
        if not value:
            raise InputError(f"export {text!r}: {option} has no value")
    return ExportUrl(parts.scheme, parts.netloc, parts.path, dict(options))


def make_exporter(url: ExportUrl) -> Exporter:
    """The exporter, not connected yet; raises InputError where the URL does not fit its kind."""
    module, name = KINDS[url.scheme]
    kind: type[Exporter] = getattr(importlib.import_module(f"ringfence.export.{module}"), name)
    unknown = url.options.keys() - kind.options
    if unknown:
        known = ", ".join(sorted(kind.options)) or "none"
        raise InputError(f"export {url}: no option {min(unknown)!r}; there are: {known}")
    return kind(url)
