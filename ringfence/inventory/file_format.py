"""The form of inventories in files; docs/inventory-export.md tells it."""

from typing import Annotated, Any, Literal

import msgspec

from ringfence.model.workload import ItemKind, ServiceType, TrafficPolicy


def _told(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Protocol = Annotated[str, _told("TCP, UDP, SCTP, ICMP, ICMPv6, or the number.")]
_Time = Annotated[str, _told("RFC 3339, to the nanosecond.")]


class ServicePortRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One port of a Service; `node_port` is 0 where there is none."""

    name: str = ""
    protocol: _Protocol
    port: _Port
    node_port: _Port = 0


class BackendRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One endpoint behind one port of a Service."""

    service_port: Annotated[str, _told("The name of the Service's port.")] = ""
    protocol: _Protocol
    address: str
    port: _Port
    serving: bool = True
    key: Annotated[str | None, _told("The item that serves, null for none here.")] = None


class ServiceRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a Service has besides its labels."""

    type: ServiceType = ServiceType.CLUSTER_IP
    ports: list[ServicePortRecord] = []
    backends: list[BackendRecord] = []
    external_addresses: list[str] = []
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    balancer_addresses: list[str] = []
    source_ranges: list[str] = []
    routes: Annotated[
        list[str], _told("Ingresses and HTTPRoutes that lead to it, KIND/NAMESPACE/NAME:PORT.")
    ] = []


class ContainerPortRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A port that a pod's containers declare."""

    name: str = ""
    protocol: _Protocol
    port: _Port


class ProbeRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A port that the kubelet dials at a pod."""

    protocol: _Protocol = "TCP"
    port: _Port


class ItemRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One item in one of its lives."""

    key: Annotated[str, _told("Unique; left out, made of cluster, kind, namespace, name.")] = ""
    kind: ItemKind
    kubernetes_cluster: str = ""
    namespace: str = ""
    name: str
    from_: Annotated[_Time, _told("From when it was so; left out: always.")] | None = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[_Time, _told("Until when, exclusive; left out: it still is.")] | None = None
    addresses: Annotated[list[str], _told("Of a network, the one block that it is.")] = []
    labels: Annotated[
        dict[str, list[str] | str], _told("By the keys of filters; see docs/filters.md.")
    ] = {}
    node: Annotated[str | None, _told("The node that runs a pod.")] = None
    host_network: bool = False
    owner: Annotated[str | None, _told("The topmost owner of a pod, as KIND/NAME.")] = None
    workload_name: Annotated[
        str | None, _told("The topmost owner's name; left out, the owner's or its own.")
    ] = None
    containers: Annotated[list[ContainerPortRecord], _told("The ports that a pod declares.")] = []
    probes: Annotated[list[ProbeRecord], _told("The ports that the kubelet dials.")] = []
    references: Annotated[list[str], _told("Hosts that a pod's environment names.")] = []
    service: ServiceRecord | None = None
    pod_networks: Annotated[list[str], _told("Of a node, its pods' blocks.")] = []
    net_admin: Annotated[bool, _told("Whether a pod may change rules of its own.")] = False
    manifest: Annotated[str, _told("What a Kubernetes policy says, as JSON.")] = ""
    exact_labels: Annotated[
        list[tuple[str, str]], _told("Kubernetes labels whose keys have capital letters.")
    ] = []
    addresses_since: Annotated[_Time, _told("When it came to its addresses.")] | None = None


class InventoryFile(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What existed in a time, each item once for each of its lives."""

    kind: Literal["Inventory"]
    from_: Annotated[_Time, _told("What is told of begins here.")] | None = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[_Time, _told("What is told of ends here.")] | None = None
    items: list[ItemRecord]


def inventory_schema() -> dict[str, Any]:
    """The JSON Schema of an exported inventory (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence inventory",
        **msgspec.json.schema(InventoryFile),
    }
