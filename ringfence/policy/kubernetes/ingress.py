"""What Ingress and Route objects publish: the target ports behind their Services."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from ringfence.model.protocol import TCP
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes.cluster import Pod
from ringfence.policy.kubernetes.fields import convert
from ringfence.policy.kubernetes.manifests import Manifest
from ringfence.policy.kubernetes.network_policy import DEFAULT_NAMESPACE
from ringfence.policy.kubernetes.topology import Topology, Workload

_VIRTUAL_MACHINE = "VirtualMachine"


@dataclass(frozen=True, slots=True, order=True)
class Publisher:
    """An Ingress or Route, `name` with its namespace, and the Service that it names."""

    kind: str
    name: str
    service: str


Published = dict[Workload, dict[Publisher, set[int]]]
"""By workload and what publishes it, the TCP ports at which ingress controllers reach it."""


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

    kind: str
    metadata: _Metadata
    service: str
    port: int | str | None

    @property
    def namespace(self) -> str:
        return _namespace(self.metadata)

    @property
    def publisher(self) -> Publisher:
        return Publisher(self.kind, f"{self.namespace}/{self.metadata.name}", self.service)


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
                ports = set(_targets(reference, service, workload, pods))
                if ports:
                    by = found.setdefault(workload, {}).setdefault(reference.publisher, set())
                    by |= ports
    return found


def _namespace(metadata: _Metadata) -> str:
    return metadata.namespace or DEFAULT_NAMESPACE


def _of_ingress(ingress: _Ingress) -> Iterator[_Reference]:
    spec = ingress.spec
    backends = [path.backend for rule in spec.rules or () for path in _paths(rule)]
    for backend in [*backends, *([spec.default_backend] if spec.default_backend else [])]:
        if backend.service is not None:
            port = backend.service.port
            wanted = port.name or port.number or None
            yield _Reference("Ingress", ingress.metadata, backend.service.name, wanted)


def _paths(rule: _IngressRule) -> list[_Path]:
    return (rule.http.paths if rule.http else None) or []


def _of_route(route: _Route) -> Iterator[_Reference]:
    port = (route.spec.port.target_port if route.spec.port else None) or None
    for target in [route.spec.to, *(route.spec.alternate_backends or ())]:
        if target.kind in (None, "", "Service"):
            yield _Reference("Route", route.metadata, target.name, port)


def _targets(
    reference: _Reference, service: _Service, workload: Workload, pods: Iterable[Pod]
) -> Iterator[int]:
    """The ports of the pods that the reference reaches, of those that their containers declare."""
    selector: Mapping[str, str] = service.spec.selector or {}
    wanted = list(_service_targets(reference, service))
    for pod in pods:
        if any(pod.labels.get(key) != value for key, value in selector.items()):
            continue
        declared = {port.port: port.name for port in pod.ports if port.protocol == TCP}
        for target in wanted:
            if isinstance(target, int) and workload.kind == _VIRTUAL_MACHINE:
                yield target
            yield from (port for port, name in declared.items() if target in (port, name))


def _service_targets(reference: _Reference, service: _Service) -> Iterator[int | str]:
    """The target of the first port of the Service that is meant, of all where none is named.

    An Ingress should name the Service's port and a Route its target; either is served.
    """
    for port in service.spec.ports or ():
        target = port.target_port or port.port
        if reference.port is None:
            yield target
        elif reference.port in (port.name, port.port, target):
            yield target
            return
