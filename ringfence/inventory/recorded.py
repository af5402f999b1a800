"""Inventories out of files, which may be broken or hostile.

docs/inventory-export.md tells the form. Read are what `ringfence inventory export` writes, and the
bare list of `ringfence inventory -o json`.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import yaml

from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.file_errors import described
from ringfence.inventory.file_format import InventoryFile, ItemRecord, ServiceRecord
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.timeline import Life, Timeline
from ringfence.inventory.yaml_values import yaml_values
from ringfence.model import labels
from ringfence.model.address import parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ItemKey, item_key
from ringfence.model.instant import parse_instant
from ringfence.model.protocol import parse_one_protocol
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
)

T = TypeVar("T")
_LONGEST_NAME = 253
"""As in Kubernetes."""
ALWAYS_NS = -FOREVER
"""From when an item lived of which the file does not say."""


@dataclass(frozen=True)
class Recorded:
    """What a file tells of [since_ns, until_ns), epoch ns."""

    timeline: Timeline
    since_ns: int
    until_ns: int

    def last(self) -> Snapshot:
        """What existed in the end."""
        return self.timeline.at(self.until_ns - 1)

    def expected(self) -> list[Item]:
        """As `last`, with a pod of each CronJob that waits for its next run."""
        return self.timeline.as_known().expected(self.until_ns - 1)


def read_inventory(text: str, file_name: str) -> Recorded:
    """The history that a file tells; raises InputError with the place of what is wrong."""
    told = _decode(text, file_name)
    lives = [_placed(one, at, file_name) for at, one in enumerate(told.items)]
    last: dict[ItemKey, int] = {}
    for at in sorted(range(len(lives)), key=lambda at: lives[at].from_ns):
        life = lives[at]
        before = last.get(life.item.key)
        if before is not None and lives[before].to_ns > life.from_ns:
            raise InputError(
                f"{file_name}: items[{at}]: {life.item.display} already stands in"
                f" items[{before}] for the same time: expected `from` and `to` that do not overlap"
            )
        last[life.item.key] = at
    timeline = Timeline()
    timeline.recall(lives)
    since_ns, until_ns = ALWAYS_NS, max((life.to_ns for life in lives), default=FOREVER)
    if told.from_ is not None:
        since_ns = _instant(told.from_, "from", file_name)
    if told.to is not None:
        until_ns = _instant(told.to, "to", file_name)
        if since_ns > until_ns:
            raise InputError(f"{file_name}: expected `from` before `to`: {told.from_}, {told.to}")
    return Recorded(timeline, since_ns, until_ns)


def _instant(written: str, name: str, file_name: str) -> int:
    try:
        return parse_instant(written)
    except InputError as error:
        raise InputError(f"{file_name}: {name}: {error}") from error


def read_items(text: str, file_name: str) -> list[Item]:
    """The items of a file as they were in the end; raises InputError as `read_inventory` does."""
    return list(read_inventory(text, file_name).last().items)


def _decode(text: str, file_name: str) -> InventoryFile:
    """A file in JSON or YAML, with what holds the items all or as a bare list of them."""
    values = None
    in_json = text.lstrip()[:1] in ("{", "[")
    try:
        if in_json:
            found = msgspec.json.decode(text, type=InventoryFile | list[ItemRecord])
        else:
            values = yaml_values(text)
            kind = list[ItemRecord] if isinstance(values, list) else InventoryFile
            found = msgspec.convert(values, kind, strict=False)  # scalars are texts
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{file_name}: {line}not YAML: {error.problem}") from error
    except (msgspec.MsgspecError, yaml.YAMLError, ValueError, RecursionError) as error:
        said = f"not an inventory as `ringfence inventory export` writes it: {error}"
        if isinstance(error, msgspec.ValidationError):
            with suppress(msgspec.DecodeError, RecursionError):  # what comes after may be worse
                said = described(msgspec.json.decode(text) if in_json else values, error)
        raise InputError(f"{file_name}: {said}") from error
    return (
        found if isinstance(found, InventoryFile) else InventoryFile(kind="Inventory", items=found)
    )


def _placed(one: ItemRecord, at: int, file_name: str) -> Life:
    try:
        return _life(one)
    except InputError as error:
        what = f" ({one.name})" if one.name and one.name.isprintable() else ""
        raise InputError(f"{file_name}: items[{at}]{what}: {error}") from error


def _life(one: ItemRecord) -> Life:
    from_ns = _read("from", parse_instant, one.from_) if one.from_ is not None else ALWAYS_NS
    to_ns = _read("to", parse_instant, one.to) if one.to is not None else FOREVER
    if from_ns >= to_ns:
        raise InputError(f"expected `from` before `to`: {one.from_}, {one.to}")
    return Life(from_ns, to_ns, _item(one))


def _read(field: str, read: Callable[[str], T], text: str) -> T:
    """What a text of a field says; raises InputError that names the field."""
    try:
        return read(text)
    except InputError as error:
        raise InputError(f"{field}: {error}") from error


def _each(field: str, read: Callable[[str], T], texts: Iterable[str]) -> tuple[T, ...]:
    return tuple(_read(field, read, text) for text in texts)


def _protocol(field: str, text: str) -> int:
    return _read(f"{field}: protocol", parse_one_protocol, text)


def _refuse_odd_names(one: ItemRecord) -> None:
    """Policies are called after these, and name Services by them."""
    said = {
        "name": one.name,
        "namespace": one.namespace,
        "kubernetes_cluster": one.kubernetes_cluster,
        "owner": one.owner or "",
        "workload_name": one.workload_name or "",
    }
    for field, value in said.items():
        if len(value) > _LONGEST_NAME or not value.isprintable():
            raise InputError(f"{field}: expected {_LONGEST_NAME} printable letters at most")
    whole = one.namespace and one.name and "/" not in one.namespace + one.name
    if one.kind is ItemKind.SERVICE and not whole:
        raise InputError("expected a Service with a namespace and a name, and no / in either")


def _item(one: ItemRecord) -> Item:
    _refuse_odd_names(one)
    is_network = one.kind is ItemKind.NETWORK
    if is_network and len(one.addresses) != 1:
        raise InputError("expected one block under `addresses` of a network")
    owner_kind, _, owner = (one.owner or "").rpartition("/")
    held = {
        key.lower(): (values,) if isinstance(values, str) else tuple(values)
        for key, values in one.labels.items()
    }
    if labels.KIND not in held:  # by hand, or another program's: filters ask for these
        said = [
            (labels.KIND, one.kind.value),
            (labels.NAME, one.name),
            (labels.CLUSTER, one.kubernetes_cluster),
            (labels.NAMESPACE, one.namespace),
            (labels.NODE, one.node or ""),
            (labels.OWNER_KIND, owner_kind),
            (labels.OWNER_NAME, owner),
            *((labels.ADDRESS, address) for address in one.addresses),
        ]
        held = {**labels.make_labels(pair for pair in said if pair[1]), **held}
    if not owner:
        owner = next(iter(held.get(labels.OWNER_NAME, ())), one.name)
    cluster = ClusterId(one.kubernetes_cluster)
    return Item(
        key=ItemKey(one.key) or item_key(cluster, one.kind, f"{one.namespace}/{one.name}"),
        kind=one.kind,
        cluster=cluster,
        namespace=one.namespace,
        name=one.name,
        addresses=() if is_network else _each("addresses", parse_address, one.addresses),
        labels=held,
        node=one.node or "",
        host_network=one.host_network,
        containers=tuple(
            ContainerPort(port.name, _protocol("containers", port.protocol), port.port)
            for port in one.containers
        ),
        probe_ports=tuple(
            sorted({(_protocol("probes", probe.protocol), probe.port) for probe in one.probes})
        ),
        service=_service(one.service) if one.service else None,
        network=_read("addresses", parse_network, one.addresses[0]) if is_network else None,
        exact_labels=tuple(one.exact_labels),
        manifest=one.manifest,
        pod_networks=_each("pod_networks", parse_network, one.pod_networks),
        net_admin=one.net_admin,
        references=tuple(one.references),
        workload_name=owner if one.workload_name is None else one.workload_name,
        since_ns=_read("addresses_since", parse_instant, one.addresses_since)
        if one.addresses_since is not None
        else 0,
    )


def _service(one: ServiceRecord) -> ServiceSpec:
    return ServiceSpec(
        one.type,
        tuple(
            ServicePort(
                port.name, _protocol("service.ports", port.protocol), port.port, port.node_port
            )
            for port in one.ports
        ),
        tuple(
            Backend(
                backend.service_port,
                _protocol("service.backends", backend.protocol),
                _read("service.backends: address", parse_address, backend.address),
                backend.port,
                backend.serving,
                ItemKey(backend.key) if backend.key is not None else None,
            )
            for backend in one.backends
        ),
        _each("service.external_addresses", parse_address, one.external_addresses),
        one.external_traffic_policy,
        _each("service.balancer_addresses", parse_address, one.balancer_addresses),
        _each("service.source_ranges", parse_network, one.source_ranges),
        tuple(one.routes),
    )
