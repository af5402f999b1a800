"""The parts of Kubernetes objects that the inventory is made of, decoded straight from JSON.

Go writes an empty list as null in places, so every list and map may be None. Field names are
those of the Kubernetes API reference.
"""

from datetime import datetime
from typing import Any

import msgspec

from ringfence.kube.references import hosts


class _Part(msgspec.Struct, rename="camel", frozen=True):
    pass


class OwnerReference(_Part, frozen=True):
    """Who owns an object; at most one owner is its controller."""

    kind: str
    name: str
    uid: str
    controller: bool | None = None


class Metadata(_Part, frozen=True):
    """ObjectMeta."""

    name: str
    uid: str
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class Bare(_Part, frozen=True):
    """An object of which only the metadata matters."""

    metadata: Metadata


class ContainerPort(_Part, frozen=True):
    """A port that a container declares."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Dialled(_Part, frozen=True):
    """What the kubelet dials: the target of httpGet, tcpSocket or grpc."""

    port: int | str
    host: str = ""


class Handler(_Part, frozen=True):
    """A probe or a lifecycle hook."""

    http_get: Dialled | None = None
    tcp_socket: Dialled | None = None
    grpc: Dialled | None = None


class Lifecycle(_Part, frozen=True):
    """A container's hooks."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None


class Capabilities(_Part, frozen=True):
    """What a container may do besides what its runtime lets all of them do."""

    add: list[str] | None = None


class SecurityContext(_Part, frozen=True):
    """What a container is allowed."""

    privileged: bool | None = None
    capabilities: Capabilities | None = None


class Variable(_Part, frozen=True):
    """One of a container's environment; `value` is empty where it comes from elsewhere."""

    name: str
    value: str = ""


class Container(_Part, frozen=True):
    """A container of a pod, an init container or an ephemeral one.

    Its environment and arguments may hold secrets: only what may be hosts in them outlives the
    decoding, as `hosts`.
    """

    security_context: SecurityContext | None = None
    restart_policy: str = ""
    ports: list[ContainerPort] | None = None
    liveness_probe: Handler | None = None
    readiness_probe: Handler | None = None
    startup_probe: Handler | None = None
    lifecycle: Lifecycle | None = None
    env: list[Variable] | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pairs = [(one.name, one.value) for one in self.env or ()]
        told = hosts(pairs, [*(self.command or ()), *(self.args or ())])
        msgspec.structs.force_setattr(self, "hosts", told)
        for name in ("env", "command", "args"):
            msgspec.structs.force_setattr(self, name, None)


class PodSpec(_Part, frozen=True):
    """What a pod asks for."""

    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    ephemeral_containers: list[Container] | None = None


class PodIp(_Part, frozen=True):
    """One of a pod's addresses, of either family."""

    ip: str = ""


class PodCondition(_Part, frozen=True):
    """One aspect of a pod's state, and since when it is so."""

    type: str
    status: str
    last_transition_time: datetime | None = None


class PodStatus(_Part, frozen=True):
    """What a pod has become."""

    phase: str = ""
    conditions: list[PodCondition] | None = None
    start_time: datetime | None = None
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIp] | None = msgspec.field(name="podIPs", default=None)


class Pod(_Part, frozen=True):
    """A pod."""

    metadata: Metadata
    spec: PodSpec
    status: PodStatus = PodStatus()


class NodeAddress(_Part, frozen=True):
    """An address or a host name of a node."""

    type: str
    address: str


class NodeStatus(_Part, frozen=True):
    """What a node says of itself."""

    addresses: list[NodeAddress] | None = None


class NodeSpec(_Part, frozen=True):
    """What a node is given."""

    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class Node(_Part, frozen=True):
    """A node."""

    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ServicePort(_Part, frozen=True):
    """A port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ServiceSpec(_Part, frozen=True):
    """What a Service asks for."""

    type: str = "ClusterIP"
    ports: list[ServicePort] | None = None
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    external_traffic_policy: str = ""
    load_balancer_source_ranges: list[str] | None = None


class Ingress(_Part, frozen=True):
    """An address of a load balancer."""

    ip: str = ""


class LoadBalancer(_Part, frozen=True):
    """The load balancer before a Service."""

    ingress: list[Ingress] | None = None


class ServiceStatus(_Part, frozen=True):
    """What a Service has become."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(_Part, frozen=True):
    """A Service."""

    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()


class Conditions(_Part, frozen=True):
    """Of an endpoint."""

    ready: bool | None = None
    serving: bool | None = None


class TargetRef(_Part, frozen=True):
    """What stands behind an endpoint."""

    kind: str = ""
    uid: str = ""


class Endpoint(_Part, frozen=True):
    """One backend in a slice."""

    addresses: list[str] | None = None
    conditions: Conditions = Conditions()
    target_ref: TargetRef | None = None


class EndpointPort(_Part, frozen=True):
    """A port of every endpoint of a slice."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class EndpointSlice(_Part, frozen=True):
    """Some of a Service's endpoints."""

    metadata: Metadata
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Policy(_Part, frozen=True):
    """A network policy of any kind: what it says is for others to understand.

    Only those of a definition of their own tell their version wherever they are told.
    """

    metadata: Metadata
    api_version: str = ""
    spec: Any = None


class PortReference(_Part, frozen=True):
    """A Service's port by its number or by its name."""

    number: int = 0
    name: str = ""


class ServiceReference(_Part, frozen=True):
    """A Service of an Ingress's own namespace."""

    name: str
    port: PortReference = PortReference()


class IngressBackend(_Part, frozen=True):
    """Where an Ingress leads."""

    service: ServiceReference | None = None


class IngressPath(_Part, frozen=True):
    """One path of a rule."""

    backend: IngressBackend


class IngressPaths(_Part, frozen=True):
    """The paths of a rule."""

    paths: list[IngressPath] | None = None


class IngressRule(_Part, frozen=True):
    """What an Ingress does for one host."""

    http: IngressPaths | None = None


class IngressSpec(_Part, frozen=True):
    """What an Ingress does."""

    default_backend: IngressBackend | None = None
    rules: list[IngressRule] | None = None


class HttpIngress(_Part, frozen=True):
    """An Ingress."""

    metadata: Metadata
    spec: IngressSpec = IngressSpec()


class BackendReference(_Part, frozen=True):
    """Where an HTTPRoute leads: a Service if nothing else is said, of its own namespace."""

    name: str
    kind: str = "Service"
    namespace: str = ""
    port: int | None = None


class HttpRouteRule(_Part, frozen=True):
    """One rule of an HTTPRoute."""

    backend_refs: list[BackendReference] | None = None


class HttpRouteSpec(_Part, frozen=True):
    """What an HTTPRoute does."""

    rules: list[HttpRouteRule] | None = None


class HttpRoute(_Part, frozen=True):
    """An HTTPRoute of the Gateway API."""

    metadata: Metadata
    spec: HttpRouteSpec = HttpRouteSpec()


Object = Bare | Pod | Node | Service | EndpointSlice | Policy | HttpIngress | HttpRoute
