"""From Services, their EndpointSlices, and what leads to them to inventory items."""

import ipaddress
from collections.abc import Iterable

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
from ringfence.kube.routes import Route, told
from ringfence.model.address import Address, Network, is_v4, parse_network
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"


def service_item(
    cluster: ClusterId,
    service: schema.Service,
    slices: Iterable[schema.EndpointSlice],
    namespace: schema.Bare | None,
    annotations: Iterable[str] = (),
    routes: Iterable[Route] = (),
) -> Item:
    """A Service with the backends of all its EndpointSlices, and the routes that lead to it."""
    meta, spec = service.metadata, service.spec
    addresses = addresses_of(spec.cluster_ips or [spec.cluster_ip])
    ingress = [one.ip for one in service.status.load_balancer.ingress or ()]
    external = [*(spec.external_ips or ()), *ingress]
    place = (meta.namespace, meta.name)
    local = spec.external_traffic_policy == TrafficPolicy.LOCAL
    pairs = [
        *common_labels(cluster, ItemKind.SERVICE, meta, addresses),
        *namespace_labels(namespace),
        *annotation_labels(meta, annotations),
    ]
    return Item(
        key=item_key(cluster, ItemKind.SERVICE, meta.uid),
        kind=ItemKind.SERVICE,
        cluster=cluster,
        namespace=meta.namespace,
        name=meta.name,
        addresses=addresses,
        labels=made(pairs),
        workload_name=meta.name,
        since_ns=epoch_ns(meta.creation_timestamp),
        service=ServiceSpec(
            type=ServiceType(spec.type),
            ports=tuple(
                ServicePort(port.name, protocol, port.port, port.node_port)
                for port in spec.ports or ()
                if (protocol := protocol_of(port.protocol)) is not None
            ),
            backends=_backends(cluster, slices),
            external_addresses=_received(service, addresses, external),
            external_traffic_policy=TrafficPolicy.LOCAL if local else TrafficPolicy.CLUSTER,
            balancer_addresses=_received(service, addresses, ingress),
            source_ranges=_source_ranges(spec.load_balancer_source_ranges or ()),
            routes=tuple(sorted({one for route in routes for one in told(route, place, service)})),
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
    return tuple(one for one in addresses_of(external) if is_v4(one) in families)


def _backends(cluster: ClusterId, slices: Iterable[schema.EndpointSlice]) -> tuple[Backend, ...]:
    """Sorted. An endpoint that stands in two slices at once serves if one of them says so."""
    found: dict[tuple[str, int, Address, int], Backend] = {}
    for one in slices:
        for endpoint in one.endpoints or ():
            # Of several addresses only the first is used (EndpointSlice API reference).
            addresses = addresses_of((endpoint.addresses or [])[:1])
            if not addresses:
                continue
            target = endpoint.target_ref
            is_pod = target is not None and target.kind == "Pod"
            item = item_key(cluster, ItemKind.POD, target.uid) if target and is_pod else None
            for port in one.ports or ():
                protocol = protocol_of(port.protocol or "TCP")
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


def _source_ranges(texts: Iterable[str]) -> tuple[Network, ...]:
    """As kube-proxy reads them: blanks may stand around them, and host bits are cleared.

    None where one cannot be read, for then it is not known who else is served.
    """
    try:
        read = [ipaddress.ip_network(text.strip(), strict=False) for text in texts]
    except ValueError:
        return ()
    return tuple(dict.fromkeys(parse_network(str(one)) for one in read))
