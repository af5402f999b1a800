"""Which Services Ingresses and HTTPRoutes lead to."""

from collections.abc import Iterator

from ringfence.kube import schema
from ringfence.kube.references import Place

Route = schema.HttpIngress | schema.HttpRoute


def backends(route: Route) -> Iterator[tuple[Place, int | str]]:
    """The Services by place, and of each the port by number or name."""
    namespace = route.metadata.namespace
    if isinstance(route, schema.HttpRoute):
        for http_rule in route.spec.rules or ():
            for one in http_rule.backend_refs or ():
                if one.kind == "Service":
                    yield (one.namespace or namespace, one.name), one.port or 0
        return
    rules = route.spec.rules or ()
    paths = (path for rule in rules if rule.http for path in rule.http.paths or ())
    for backend in (route.spec.default_backend, *(path.backend for path in paths)):
        if backend is not None and backend.service is not None:
            port = backend.service.port
            yield (namespace, backend.service.name), port.number or port.name


def told(route: Route, place: Place, service: schema.Service) -> Iterator[str]:
    """`KIND/NAMESPACE/NAME:PORT` for each of a Service's ports that the route leads to."""
    kind = "HTTPRoute" if isinstance(route, schema.HttpRoute) else "Ingress"
    for there, wanted in backends(route):
        for port in service.spec.ports or () if there == place else ():
            if wanted in (port.port, port.name):
                yield f"{kind}/{route.metadata.namespace}/{route.metadata.name}:{port.port}"
