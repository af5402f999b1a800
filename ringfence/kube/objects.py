"""From Kubernetes objects to inventory items. Pure; whatever objects say is data, never trusted."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from ringfence.kube import schema
from ringfence.model import labels
from ringfence.model.address import (
    Address,
    Network,
    format_address,
    is_v4,
    parse_address,
    parse_network,
)
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.protocol import TCP, parse_protocol
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

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""
MAX_ANNOTATION_BYTES = 256
_NETWORK_IS_UP = "PodReadyToStartContainers"
"""The pod condition that says since when its sandbox has a network, as the kubelet noticed."""
_NOTICED = timedelta(seconds=2)
"""How long that takes a kubelet, which looks each second, and writes whole seconds down."""
_FREEING = frozenset({"ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE"})
"""Capabilities with which a container changes rules, gets hold of who may, or of the kernel."""
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
_FINISHED = frozenset({"Succeeded", "Failed"})
_UNFOLLOWED_OWNERS = frozenset({"Node"})
"""A static pod's mirror is owned by its node, which says nothing of what the pod is."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller above a pod."""

    kind: str
    name: str


def controller(metadata: schema.Metadata) -> schema.OwnerReference | None:
    """The owner that manages the object, None if nothing does."""
    for reference in metadata.owner_references or ():
        if reference.controller and reference.kind not in _UNFOLLOWED_OWNERS:
            return reference
    return None


def owner_of(pod: schema.Pod, parents: Mapping[str, schema.Bare]) -> Owner | None:
    """The topmost owner: a Deployment above its ReplicaSet, a CronJob above its Job.

    `parents` are the ReplicaSets and Jobs by uid; one that is not known stands for itself.
    """
    reference = controller(pod.metadata)
    if reference is None:
        return None
    parent = parents.get(reference.uid)
    above = controller(parent.metadata) if parent is not None else None
    top = above or reference
    return Owner(top.kind, top.name)


def pod_item(
    cluster: ClusterId,
    pod: schema.Pod,
    namespace: schema.Bare | None,
    owner: Owner | None,
    annotations: Iterable[str] = (),
) -> Item:
    """A pod as a workload. One that has finished holds no address any more.

    `annotations` are the keys of those that become labels.
    """
    meta, spec, status = pod.metadata, pod.spec, pod.status
    addresses: tuple[Address, ...] = ()
    if status.phase not in _FINISHED:
        listed = [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
        addresses = _addresses(listed)
    pairs = [
        *_common_labels(cluster, ItemKind.POD, meta, addresses),
        *_namespace_labels(namespace),
        *_annotation_labels(meta, annotations),
        (labels.NODE, spec.node_name),
        (labels.SERVICE_ACCOUNT, spec.service_account_name),
    ]
    if owner is not None:
        pairs += [(labels.OWNER_KIND, owner.kind), (labels.OWNER_NAME, owner.name)]
    everyone = (spec.init_containers, spec.containers, spec.ephemeral_containers)
    net_admin = any(_is_net_admin(one) for some in everyone for one in some or ())
    if net_admin:
        pairs.append((labels.NET_ADMIN, "true"))
    # Others end before the pod serves, and give no port a name (Kubernetes' sidecar containers).
    sidecars = [one for one in spec.init_containers or () if one.restart_policy == "Always"]
    containers = [*sidecars, *(spec.containers or ())]
    return Item(
        key=item_key(cluster, ItemKind.POD, meta.uid),
        kind=ItemKind.POD,
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        addresses=addresses,
        labels=_made(pairs),
        node=spec.node_name,
        host_network=spec.host_network,
        exact_labels=labels.inexact(meta.labels or {}),
        containers=tuple(
            ContainerPort(port.name, protocol, port.container_port)
            for container in containers
            for port in container.ports or ()
            if (protocol := _protocol(port.protocol)) is not None
        ),
        probe_ports=tuple(sorted({port for one in containers for port in _probe_ports(one)})),
        net_admin=net_admin,
        workload_name=owner.name if owner is not None else meta.name,
        since_ns=_epoch_ns(_network_since(status)),
    )


def node_item(cluster: ClusterId, node: schema.Node, annotations: Iterable[str] = ()) -> Item:
    """A node, with the addresses that its Node object lists."""
    meta = node.metadata
    addresses = _addresses(one.address for one in node.status.addresses or ())
    pairs = [
        *_common_labels(cluster, ItemKind.NODE, meta, addresses),
        *_annotation_labels(meta, annotations),
        (labels.NODE, meta.name),
    ]
    return Item(
        key=item_key(cluster, ItemKind.NODE, meta.uid),
        kind=ItemKind.NODE,
        cluster=cluster,
        namespace="",
        name=meta.name,
        addresses=addresses,
        labels=_made(pairs),
        exact_labels=labels.inexact(meta.labels or {}),
        node=meta.name,
        pod_networks=_networks(node.spec.pod_cidrs or ()),
        workload_name=meta.name,
        since_ns=_epoch_ns(meta.creation_timestamp),
    )


def namespace_item(
    cluster: ClusterId, namespace: schema.Bare, annotations: Iterable[str] = ()
) -> Item:
    """A namespace."""
    meta = namespace.metadata
    pairs = [
        *_common_labels(cluster, ItemKind.NAMESPACE, meta, ()),
        *_namespace_labels(namespace),
        *_annotation_labels(meta, annotations),
        (labels.NAMESPACE, meta.name),
    ]
    return Item(
        key=item_key(cluster, ItemKind.NAMESPACE, meta.uid),
        kind=ItemKind.NAMESPACE,
        cluster=cluster,
        namespace="",
        name=meta.name,
        addresses=(),
        labels=_made(pairs),
        exact_labels=labels.inexact(meta.labels or {}),
        workload_name=meta.name,
    )


def policy_item(cluster: ClusterId, api_version: str, kind: str, policy: schema.Policy) -> Item:
    """A Kubernetes policy, whatever it says."""
    meta = policy.metadata
    place = Metadata(meta.name, meta.namespace)
    pairs = [
        *_common_labels(cluster, ItemKind.KUBERNETES_POLICY, meta, ()),
        (labels.POLICY_KIND, kind),
    ]
    return Item(
        key=item_key(cluster, ItemKind.KUBERNETES_POLICY, meta.uid),
        kind=ItemKind.KUBERNETES_POLICY,
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        addresses=(),
        labels=_made(pairs),
        manifest=str(PolicyManifest(api_version, kind, place, policy.spec)),
        workload_name=meta.name,
    )


def service_item(
    cluster: ClusterId,
    service: schema.Service,
    slices: Iterable[schema.EndpointSlice],
    namespace: schema.Bare | None,
    annotations: Iterable[str] = (),
) -> Item:
    """A Service with the backends of all its EndpointSlices."""
    meta, spec = service.metadata, service.spec
    addresses = _addresses(spec.cluster_ips or [spec.cluster_ip])
    ingress = [one.ip for one in service.status.load_balancer.ingress or ()]
    external = [*(spec.external_ips or ()), *ingress]
    local = spec.external_traffic_policy == TrafficPolicy.LOCAL
    pairs = [
        *_common_labels(cluster, ItemKind.SERVICE, meta, addresses),
        *_namespace_labels(namespace),
        *_annotation_labels(meta, annotations),
    ]
    return Item(
        key=item_key(cluster, ItemKind.SERVICE, meta.uid),
        kind=ItemKind.SERVICE,
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        addresses=addresses,
        labels=_made(pairs),
        workload_name=meta.name,
        since_ns=_epoch_ns(meta.creation_timestamp),
        service=ServiceSpec(
            type=ServiceType(spec.type),
            ports=tuple(
                ServicePort(port.name, protocol, port.port, port.node_port)
                for port in spec.ports or ()
                if (protocol := _protocol(port.protocol)) is not None
            ),
            backends=_backends(cluster, slices),
            external_addresses=_received(service, addresses, external),
            external_traffic_policy=TrafficPolicy.LOCAL if local else TrafficPolicy.CLUSTER,
            balancer_addresses=_received(service, addresses, ingress),
            source_ranges=_source_ranges(spec.load_balancer_source_ranges or ()),
        ),
    )


def _received(
    service: schema.Service, own: tuple[Address, ...], external: Iterable[str]
) -> tuple[Address, ...]:
    """Of a Service's external addresses those that kube-proxy translates, in order.

    None of a Service that it leaves to another proxy or that is headless, and none of a family in
    which the Service has no address of its own (Kubernetes' pkg/proxy, `ServiceChangeTracker`).
    """
    if _OTHER_PROXY in (service.metadata.labels or {}):
        return ()
    families = {is_v4(address) for address in own}
    return tuple(one for one in _addresses(external) if is_v4(one) in families)


def _network_since(status: schema.PodStatus) -> datetime | None:
    """When the pod's sandbox got its network; before Kubernetes 1.29 only when it was begun."""
    for condition in status.conditions or ():
        up = condition.last_transition_time
        if condition.type == _NETWORK_IS_UP and condition.status == "True" and up is not None:
            return max(up - _NOTICED, status.start_time or up - _NOTICED)
    return status.start_time


def _epoch_ns(time: datetime | None) -> int:
    """0 for none."""
    return int(time.timestamp()) * 10**9 if time is not None else 0


def _backends(cluster: ClusterId, slices: Iterable[schema.EndpointSlice]) -> tuple[Backend, ...]:
    """Sorted. An endpoint that stands in two slices at once serves if one of them says so."""
    found: dict[tuple[str, int, Address, int], Backend] = {}
    for one in slices:
        for endpoint in one.endpoints or ():
            # Of several addresses only the first is used (EndpointSlice API reference).
            addresses = _addresses((endpoint.addresses or [])[:1])
            if not addresses:
                continue
            target = endpoint.target_ref
            is_pod = target is not None and target.kind == "Pod"
            item = item_key(cluster, ItemKind.POD, target.uid) if target and is_pod else None
            for port in one.ports or ():
                protocol = _protocol(port.protocol or "TCP")
                if port.port is None or protocol is None:
                    continue
                place = (port.name or "", protocol, addresses[0], port.port)
                serving = _serving(endpoint.conditions)
                if place not in found or serving:
                    found[place] = Backend(*place, serving, item)
    return tuple(found[place] for place in sorted(found))


def _serving(conditions: schema.Conditions) -> bool:
    """Unknown serving means ready, and unknown ready means yes (EndpointSlice API reference)."""
    known = conditions.ready if conditions.serving is None else conditions.serving
    return known is not False


def _is_net_admin(container: schema.Container) -> bool:
    """Whether it may change the rules of its network namespace, or take the leave to do so."""
    context = container.security_context or schema.SecurityContext()
    added = (context.capabilities or schema.Capabilities()).add or ()
    names = {name.upper().removeprefix("CAP_") for name in added}
    return bool(context.privileged) or bool(names & _FREEING)


def _probe_ports(container: schema.Container) -> Iterator[tuple[int, int]]:
    """Where the kubelet dials the pod: probes and lifecycle hooks, over TCP all of them."""
    named = {port.name: port.container_port for port in container.ports or () if port.name}
    hooks = container.lifecycle or schema.Lifecycle()
    handlers = (
        container.liveness_probe,
        container.readiness_probe,
        container.startup_probe,
        hooks.post_start,
        hooks.pre_stop,
    )
    for handler in handlers:
        if handler is None:
            continue
        for dialled in (handler.http_get, handler.tcp_socket, handler.grpc):
            if dialled is None or dialled.host:
                continue
            text = str(dialled.port)
            number = int(text) if text.isdecimal() else named.get(text)
            if number is not None:
                yield TCP, number


def _common_labels(
    cluster: ClusterId, kind: ItemKind, meta: schema.Metadata, addresses: Iterable[Address]
) -> Iterator[tuple[str, str]]:
    yield labels.CLUSTER, cluster
    yield labels.KIND, kind.value
    yield labels.NAME, meta.name
    yield labels.NAMESPACE, meta.namespace
    for address in addresses:
        yield labels.ADDRESS, format_address(address)
    for key, value in (meta.labels or {}).items():
        yield labels.LABEL_PREFIX + key, value


def _namespace_labels(namespace: schema.Bare | None) -> Iterator[tuple[str, str]]:
    if namespace is not None:
        for key, value in (namespace.metadata.labels or {}).items():
            yield labels.NAMESPACE_LABEL_PREFIX + key, value


def _annotation_labels(
    meta: schema.Metadata, annotations: Iterable[str]
) -> Iterator[tuple[str, str]]:
    held = meta.annotations or {}
    for key in annotations:
        if key in held and len(held[key].encode()) <= MAX_ANNOTATION_BYTES:
            yield labels.ANNOTATION_PREFIX + key, held[key]


_OPTIONAL = frozenset({labels.NAMESPACE, labels.NODE, labels.SERVICE_ACCOUNT})


def _made(pairs: Iterable[tuple[str, str]]) -> labels.Labels:
    """Labels of the pairs; what Kubernetes leaves empty is left out."""
    return labels.make_labels(pair for pair in pairs if pair[1] or pair[0] not in _OPTIONAL)


def _protocol(text: str) -> int | None:
    """The protocol's number; None for one that is none, which then opens nothing."""
    try:
        return parse_protocol(text)
    except InputError:
        return None


def _addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """Those that are IP addresses (not host names, not `None`), in order, each once."""
    found: dict[Address, None] = {}
    for text in texts:
        try:
            found[parse_address(text)] = None
        except InputError:
            continue
    return tuple(found)


def _source_ranges(texts: Iterable[str]) -> tuple[Network, ...]:
    """As kube-proxy reads them: blanks may stand around them, and host bits are cleared.

    None where one cannot be read, for then it is not known who else is served.
    """
    try:
        read = [ipaddress.ip_network(text.strip(), strict=False) for text in texts]
    except ValueError:
        return ()
    return tuple(dict.fromkeys(parse_network(str(one)) for one in read))


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Those that are networks, in order, each once."""
    found: dict[Network, None] = {}
    for text in texts:
        with suppress(InputError):
            found[parse_network(text)] = None
    return tuple(found)
