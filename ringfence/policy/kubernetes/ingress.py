"""What Ingress and Route objects publish: the target ports behind their Services."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes.cluster import Pod
from ringfence.policy.kubernetes.fields import PROTOCOLS, convert
from ringfence.policy.kubernetes.manifests import Manifest
from ringfence.policy.kubernetes.network_policy import DEFAULT_NAMESPACE
from ringfence.policy.kubernetes.topology import Topology, Workload

Published = dict[Workload, set[tuple[int, int]]]
"""By workload, the (protocol, port) pairs at which ingress controllers reach it."""


class _Part(msgspec.Struct, rename="camel", frozen=True):
    """A part of an object; Go writes an empty list or map as null in places."""


class _Metadata(_Part, frozen=True):
    name: str
    namespace: str | None = None


class _ServicePort(_Part, frozen=True):
    port: int
    name: str | None = None
    protocol: str | None = None
    target_port: int | str | None = None


class _ServiceSpec(_Part, frozen=True):
    selector: dict[str, str] | None = None
    ports: list[_ServicePort] | None = None


class _Service(_Part, frozen=True):
    metadata: _Metadata
    spec: _ServiceSpec = _ServiceSpec()


class _BackendPort(_Part, frozen=True):
    number: int | None = None
    name: str | None = None


class _BackendService(_Part, frozen=True):
    name: str
    port: _BackendPort = _BackendPort()


class _Backend(_Part, frozen=True):
    service: _BackendService | None = None


class _Path(_Part, frozen=True):
    backend: _Backend


class _Http(_Part, frozen=True):
    paths: list[_Path] | None = None


class _IngressRule(_Part, frozen=True):
    http: _Http | None = None


class _IngressSpec(_Part, frozen=True):
    default_backend: _Backend | None = None
    rules: list[_IngressRule] | None = None


class _Ingress(_Part, frozen=True):
    metadata: _Metadata
    spec: _IngressSpec = _IngressSpec()


class _Target(_Part, frozen=True):
    name: str
    kind: str | None = None


class _RoutePort(_Part, frozen=True):
    target_port: int | str | None = None


class _RouteSpec(_Part, frozen=True):
    to: _Target
    alternate_backends: list[_Target] | None = None
    port: _RoutePort | None = None


class _Route(_Part, frozen=True):
    metadata: _Metadata
    spec: _RouteSpec


@dataclass(frozen=True, slots=True)
class _Reference:
    """A Service that is published, and the port of it by number or name, None for all."""

    namespace: str
    service: str
    port: int | str | None
    by_target: bool
    """The port is what the Service calls its target port, as a Route writes it."""


def published(manifests: Iterable[Manifest], topology: Topology) -> Published:
    """What is published; objects that cannot be read are passed over with a warning."""
    services: dict[tuple[str, str], _Service] = {}
    references: list[_Reference] = []
    for manifest in manifests:
        try:
            if manifest.kind == "Service":
                service = convert(manifest.object, _Service, "")
                services[_namespace(service.metadata), service.metadata.name] = service
            elif manifest.kind == "Ingress":
                references += _of_ingress(convert(manifest.object, _Ingress, ""))
            elif manifest.kind == "Route":
                references += _of_route(convert(manifest.object, _Route, ""))
        except FieldError as error:
            topology.warnings.append(f"{manifest.refusal(error)}; passed over")
    return _resolve(references, services, topology)


def _resolve(
    references: Iterable[_Reference],
    services: Mapping[tuple[str, str], _Service],
    topology: Topology,
) -> Published:
    found: Published = {}
    for reference in references:
        service = services.get((reference.namespace, reference.service))
        if service is None or not service.spec.selector:
            continue
        for workload, pods in topology.workloads.items():
            if workload.namespace == reference.namespace:
                ports = set(_targets(reference, service, pods))
                if ports:
                    found.setdefault(workload, set()).update(ports)
    return found


def _namespace(metadata: _Metadata) -> str:
    return metadata.namespace or DEFAULT_NAMESPACE


def _of_ingress(ingress: _Ingress) -> Iterator[_Reference]:
    spec = ingress.spec
    backends = [path.backend for rule in spec.rules or () for path in _paths(rule)]
    for backend in [*backends, *([spec.default_backend] if spec.default_backend else [])]:
        if backend.service is not None:
            port = backend.service.port
            wanted = port.name or port.number
            yield _Reference(_namespace(ingress.metadata), backend.service.name, wanted, False)


def _paths(rule: _IngressRule) -> list[_Path]:
    return (rule.http.paths if rule.http else None) or []


def _of_route(route: _Route) -> Iterator[_Reference]:
    port = route.spec.port.target_port if route.spec.port else None
    for target in [route.spec.to, *(route.spec.alternate_backends or ())]:
        if target.kind in (None, "Service"):
            yield _Reference(_namespace(route.metadata), target.name, port, True)


def _targets(
    reference: _Reference, service: _Service, pods: Iterable[Pod]
) -> Iterator[tuple[int, int]]:
    selector: Mapping[str, str] = service.spec.selector or {}
    for pod in pods:
        if any(pod.labels.get(key) != value for key, value in selector.items()):
            continue
        for port in service.spec.ports or ():
            target: Any = port.port if port.target_port is None else port.target_port
            # An Ingress should name the Service's port; some name the target port, and are served.
            called = {port.name, target} | (set() if reference.by_target else {port.port})
            if reference.port is None or reference.port in called:
                protocol = PROTOCOLS.get(port.protocol or "TCP", PROTOCOLS["TCP"])
                yield from _numbers(target, protocol, pod)


def _numbers(target: int | str, protocol: int, pod: Pod) -> Iterator[tuple[int, int]]:
    if isinstance(target, int):
        yield protocol, target
    for port in pod.ports:
        if port.name == target and port.protocol == protocol:
            yield protocol, port.port
