"""The kinds of receivers there are. A kind's libraries are loaded when it is asked for."""

import importlib
from collections.abc import Iterable

from ringfence.export.interface import Exporter
from ringfence.export.url import ExportUrl
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


def make_exporters(urls: Iterable[ExportUrl]) -> dict[str, Exporter]:
    """The exporters by name; raises InputError where a URL does not fit its kind or comes twice."""
    made: dict[str, Exporter] = {}
    for url in urls:
        if str(url) in made:
            raise InputError(f"export {url}: give it once")
        made[str(url)] = make_exporter(url)
    return made


def make_exporter(url: ExportUrl) -> Exporter:
    """The exporter, not connected yet; raises InputError where the URL does not fit its kind."""
    if url.scheme not in KINDS:
        raise InputError(f"export {url}: begin with one of {', '.join(KINDS)}, and a colon")
    module, name = KINDS[url.scheme]
    kind: type[Exporter] = getattr(importlib.import_module(f"ringfence.export.{module}"), name)
    unknown = url.options.keys() - kind.options
    if unknown:
        known = ", ".join(sorted(kind.options)) or "none"
        raise InputError(f"export {url}: no option {min(unknown)!r}; there are: {known}")
    return kind(url)
