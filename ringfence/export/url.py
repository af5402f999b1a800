"""How an operator names a receiver: a URL that may be logged."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from ringfence.model.errors import InputError

_LAST_PORT = 65535


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

    def hosts(self, default: int) -> list[tuple[str, int]]:
        """The receivers that `place` names, between commas, with their ports; raises InputError."""
        try:
            return [_host_port(one, default) for one in self.place.split(",")]
        except InputError as error:
            raise InputError(f"export {self}: {error}") from error

    def host(self, default: int) -> tuple[str, int]:
        """The one receiver that `place` names, and its port; raises InputError."""
        first, *more = self.hosts(default)
        if more:
            raise InputError(f"export {self}: give one HOST only")
        return first

    def whole(self, option: str, default: int) -> int:
        """An option that is a number from 1 on; raises InputError."""
        text = self.options.get(option, str(default))
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"export {self}: {option}={text!r} is not a number from 1 on")
        return int(text)

    def content(self, option: str) -> str:
        """The text of the file that an option names, empty without one; raises InputError."""
        if option not in self.options:
            return ""
        path = Path(self.options[option])
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"export {self}: {option}={str(path)!r} cannot be read") from error


def _host_port(text: str, default: int) -> tuple[str, int]:
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
