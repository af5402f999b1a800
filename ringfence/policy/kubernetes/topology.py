"""Workloads of a folder of manifests, before there is any pod: one for each owner of pods.

A workload is told as `namespace/name[Kind]`. Pods in the folder that have one owner are one
workload, named for the owner.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ringfence.model.protocol import TCP
from ringfence.model.workload import ContainerPort
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes.cluster import KubernetesLabels, Pod
from ringfence.policy.kubernetes.fields import PROTOCOLS, convert
from ringfence.policy.kubernetes.manifests import Manifest
from ringfence.policy.kubernetes.network_policy import DEFAULT_NAMESPACE

_TEMPLATES = frozenset(
    {
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "ReplicationController",
        "DeploymentConfig",
        "VirtualMachine",
    }
)
_NODE = "Node"


class _Part(msgspec.Struct, rename="camel", frozen=True):
    """A part of an object; Go writes an empty list or map as null in places."""


class _Owner(_Part, frozen=True):
    name: str
    kind: str = "Pod"
    controller: bool | None = None


class _Metadata(_Part, frozen=True):
    name: str = ""
    namespace: str | None = None
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Port(_Part, frozen=True):
    container_port: int | None = None
    name: str | None = None
    protocol: str | None = None


class _Container(_Part, frozen=True):
    ports: list[_Port] | None = None


class _PodSpec(_Part, frozen=True):
    containers: list[_Container] | None = None
    host_network: bool | None = None


class _Pod(_Part, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _PodSpec | None = None


class _Object(_Part, frozen=True):
    metadata: _Metadata


@dataclass(frozen=True, slots=True)
class Workload:
    """What owns pods that are alike; `kind` is the owner's."""

    namespace: str
    name: str
    kind: str

    @property
    def display(self) -> str:
        """`namespace/name[Kind]`."""
        return f"{self.namespace}/{self.name}[{self.kind}]"


@dataclass
class Topology:
    """The namespaces and workloads of a folder; `warnings` tell what was passed over."""

    namespaces: dict[str, KubernetesLabels] = field(default_factory=dict)
    workloads: dict[Workload, list[Pod]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_topology(manifests: Iterable[Manifest]) -> Topology:
    """The workloads of the manifests; those that cannot be read are passed over.

    Raises ManifestError for a namespace's second manifest.
    """
    found = Topology()
    for manifest in manifests:
        known = len(found.namespaces)
        try:
            _add(found, manifest.kind, manifest.object)
        except FieldError as error:
            found.warnings.append(f"{manifest.refusal(error)}; passed over")
            continue
        if manifest.kind == "Namespace" and len(found.namespaces) == known:
            second = FieldError("metadata.name", "expected one manifest of the namespace")
            raise manifest.refusal(second)
    return found


def _add(found: Topology, kind: str, manifest: Mapping[str, Any]) -> None:
    if kind == "Namespace":
        metadata = convert(manifest, _Object, "").metadata
        found.namespaces[metadata.name] = metadata.labels or {}
    elif kind in ("Pod", "VirtualMachineInstance"):
        pod = convert(manifest, _Pod, "")
        # A static pod is controlled by its node, and is a workload of its own.
        owners = (
            one
            for one in pod.metadata.owner_references or ()
            if one.controller and one.kind != _NODE
        )
        named = next(owners, _Owner(pod.metadata.name, kind))
        _add_pod(found, pod.metadata.namespace, named, pod, pod.metadata.name)
    elif kind in _TEMPLATES or kind == "CronJob":
        metadata = convert(manifest, _Object, "").metadata
        path = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
        template: Any = manifest
        for part in path.split("."):
            template = template.get(part) if isinstance(template, Mapping) else None
        pod = convert(template, _Pod, path)
        _add_pod(found, metadata.namespace, _Owner(metadata.name, kind), pod, metadata.name)


def _add_pod(found: Topology, namespace: str | None, owner: _Owner, pod: _Pod, name: str) -> None:
    inside = namespace or DEFAULT_NAMESPACE
    workload = Workload(inside, owner.name, owner.kind)
    containers = (pod.spec.containers if pod.spec else None) or ()
    ports = tuple(
        ContainerPort(
            port.name or "", PROTOCOLS.get(port.protocol or "TCP", TCP), port.container_port
        )
        for container in containers
        for port in container.ports or ()
        if port.container_port is not None
    )
    pods = found.workloads.setdefault(workload, [])
    if pod.spec and pod.spec.host_network:
        found.warnings.append(
            f"{workload.display}: is on its node's network, where Kubernetes' policies do not "
            "hold; shown as if it had an address of its own"
        )
    key = f"{workload.kind}/{workload.name}/{name}/{len(pods)}"
    pods.append(Pod(inside, key, pod.metadata.labels or {}, ports=ports))
