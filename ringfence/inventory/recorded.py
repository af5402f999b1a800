"""Inventories out of files: what `ringfence inventory -o json` prints, read back."""

from typing import Annotated

import msgspec

from ringfence.model.address import parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.protocol import parse_one_protocol
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)

_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class _ServicePort(msgspec.Struct):
    name: str
    protocol: str
    port: _Port
    node_port: _Port


class _Backend(msgspec.Struct):
    service_port: str
    protocol: str
    address: str
    port: _Port
    serving: bool
    key: str | None


class _Service(msgspec.Struct):
    type: ServiceType
    ports: list[_ServicePort]
    backends: list[_Backend]
    external_addresses: list[str]
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    balancer_addresses: list[str] = []
    source_ranges: list[str] = []


class _ContainerPort(msgspec.Struct):
    name: str
    protocol: str
    port: _Port


class _Item(msgspec.Struct):
    key: str
    kind: ItemKind
    kubernetes_cluster: str
    namespace: str
    name: str
    addresses: list[str]
    labels: dict[str, list[str]]
    node: str
    host_network: bool
    containers: list[_ContainerPort]
    service: _Service | None


def read_items(text: str, file_name: str) -> list[Item]:
    """The items of a file; raises InputError with the place of what is wrong."""
    try:
        return [_read(one) for one in msgspec.json.decode(text, type=list[_Item])]
    except (msgspec.MsgspecError, InputError, RecursionError) as error:
        raise InputError(
            f"{file_name}: not an inventory as `ringfence inventory -o json` prints it: {error}"
        ) from error


def _read(one: _Item) -> Item:
    is_network = one.kind is ItemKind.NETWORK
    return Item(
        key=ItemKey(one.key),
        kind=one.kind,
        cluster=ClusterId(one.kubernetes_cluster),
        namespace=one.namespace,
        name=one.name,
        addresses=() if is_network else tuple(map(parse_address, one.addresses)),
        labels={key: tuple(values) for key, values in one.labels.items()},
        node=one.node,
        host_network=one.host_network,
        containers=tuple(
            ContainerPort(port.name, parse_one_protocol(port.protocol), port.port)
            for port in one.containers
        ),
        service=_service(one.service) if one.service else None,
        network=parse_network(one.addresses[0]) if is_network and one.addresses else None,
    )


def _service(one: _Service) -> ServiceSpec:
    return ServiceSpec(
        one.type,
        tuple(
            ServicePort(port.name, parse_one_protocol(port.protocol), port.port, port.node_port)
            for port in one.ports
        ),
        tuple(
            Backend(
                backend.service_port,
                parse_one_protocol(backend.protocol),
                parse_address(backend.address),
                backend.port,
                backend.serving,
                ItemKey(backend.key) if backend.key is not None else None,
            )
            for backend in one.backends
        ),
        tuple(map(parse_address, one.external_addresses)),
        one.external_traffic_policy,
        tuple(map(parse_address, one.balancer_addresses)),
        tuple(map(parse_network, one.source_ranges)),
    )
