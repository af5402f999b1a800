"""Inventory items: workloads (pods, nodes, hosts), and what is around them."""

from dataclasses import dataclass, field
from enum import StrEnum

from ringfence.model.address import Address, Network, is_v4
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.labels import Labels


class ItemKind(StrEnum):
    """What an inventory item is. Only pods, nodes and hosts are workloads."""

    POD = "pod"
    NODE = "node"
    HOST = "host"
    SERVICE = "service"
    NAMESPACE = "namespace"
    KUBERNETES_POLICY = "kubernetes-policy"
    """A NetworkPolicy, ClusterNetworkPolicy or an older form of it, as its API has it."""
    NETWORK = "network"
    """Addresses outside Kubernetes that people uploaded labels for."""


WORKLOAD_KINDS = frozenset({ItemKind.POD, ItemKind.NODE, ItemKind.HOST})


class ServiceType(StrEnum):
    """Kubernetes' Service types; a headless one is a CLUSTER_IP without addresses."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class TrafficPolicy(StrEnum):
    """A Service's externalTrafficPolicy: whether nodes forward to other nodes' backends."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a pod declares; `name` may be empty."""

    name: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service. `node_port` is 0 where there is none."""

    name: str
    protocol: int
    port: int
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint behind one Service port (from EndpointSlices), target port resolved."""

    service_port: str
    protocol: int
    address: Address
    port: int
    serving: bool
    item: ItemKey | None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What a Service item has besides its labels; its ClusterIPs are the item's `addresses`."""

    type: ServiceType
    ports: tuple[ServicePort, ...]
    backends: tuple[Backend, ...] = ()
    external_addresses: tuple[Address, ...] = ()
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    balancer_addresses: tuple[Address, ...] = ()
    """Of the external addresses those of a load balancer, for which `source_ranges` hold."""
    source_ranges: tuple[Network, ...] = ()
    routes: tuple[str, ...] = ()
    """The Ingresses and HTTPRoutes that lead to it, as `Ingress/NAMESPACE/NAME:PORT`, the port
    being the Service's own."""

    @property
    def is_published(self) -> bool:
        """Whether nodes receive for it: at a node port, or at an address outside."""
        return bool(self.external_addresses) or any(one.node_port for one in self.ports)

    def serving(self, port: ServicePort) -> tuple[Backend, ...]:
        """The backends that serve one of its ports: those of its name and of its protocol."""
        return tuple(
            one
            for one in self.backends
            if one.serving and (one.service_port, one.protocol) == (port.name, port.protocol)
        )

    def served_from(self, dialled: Address) -> tuple[Network, ...]:
        """From where kube-proxy serves at one of its addresses; none stands for from anywhere.

        Ranges of another family than the address's are not asked (Kubernetes' pkg/proxy,
        `newBaseServicePortInfo`).
        """
        if dialled not in self.balancer_addresses:
            return ()
        return tuple(one for one in self.source_ranges if one.is_v4 == is_v4(dialled))


@dataclass(frozen=True, slots=True)
class Item:
    """One inventory item as of one moment.

    `addresses` of a node are all addresses of its interfaces, CNI gateways included, as far as
    its agent has reported them. `node` is the name of the node that runs a pod. A host-network
    pod has its node's addresses. `probe_ports` are the (protocol, port) pairs that the kubelet
    dials. `containers` are the container ports a pod declares. A network has no `addresses`:
    it holds those of `network` that no other item holds, nor a smaller network. `exact_labels`
    are `model.labels.inexact` of its Kubernetes labels. `manifest` is what a Kubernetes policy
    says (`model.manifest`). `pod_networks` of a node hold the addresses of its pods.
    """

    key: ItemKey
    kind: ItemKind
    cluster: ClusterId
    namespace: str
    name: str
    addresses: tuple[Address, ...]
    labels: Labels
    node: str = ""
    host_network: bool = False
    containers: tuple[ContainerPort, ...] = ()
    probe_ports: tuple[tuple[int, int], ...] = ()
    service: ServiceSpec | None = None
    network: Network | None = None
    exact_labels: tuple[tuple[str, str], ...] = ()
    manifest: str = ""
    pod_networks: tuple[Network, ...] = ()
    net_admin: bool = False
    """Whether a pod may change the rules in its own network namespace."""
    references: tuple[str, ...] = ()
    """Hosts, `host` or `host:port`, that a pod's containers are told of: Services of its cluster
    (`name`, `name.namespace`, `name.namespace.svc…`), and names outside with a port."""
    workload_name: str = ""
    """The topmost owner's name (Deployment, StatefulSet, …); the item's own where it has none."""
    since_ns: int = field(default=0, compare=False)
    """When it came to its addresses, or up to three seconds before; epoch ns, 0 if not known."""

    @property
    def is_workload(self) -> bool:
        """Whether the item is a pod, node or host, the ends that policy can govern."""
        return self.kind in WORKLOAD_KINDS

    @property
    def display(self) -> str:
        """`namespace/name`, or the name alone outside namespaces."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
