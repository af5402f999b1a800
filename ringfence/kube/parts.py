"""What the items of all Kubernetes objects are made of."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from ringfence.kube import schema
from ringfence.model import labels
from ringfence.model.address import Address, format_address, parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import parse_protocol
from ringfence.model.workload import ItemKind

MAX_ANNOTATION_BYTES = 256


def common_labels(
    cluster: ClusterId, kind: ItemKind, meta: schema.Metadata, addresses: Iterable[Address]
) -> Iterator[tuple[str, str]]:
    """What every item is labelled with, and its object's own labels."""
    yield labels.CLUSTER, cluster
    yield labels.KIND, kind.value
    yield labels.NAME, meta.name
    yield labels.NAMESPACE, meta.namespace
    for address in addresses:
        yield labels.ADDRESS, format_address(address)
    for key, value in (meta.labels or {}).items():
        yield labels.LABEL_PREFIX + key, value


def namespace_labels(namespace: schema.Bare | None) -> Iterator[tuple[str, str]]:
    """The labels of an object's namespace."""
    if namespace is not None:
        for key, value in (namespace.metadata.labels or {}).items():
            yield labels.NAMESPACE_LABEL_PREFIX + key, value


def annotation_labels(
    meta: schema.Metadata, annotations: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Those of an object's annotations that become labels."""
    held = meta.annotations or {}
    for key in annotations:
        if key in held and len(held[key].encode()) <= MAX_ANNOTATION_BYTES:
            yield labels.ANNOTATION_PREFIX + key, held[key]


_OPTIONAL = frozenset({labels.NAMESPACE, labels.NODE, labels.SERVICE_ACCOUNT})


def made(pairs: Iterable[tuple[str, str]]) -> labels.Labels:
    """Labels of the pairs; what Kubernetes leaves empty is left out."""
    return labels.make_labels(pair for pair in pairs if pair[1] or pair[0] not in _OPTIONAL)


def protocol_of(text: str) -> int | None:
    """The protocol's number; None for one that is none, which then opens nothing."""
    try:
        return parse_protocol(text)
    except InputError:
        return None


def addresses_of(texts: Iterable[str]) -> tuple[Address, ...]:
    """Those that are IP addresses (not host names, not `None`), in order, each once."""
    found: dict[Address, None] = {}
    for text in texts:
        try:
            found[parse_address(text)] = None
        except InputError:
            continue
    return tuple(found)


def epoch_ns(time: datetime | None) -> int:
    """0 for none."""
    return int(time.timestamp()) * 10**9 if time is not None else 0
