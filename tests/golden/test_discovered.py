"""What a proposal looks like: a shop in two namespaces, with a database on hosts."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ringfence.cli.discover import app
from tests.golden.conftest import Golden

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
EVERY, TIMES = timedelta(minutes=15), 96
SPACES = ("shop", "shop-test")
APPS = ("cart", "catalogue", "pay", "web")
HOSTS = {"ip-10-20-0-23": "10.20.0.23", "ip-10-20-0-26": "10.20.0.26"}
RESOLVER, BANK, GONE = "10.96.0.10", "198.51.100.7", "10.1.9.9"


def pod(space: str, name: str, copy: int) -> dict[str, Any]:
    place = [*SPACES, "kube-system"].index(space)
    number = [*APPS, "coredns"].index(name) * 10 + copy
    return {
        "kind": "pod",
        "kubernetes_cluster": "lab",
        "namespace": space,
        "name": f"{name}-{copy}",
        "addresses": [f"10.1.{place}.{number}"],
        "labels": {"kubernetes.label.app": name},
        "owner": f"StatefulSet/{name}",
        "workload_name": name,
        "probes": [{"protocol": "TCP", "port": 8080}] if name == "web" else [],
    }


PODS = [
    *(pod(space, name, copy) for space in SPACES for name in APPS for copy in (1, 2)),
    pod("kube-system", "coredns", 1),
]
ADDRESS = {(one["namespace"], one["name"]): one["addresses"][0] for one in PODS}


def service(space: str, name: str, address: str, *ports: tuple[str, int, int]) -> dict[str, Any]:
    backends = [one for one in PODS if (one["namespace"], one["workload_name"]) == (space, name)]
    return {
        "kind": "service",
        "kubernetes_cluster": "lab",
        "namespace": space,
        "name": "kube-dns" if name == "coredns" else name,
        "addresses": [address],
        "service": {
            "type": "ClusterIP",
            "ports": [
                {"name": f"{protocol}-{port}".lower(), "protocol": protocol, "port": port}
                for protocol, port, _ in ports
            ],
            "backends": [
                {
                    "service_port": f"{protocol}-{port}".lower(),
                    "protocol": protocol,
                    "address": one["addresses"][0],
                    "port": target,
                    "serving": True,
                }
                for protocol, port, target in ports
                for one in backends
            ],
        },
    }


FRONTS = {
    (space, name): f"10.96.{place}.{number}"
    for place, space in enumerate(SPACES, 1)
    for number, name in enumerate(("cart", "catalogue"), 1)
}
ITEMS = [
    *PODS,
    *({"kind": "host", "name": name, "addresses": [at]} for name, at in HOSTS.items()),
    *(service(*front, at, ("TCP", 80, 8080)) for front, at in FRONTS.items()),
    service("kube-system", "coredns", RESOLVER, ("UDP", 53, 53), ("TCP", 53, 53)),
]


def conversations() -> Iterator[tuple[object, ...]]:
    """Everybody in turn, each time another copy."""
    for turn in range(TIMES):
        copy, other, begun = turn % 2 + 1, turn // 2 % 2 + 1, BEGIN + turn * EVERY
        at = begun.isoformat(), (begun + timedelta(seconds=1)).isoformat()
        for space in SPACES:
            web, pay, cart = (ADDRESS[space, f"{one}-{copy}"] for one in ("web", "pay", "cart"))
            for front, sources in (("cart", (web, pay)), ("catalogue", (web, cart))):
                provider, dialled = ADDRESS[space, f"{front}-{other}"], FRONTS[space, front]
                for source in sources:
                    yield *at, source, provider, "TCP", 8080, dialled, 80, *ANSWERED
            host = [*HOSTS.values()][other - 1]
            yield *at, cart, host, "TCP", 3306, host, 3306, *ANSWERED
            yield *at, pay, BANK, "TCP", 443, BANK, 443, *ANSWERED
            resolver = ADDRESS["kube-system", "coredns-1"]
            for source in (web, pay, cart):
                yield *at, source, resolver, "UDP", 53, RESOLVER, 53, *ANSWERED
            yield *at, web, GONE, "TCP", 8080, GONE, 8080, *UNANSWERED


ANSWERED, UNANSWERED = ("syn", 900, 600, 1, 1), ("syn", 900, 0, 1, 0)
HEADER = (
    "first", "last", "consumer_address", "provider_address", "protocol", "port", "dialled_address",
    "dialled_port", "method", "forward_bytes", "reverse_bytes", "opened", "answered",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder: Path = tmp_path_factory.mktemp("files")
    inventory, flows = folder / "inventory.json", folder / "flows.csv"
    inventory.write_text(json.dumps({"kind": "Inventory", "items": ITEMS}))
    with flows.open("w") as file:
        csv.writer(file).writerows([HEADER, *conversations()])
    return str(inventory), str(flows)


def run(files: tuple[str, str], *options: str) -> Result:
    done = CliRunner().invoke(app, ["--inventory", files[0], "--flows", files[1], *options])
    assert done.exit_code == 0, done.output
    return done


def test_the_proposal(files: tuple[str, str], golden: Golden) -> None:
    golden("discovered.yaml", run(files).stdout)


def test_the_table_and_what_is_told_beside_it(files: tuple[str, str], golden: Golden) -> None:
    done = run(files, "-o", "table")
    golden("discovered.txt", f"{done.stdout}\n{done.stderr}")
