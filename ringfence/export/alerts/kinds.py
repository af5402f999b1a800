"""The kinds of sinks there are. A kind's libraries are loaded when it is asked for."""

import importlib

from ringfence.export.alerts.interface import AlertSink
from ringfence.export.url import parse_url
from ringfence.model.errors import InputError

KINDS = {
    "webhook+http": ("http", "Webhook"),
    "webhook+https": ("http", "Webhook"),
    "slack": ("http", "Slack"),
    "smtp": ("mail", "Mail"),
    "smtp+starttls": ("mail", "Mail"),
    "smtps": ("mail", "Mail"),
    "syslog+udp": ("syslog", "Syslog"),
    "syslog+tcp": ("syslog", "Syslog"),
    "syslog+tls": ("syslog", "Syslog"),
    "kafka": ("kafka", "Kafka"),
    "kafka+tls": ("kafka", "Kafka"),
}
"""Scheme: (module of this package, class)."""


def make_sink(text: str, secret: str) -> AlertSink:
    """The sink of a URL, not connected yet; raises InputError where it fits no kind."""
    url = parse_url(text)
    if url.scheme not in KINDS:
        raise InputError(f"alert sink {url}: begin with one of {', '.join(KINDS)}, and a colon")
    module, name = KINDS[url.scheme]
    kind: type[AlertSink] = getattr(
        importlib.import_module(f"ringfence.export.alerts.{module}"), name
    )
    unknown = url.options.keys() - kind.options
    if unknown:
        known = ", ".join(sorted(kind.options)) or "none"
        raise InputError(f"alert sink {url}: no option {min(unknown)!r}; there are: {known}")
    try:
        return kind(url, secret)
    except InputError as error:  # what the kinds share with exports names those
        raise InputError(str(error).replace(f"export {url}:", f"alert sink {url}:", 1)) from error
