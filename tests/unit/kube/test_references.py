"""What is kept of environments and arguments: hosts, and never a secret."""

from typing import Any

import msgspec
import pytest

from ringfence.kube import schema
from ringfence.kube.objects import pod_item
from ringfence.kube.references import hosts, kept
from ringfence.kube.services import service_item
from ringfence.model.ids import ClusterId

LAB = ClusterId("lab")
SERVICES = {("shop", "carts"), ("shop", "carts-db"), ("data", "redis")}


def told(*pairs: tuple[str, str], arguments: tuple[str, ...] = ()) -> tuple[str, ...]:
    return kept(hosts(pairs, arguments), "shop", SERVICES)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("carts", ["carts"]),
        ("carts:8080", ["carts:8080"]),
        ("http://carts/api/v1", ["carts:80"]),
        ("https://Carts.Shop.svc.cluster.local:8443/x", ["carts.shop.svc.cluster.local:8443"]),
        ("redis.data:6379,carts-db", ["carts-db", "redis.data:6379"]),
        ("mongodb://user:12345@carts-db:27017/x?password=db.example.com:1", ["carts-db:27017"]),
        ("https://api.example.com", ["api.example.com:443"]),
        ("smtp.example.com:587", ["smtp.example.com:587"]),
        ("jdbc:mysql://carts-db:3306/shop", ["carts-db:3306"]),
        ("redis", []),
        ("example.com", []),
        ("hunter2:12345", []),
        ("carts.example:99999", []),
        ("user:carts@elsewhere", []),
        ("x;Password=db.example.com:5432;Server=carts", ["carts"]),
        ("s3cr3t.carts", []),
        ("10.0.0.1:80", []),
        ("carts-2", []),
    ],
)
def test_what_is_a_host(value: str, found: list[str]) -> None:
    assert list(told(("ADDRESS", value))) == found


@pytest.mark.parametrize("name", ["DB_PASSWORD", "apiKey", "TOKEN", "AUTH_USER"])
def test_what_sounds_like_a_secret_is_not_looked_at(name: str) -> None:
    assert told((name, "carts")) == ()


def test_arguments() -> None:
    words = ("--db", "carts-db:27017", "--cache=redis.data:6379", "--password", "carts")
    assert told(arguments=words) == ("carts-db:27017", "redis.data:6379")


def pod(**container: Any) -> schema.Pod:
    raw: dict[str, Any] = {"metadata": {"name": "p", "uid": "u", "namespace": "shop"}}
    raw["spec"] = {"containers": [{"name": "c", **container}]}
    return msgspec.json.decode(msgspec.json.encode(raw), type=schema.Pod)


def test_a_pods_references_and_nothing_else_of_its_environment() -> None:
    one = pod(
        env=[{"name": "CARTS", "value": "carts:80"}, {"name": "MOTD", "value": "open sesame"}],
        args=["--secret-word=sesame"],
    )
    assert "open sesame" not in repr(one)
    assert "secret-word" not in repr(one)
    assert pod_item(LAB, one, None, None, (), SERVICES).references == ("carts:80",)
    assert pod_item(LAB, one, None, None, (), ()).references == ()


def test_routes_that_lead_to_a_service() -> None:
    service = msgspec.convert(
        {
            "metadata": {"name": "carts", "uid": "s", "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]},
        },
        type=schema.Service,
    )
    ingress = {
        "metadata": {"name": "web", "uid": "i", "namespace": "shop"},
        "spec": {
            "defaultBackend": {"service": {"name": "carts", "port": {"name": "http"}}},
            "rules": [
                {"host": "a.example"},
                {"http": {"paths": [
                    {"backend": {"service": {"name": "carts", "port": {"number": 81}}}},
                    {"backend": {"service": {"name": "other", "port": {"number": 80}}}},
                    {"backend": {"resource": {"kind": "Bucket", "name": "carts"}}},
                ]}},
            ],
        },
    }  # fmt: skip
    route = {
        "metadata": {"name": "web", "uid": "r", "namespace": "edge"},
        "spec": {"rules": [{"backendRefs": [
            {"name": "carts", "namespace": "shop", "port": 80, "weight": 9},
            {"name": "carts", "port": 80},
            {"name": "carts", "namespace": "shop", "kind": "Import", "port": 81},
        ]}, {}]},
    }  # fmt: skip
    routes = (
        msgspec.convert(ingress, type=schema.HttpIngress),
        msgspec.convert(route, type=schema.HttpRoute),
    )
    item = service_item(LAB, service, (), None, (), routes)
    assert item.service is not None
    assert item.service.routes == (
        "HTTPRoute/edge/web:80",
        "Ingress/shop/web:80",
        "Ingress/shop/web:81",
    )
