"""The shop's Kubernetes objects: who serves what, and who calls whom.

Ports, the NodePort and the ClusterIP of carts are those of the published Sock Shop examples.
"""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from ringfence.lab.images import reference

Manifest = dict[str, object]

NAMESPACE = "sock-shop"
FRONT_END_NODE_PORT = 31095
UNUSED_NODE_PORT = 31096
"""NodePort that leads to catalogue, and that no customer calls."""
CARTS_CLUSTER_IP = "10.100.135.136"
EXTERNAL_PORT = 666
"""TCP port of the server on the external host that front-end calls."""
UNUSED_EXTERNAL_PORT = 667
"""TCP port there that answers as well, and that nothing in the shop calls."""
PAGES = ("/", "/catalogue", "/cart", "/orders", "/login")
"""Pages of the front-end; each answers 200 only if all the calls behind it did."""
_PART_OF = {"app.kubernetes.io/part-of": NAMESPACE}


@dataclass(frozen=True)
class Service:
    """One service of the shop: a Deployment with one pod, a Service, a service account."""

    name: str
    port: int
    """Port that the process listens on."""
    pages: dict[str, list[str]] | None = None
    """Calls by HTTP path; None for a server of the line protocol."""
    keep: tuple[str, ...] = ()
    """Connections that stay open."""
    service_port: int | None = None
    """Port of the Service, where it differs."""
    node_port: int | None = None
    cluster_ip: str | None = None


def services(external: IPv4Address) -> list[Service]:
    """The shop's services; ``external`` is the host outside that front-end calls."""
    front_pages = {
        "/": ["http://catalogue/catalogue", f"tcp://{external}:{EXTERNAL_PORT}"],
        "/catalogue": ["http://catalogue/catalogue"],
        "/cart": ["http://carts/carts", "http://user/customers"],
        "/orders": ["http://orders/orders"],
        "/login": ["http://user/login", "http://carts/carts/merge"],
    }
    order_calls = ["tcp://orders-db:27017", "http://user/customers", "http://carts/carts"]
    order_calls += ["http://payment/paymentAuth", "http://shipping/shipping"]
    return [
        Service(
            "front-end",
            8079,
            front_pages,
            keep=("tcp://session-db:6379",),
            service_port=80,
            node_port=FRONT_END_NODE_PORT,
        ),
        Service("catalogue", 80, {"*": ["tcp://catalogue-db:3306"]}),
        Service("catalogue-db", 3306),
        Service("carts", 80, {"*": ["tcp://carts-db:27017"]}, cluster_ip=CARTS_CLUSTER_IP),
        Service("carts-db", 27017),
        Service("orders", 80, {"*": order_calls}),
        Service("orders-db", 27017),
        Service("user", 80, {"*": ["tcp://user-db:27017"]}),
        Service("user-db", 27017),
        # Through the headless Service, that is from pod to pod.
        Service("payment", 80, {"*": ["tcp://user-db-direct:27017"]}),
        Service("shipping", 80, {"*": ["tcp://rabbitmq:5672"]}),
        Service("queue-master", 80, {}, keep=("tcp://rabbitmq:5672",)),
        Service("rabbitmq", 5672),
        Service("session-db", 6379),
    ]


def calls(external: IPv4Address) -> set[tuple[str, str]]:
    """Who calls whom: names of Deployments, the address of ``external``."""
    return {
        (service.name, str(urlsplit(url).hostname).removesuffix("-direct"))
        for service in services(external)
        for urls in (*(service.pages or {}).values(), service.keep)
        for url in urls
    }


def manifests(external: IPv4Address) -> list[Manifest]:
    """All objects of the shop, namespace first."""
    objects: list[Manifest] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    ]
    for service in services(external):
        objects += [_service_account(service.name), _service(service), _deployment(service)]
    return [*objects, _user_db_direct(), _catalogue_outside()]


def intruder_manifests() -> list[Manifest]:
    """A pod that scans its neighbours and calls user-db from pod to pod."""
    config = {
        "ports": [80, 3306, 5672, 6379, 8079, 27017],
        "calls": ["tcp://user-db-direct:27017"],
        "interval": 2,
    }
    address = {"fieldRef": {"fieldPath": "status.podIP"}}
    container = _container("intruder", "intruder", config) | {
        "env": [{"name": "POD_IP", "valueFrom": address}]
    }
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata("intruder", {"name": "intruder"}),
        "spec": _pod_spec("intruder", container),
    }
    return [_service_account("intruder"), pod]


def _metadata(name: str, labels: dict[str, str]) -> Manifest:
    return {"name": name, "namespace": NAMESPACE, "labels": labels}


def _service_account(name: str) -> Manifest:
    metadata = _metadata(name, {"name": name})
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _service(service: Service) -> Manifest:
    port: Manifest = {"port": service.service_port or service.port, "targetPort": service.port}
    spec: Manifest = {"selector": {"name": service.name}, "ports": [port]}
    if service.node_port:
        spec["type"] = "NodePort"
        port["nodePort"] = service.node_port
    if service.cluster_ip:
        spec["clusterIP"] = service.cluster_ip
    metadata = _metadata(service.name, {"name": service.name})
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _user_db_direct() -> Manifest:
    """Headless, so its name resolves to the addresses of the pods."""
    ports = [{"port": 27017}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata("user-db-direct", {"name": "user-db"}),
        "spec": {"clusterIP": "None", "selector": {"name": "user-db"}, "ports": ports},
    }


def _catalogue_outside() -> Manifest:
    ports = [{"port": 80, "nodePort": UNUSED_NODE_PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata("catalogue-outside", {"name": "catalogue"}),
        "spec": {"type": "NodePort", "selector": {"name": "catalogue"}, "ports": ports},
    }


def _deployment(service: Service) -> Manifest:
    labels = {"name": service.name}
    http = service.pages is not None
    config: dict[str, object] = {
        "listen": service.port,
        "protocol": "http" if http else "line",
        "pages": service.pages or {},
        "keep": service.keep,
    }
    check: Manifest = (
        {"httpGet": {"path": "/health", "port": service.port}}
        if http
        else {"tcpSocket": {"port": service.port}}
    )
    container = _container(service.name, "service", config) | {
        "ports": [{"containerPort": service.port}],
        "readinessProbe": check | {"periodSeconds": 3},
        "livenessProbe": check | {"periodSeconds": 10, "timeoutSeconds": 3},
    }
    template = {
        "metadata": {"labels": labels | _PART_OF},
        "spec": _pod_spec(service.name, container),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(service.name, labels),
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def _container(name: str, part: str, config: dict[str, object]) -> Manifest:
    return {
        "name": name,
        "image": reference("shop"),
        "imagePullPolicy": "Never",
        "args": [part, json.dumps(config)],
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
        },
    }


def _pod_spec(service_account: str, container: Manifest) -> Manifest:
    """Spread the shop over all nodes, also over one that is not ready yet."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": _PART_OF},
    }
    return {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        "topologySpreadConstraints": [spread],
    }
