"""Inventories written to files, as `inventory.recorded` reads them."""

from collections.abc import Iterable

import msgspec

from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.file_format import (
    BackendRecord,
    ContainerPortRecord,
    InventoryFile,
    ItemRecord,
    ProbeRecord,
    ServicePortRecord,
    ServiceRecord,
)
from ringfence.inventory.recorded import ALWAYS_NS
from ringfence.inventory.timeline import Life
from ringfence.model import labels
from ringfence.model.address import format_address
from ringfence.model.instant import format_instant
from ringfence.model.protocol import format_protocol
from ringfence.model.workload import ServiceSpec


def write_inventory(lives: Iterable[Life], since_ns: int, until_ns: int) -> bytes:
    """Lives as the JSON of an inventory of [since, until), epoch ns."""
    told = sorted(lives, key=lambda life: (life.item.kind, life.item.key, life.from_ns))
    return msgspec.json.encode(
        InventoryFile(
            kind="Inventory",
            from_=format_instant(since_ns),
            to=format_instant(until_ns),
            items=[_write(life) for life in told],
        )
    )


def _write(life: Life) -> ItemRecord:
    item = life.item
    owner = [*item.labels.get(labels.OWNER_KIND, ())[:1], *item.labels.get(labels.OWNER_NAME, ())]
    return ItemRecord(
        key=item.key,
        kind=item.kind,
        kubernetes_cluster=item.cluster,
        namespace=item.namespace,
        name=item.name,
        from_=format_instant(life.from_ns) if life.from_ns > ALWAYS_NS else None,
        to=format_instant(life.to_ns) if life.to_ns < FOREVER else None,
        addresses=[str(item.network)]
        if item.network
        else [format_address(address) for address in item.addresses],
        labels={key: list(values) for key, values in item.labels.items()},
        node=item.node or None,
        host_network=item.host_network,
        owner="/".join(owner[:2]) or None,
        workload_name=item.workload_name,
        containers=[
            ContainerPortRecord(
                name=port.name, protocol=format_protocol(port.protocol), port=port.port
            )
            for port in item.containers
        ],
        probes=[
            ProbeRecord(protocol=format_protocol(protocol), port=port)
            for protocol, port in item.probe_ports
        ],
        service=write_service(item.service) if item.service else None,
        pod_networks=[str(network) for network in item.pod_networks],
        net_admin=item.net_admin,
        references=list(item.references),
        manifest=item.manifest,
        exact_labels=list(item.exact_labels),
        addresses_since=format_instant(item.since_ns) if item.since_ns else None,
    )


def write_service(spec: ServiceSpec) -> ServiceRecord:
    """What a Service has besides its labels, as people read it."""
    return ServiceRecord(
        type=spec.type,
        ports=[
            ServicePortRecord(
                name=port.name,
                protocol=format_protocol(port.protocol),
                port=port.port,
                node_port=port.node_port,
            )
            for port in spec.ports
        ],
        backends=[
            BackendRecord(
                service_port=backend.service_port,
                protocol=format_protocol(backend.protocol),
                address=format_address(backend.address),
                port=backend.port,
                serving=backend.serving,
                key=backend.item,
            )
            for backend in spec.backends
        ],
        external_addresses=[format_address(address) for address in spec.external_addresses],
        external_traffic_policy=spec.external_traffic_policy,
        balancer_addresses=[format_address(address) for address in spec.balancer_addresses],
        source_ranges=[str(network) for network in spec.source_ranges],
        routes=list(spec.routes),
    )
