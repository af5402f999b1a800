"""Hosts that containers are told of by their environment, command and arguments.

An environment holds secrets. Nothing of it is kept but what names a Service of the cluster, or a
host outside with its port; what stands before an `@`, behind a `?`, or under a name that sounds
like a secret's is not even looked at.
"""

import re
from collections.abc import Container, Iterable, Iterator

Place = tuple[str, str]
"""Namespace and name of a Service."""

_LONGEST, _MOST = 4096, 64
_LAST_PORT = 2**16 - 1
_SECRET = re.compile(r"pass|pwd|secret|token|key|cred|auth|salt|sign", re.IGNORECASE)
_SECRET_SETTING = re.compile(
    r"[\w.-]*(?:pass|pwd|secret|token|key|cred|auth|salt|sign)[\w.-]*\s*[=:]\s*[^\s;,&]*",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"\S*@|[?#]\S*")
"""User and password of a URL, and its query."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(
    rf"(?<![\w.%-])(?:(?P<scheme>https?)://)?(?P<host>{_LABEL}(?:\.{_LABEL}){{0,8}})\.?"
    r"(?::(?P<port>[0-9]{1,5}))?(?![\w%-]|\.\w|:\w)",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(r"\.[a-z]{2,63}$")
_OF_SCHEME = {"http": "80", "https": "443"}


def hosts(environment: Iterable[tuple[str, str]], arguments: Iterable[str]) -> tuple[str, ...]:
    """What may be a host, `host` or `host:port`, in lower case and sorted; not secrets."""
    texts = [value for name, value in environment if not _SECRET.search(name)]
    before = ""
    for text in arguments:
        if not (before.startswith("-") and "=" not in before and _SECRET.search(before)):
            texts.append(text)
        before = text
    found = {host for text in texts for host in _in(text[:_LONGEST])}
    return tuple(sorted(found)[:_MOST])


def kept(told: Iterable[str], namespace: str, services: Container[Place]) -> tuple[str, ...]:
    """Of what may be hosts those that are: Services of the cluster, and names with a port."""
    return tuple(sorted({one for one in told if _is_host(one, namespace, services)}))


def places(told: Iterable[str], namespace: str) -> set[Place]:
    """The Services that hosts would be, if there are such."""
    return {_place(one.partition(":")[0], namespace) for one in told}


def _in(text: str) -> Iterator[str]:
    text = _SECRET_SETTING.sub(" ", _HIDDEN.sub(" ", text))
    for match in _HOST.finditer(text):
        host, scheme = match["host"].lower(), (match["scheme"] or "").lower()
        port = match["port"] or _OF_SCHEME.get(scheme, "")
        if not any(letter.isalpha() for letter in host) or int(port or 0) > _LAST_PORT:
            continue
        yield f"{host}:{port}" if port else host


def _is_host(told: str, namespace: str, services: Container[Place]) -> bool:
    host, _, port = told.partition(":")
    return _place(host, namespace) in services or bool(port and _OUTSIDE.search(host))


def _place(host: str, namespace: str) -> Place:
    """As a pod's resolver would find it: `name`, `name.namespace`, `name.namespace.svc…`."""
    name, _, rest = host.partition(".")
    space, _, domain = rest.partition(".")
    if domain and domain != "svc" and not domain.startswith("svc."):
        return "", ""
    return space or namespace, name
