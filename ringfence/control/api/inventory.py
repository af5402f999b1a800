"""What exists, or existed at a time."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time, parse_time
from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.written import write_inventory, write_service
from ringfence.model import query
from ringfence.model.address import format_address
from ringfence.model.ids import RevisionId
from ringfence.model.keys import parse_filter
from ringfence.model.labels import OWNER_KIND, OWNER_NAME
from ringfence.model.protocol import format_protocol
from ringfence.model.query import Everything
from ringfence.model.workload import Item, ItemKind, ServiceSpec, TrafficPolicy
from ringfence.policy.quarantine import quarantined

router = APIRouter(tags=["inventory"])


class ServicePortResponse(BaseModel):
    """One port of a Service; `node_port` is 0 where there is none."""

    name: str
    protocol: str
    port: int
    node_port: int


class BackendResponse(BaseModel):
    """One endpoint behind one port of a Service."""

    service_port: str
    protocol: str
    address: str
    port: int
    serving: bool
    key: str | None = Field(description="The item that serves, null for none in the inventory.")


class ServiceResponse(BaseModel):
    """What a Service has besides its labels."""

    type: str
    ports: list[ServicePortResponse]
    backends: list[BackendResponse]
    external_addresses: list[str]
    external_traffic_policy: TrafficPolicy
    balancer_addresses: list[str] = Field(
        description="Of the external addresses those for which the source ranges hold."
    )
    source_ranges: list[str] = Field(description="From where the load balancer is dialled.")
    routes: list[str] = Field(
        description="Ingresses and HTTPRoutes that lead to it, KIND/NAMESPACE/NAME:PORT."
    )


class ContainerPortResponse(BaseModel):
    """A port that a pod's containers declare; the name may be empty."""

    name: str
    protocol: str
    port: int


class ItemResponse(BaseModel):
    """One item; `since` is when it became as it is. Quarantines are those of now."""

    key: str
    kind: ItemKind
    kubernetes_cluster: str
    namespace: str
    name: str
    addresses: list[str]
    labels: dict[str, list[str]]
    node: str
    host_network: bool
    owner: str
    quarantine: str | None = Field(description="The quarantine that holds it, null for none.")
    since: str
    containers: list[ContainerPortResponse] = Field(description="The ports that a pod declares.")
    references: list[str] = Field(description="Hosts that a pod's environment names.")
    service: ServiceResponse | None


class InventoryResponse(BaseModel):
    """Items by kind, namespace and name; `total` counts those beyond the limit as well."""

    items: list[ItemResponse]
    total: int


@router.get("/inventory")
async def list_items(
    services: ServicesDep,
    filter_text: Annotated[str | None, Query(alias="filter")] = None,
    kind: ItemKind | None = None,
    at: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
) -> InventoryResponse:
    """List items that satisfy a filter."""
    timeline = services.inventory.timeline
    at_ns = FOREVER - 1 if at is None else parse_time(at, services.clock())
    snapshot = await asyncio.to_thread(timeline.as_known().at, at_ns)
    held = {
        position: one.name
        for one in reversed(await services.quarantines.all())
        for position in quarantined(snapshot, one)
    }
    wanted = parse_filter(filter_text) if filter_text else Everything()
    chosen = await asyncio.to_thread(_chosen, snapshot, wanted, kind)
    items = []
    for position in chosen[:limit]:
        _, since_ns, _ = timeline.revision(RevisionId(int(snapshot.revisions[position])))
        items.append(_item(snapshot.items[position], since_ns, held.get(position)))
    return InventoryResponse(items=items, total=len(chosen))


@router.get("/inventory/export", response_class=Response)
async def export_items(
    services: ServicesDep,
    filter_text: Annotated[str | None, Query(alias="filter")] = None,
    since: str = "24h",
    until: str | None = None,
) -> Response:
    """Give all that existed in a time, each item in each of its lives.

    docs/inventory-export.md tells the form, which a file has as well.
    """
    window = read_window(services, since, until)
    wanted = parse_filter(filter_text) if filter_text else Everything()
    lives = services.inventory.timeline.lives(wanted, window["since"], window["until"])
    text = await asyncio.to_thread(write_inventory, lives, window["since"], window["until"])
    return Response(text, media_type="application/json")


def _chosen(snapshot: Snapshot, wanted: query.Query, kind: ItemKind | None) -> list[int]:
    chosen = [
        position
        for position in snapshot.select(wanted)
        if kind is None or snapshot.items[position].kind is kind
    ]
    return sorted(chosen, key=lambda position: _place(snapshot.items[position]))


def _place(item: Item) -> tuple[str, str, str, str]:
    return item.kind, item.namespace, item.name, item.key


def _item(item: Item, since_ns: int, quarantine: str | None) -> ItemResponse:
    owner = [*item.labels.get(OWNER_KIND, ())[:1], *item.labels.get(OWNER_NAME, ())[:1]]
    return ItemResponse(
        key=item.key,
        kind=item.kind,
        kubernetes_cluster=item.cluster,
        namespace=item.namespace,
        name=item.name,
        addresses=[str(item.network)]
        if item.network
        else [format_address(address) for address in item.addresses],
        labels={key: list(values) for key, values in item.labels.items()},
        node=item.node,
        host_network=item.host_network,
        owner="/".join(owner),
        quarantine=quarantine,
        since=format_time(since_ns),
        containers=[
            ContainerPortResponse(
                name=port.name, protocol=format_protocol(port.protocol), port=port.port
            )
            for port in item.containers
        ],
        references=list(item.references),
        service=_service(item.service) if item.service else None,
    )


def _service(spec: ServiceSpec) -> ServiceResponse:
    """As the file format writes it."""
    return ServiceResponse.model_validate(write_service(spec), from_attributes=True)
