"""From Kubernetes objects to inventory items. Pure; whatever objects say is data, never trusted."""

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from ringfence.kube import schema
from ringfence.kube.parts import (
    addresses_of,
    annotation_labels,
    common_labels,
    epoch_ns,
    made,
    namespace_labels,
    protocol_of,
)
from ringfence.kube.references import Place, kept
from ringfence.model import labels
from ringfence.model.address import (
    Address,
    Network,
    parse_network,
)
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.protocol import TCP
from ringfence.model.workload import (
    ContainerPort,
    Item,
    ItemKind,
)

_NETWORK_IS_UP = "PodReadyToStartContainers"
"""The pod condition that says since when its sandbox has a network, as the kubelet noticed."""
_NOTICED = timedelta(seconds=2)
"""How long that takes a kubelet, which looks each second, and writes whole seconds down."""
_FREEING = frozenset({"ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE"})
"""Capabilities with which a container changes rules, gets hold of who may, or of the kernel."""
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
    services: Container[Place] = (),
) -> Item:
    """A pod as a workload. One that has finished holds no address any more.

    `annotations` are the keys of those that become labels, `services` what its environment may
    refer to.
    """
    meta, spec, status = pod.metadata, pod.spec, pod.status
    addresses: tuple[Address, ...] = ()
    if status.phase not in _FINISHED:
        listed = [one.ip for one in status.pod_ips or ()] or [status.pod_ip]
        addresses = addresses_of(listed)
    pairs = [
        *common_labels(cluster, ItemKind.POD, meta, addresses),
        *namespace_labels(namespace),
        *annotation_labels(meta, annotations),
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
        labels=made(pairs),
        node=spec.node_name,
        host_network=spec.host_network,
        exact_labels=labels.inexact(meta.labels or {}),
        containers=tuple(
            ContainerPort(port.name, protocol, port.container_port)
            for container in containers
            for port in container.ports or ()
            if (protocol := protocol_of(port.protocol)) is not None
        ),
        probe_ports=tuple(sorted({port for one in containers for port in _probe_ports(one)})),
        net_admin=net_admin,
        references=kept(pod_hosts(pod), meta.namespace, services),
        workload_name=owner.name if owner is not None else meta.name,
        since_ns=epoch_ns(_network_since(status)),
    )


def pod_hosts(pod: schema.Pod) -> tuple[str, ...]:
    """What may be hosts in the environment and the arguments of all its containers."""
    some = (pod.spec.init_containers, pod.spec.containers)
    return tuple(host for containers in some for one in containers or () for host in one.hosts)


def node_item(cluster: ClusterId, node: schema.Node, annotations: Iterable[str] = ()) -> Item:
    """A node, with the addresses that its Node object lists."""
    meta = node.metadata
    addresses = addresses_of(one.address for one in node.status.addresses or ())
    pairs = [
        *common_labels(cluster, ItemKind.NODE, meta, addresses),
        *annotation_labels(meta, annotations),
        (labels.NODE, meta.name),
    ]
    return Item(
        key=item_key(cluster, ItemKind.NODE, meta.uid),
        kind=ItemKind.NODE,
        cluster=cluster,
        namespace="",
        name=meta.name,
        addresses=addresses,
        labels=made(pairs),
        exact_labels=labels.inexact(meta.labels or {}),
        node=meta.name,
        pod_networks=_networks(node.spec.pod_cidrs or ()),
        workload_name=meta.name,
        since_ns=epoch_ns(meta.creation_timestamp),
    )


def namespace_item(
    cluster: ClusterId, namespace: schema.Bare, annotations: Iterable[str] = ()
) -> Item:
    """A namespace."""
    meta = namespace.metadata
    pairs = [
        *common_labels(cluster, ItemKind.NAMESPACE, meta, ()),
        *namespace_labels(namespace),
        *annotation_labels(meta, annotations),
        (labels.NAMESPACE, meta.name),
    ]
    return Item(
        key=item_key(cluster, ItemKind.NAMESPACE, meta.uid),
        kind=ItemKind.NAMESPACE,
        cluster=cluster,
        namespace="",
        name=meta.name,
        addresses=(),
        labels=made(pairs),
        exact_labels=labels.inexact(meta.labels or {}),
        workload_name=meta.name,
    )


def policy_item(cluster: ClusterId, api_version: str, kind: str, policy: schema.Policy) -> Item:
    """A Kubernetes policy, whatever it says."""
    meta = policy.metadata
    place = Metadata(meta.name, meta.namespace)
    pairs = [
        *common_labels(cluster, ItemKind.KUBERNETES_POLICY, meta, ()),
        (labels.POLICY_KIND, kind),
    ]
    return Item(
        key=item_key(cluster, ItemKind.KUBERNETES_POLICY, meta.uid),
        kind=ItemKind.KUBERNETES_POLICY,
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        addresses=(),
        labels=made(pairs),
        manifest=str(PolicyManifest(api_version, kind, place, policy.spec)),
        workload_name=meta.name,
    )


def _network_since(status: schema.PodStatus) -> datetime | None:
    """When the pod's sandbox got its network; before Kubernetes 1.29 only when it was begun."""
    for condition in status.conditions or ():
        up = condition.last_transition_time
        if condition.type == _NETWORK_IS_UP and condition.status == "True" and up is not None:
            return max(up - _NOTICED, status.start_time or up - _NOTICED)
    return status.start_time


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


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Those that are networks, in order, each once."""
    found: dict[Network, None] = {}
    for text in texts:
        with suppress(InputError):
            found[parse_network(text)] = None
    return tuple(found)
