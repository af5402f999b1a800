"""Pods of two nodes over a VXLAN: each connection told once, linked to the tunnel it runs in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.config import LabConfig
from ringfence.lab.images import reference
from tests.e2e.cluster import Lab, ringfence, until
from tests.footprint import Footprint, assert_nothing_stays, of_host

NEAR, FAR = (str(spec.address) for spec in LabConfig().node_specs)
CONNECTIONS = 10
VXLAN_PORT = 4789
HEADERS = 50  # of IPv4, UDP, VXLAN and Ethernet around each packet
SERVE = ["python3", "-m", "http.server", "8080", "--directory", "/usr/bin"]
FETCH = """
import urllib.request
for _ in range({count}):
    urllib.request.urlopen("http://{host}/python3", timeout=9).read()
"""
DIAL = """
import socket
try: socket.create_connection(({host!r}, {port}), 2).close(); print("open")
except OSError as error: print(error)
"""
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def overlay(clean_host: Footprint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab without a shop, with Ringfence, and in namespace `far` three pods on two nodes."""
    manifests = tmp_path_factory.mktemp("far") / "far.yaml"
    manifests.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}))
    try:
        ringfence("lab", "up", "--bare", "--cni", "overlay")
        lab = Lab()
        lab.kubectl("apply", "-f", str(manifests))
        ringfence("lab", "install")
        ready = ("--for=condition=Ready", "pod", "--all", "--timeout=60s")
        lab.kubectl("wait", "-n", "far", *ready)
        yield lab
    finally:
        ringfence("lab", "down", "--all")
    assert_nothing_stays(clean_host, of_host)


def objects() -> list[dict[str, Any]]:
    def of(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "labels": {"name": name}}
        if kind != "Namespace":
            metadata["namespace"] = "far"
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}

    def pod(name: str, node: str, *command: str) -> dict[str, Any]:
        image = {"image": reference("shop"), "imagePullPolicy": "Never"}
        container = {"name": name, "command": command, **image}
        return of(
            "Pod", name, nodeName=node, terminationGracePeriodSeconds=0, containers=[container]
        )

    return [
        of("Namespace", "far"),
        pod("client", "node1", "sleep", "infinity"),
        pod("stranger", "node1", "sleep", "infinity"),
        pod("server", "node2", *SERVE),
        of(
            "Service",
            "server",
            selector={"name": "server"},
            ports=[{"port": 80, "targetPort": 8080}],
        ),
    ]


def in_pod(lab: Lab, pod: str, code: str) -> str:
    return lab.kubectl("exec", "-n", "far", pod, "--", "python3", "-c", code).strip()


def dial(lab: Lab, pod: str, host: str, port: int) -> str:
    """`open`, or what went wrong: `timed out` for a drop."""
    return in_pod(lab, pod, DIAL.format(host=host, port=port))


def flows(query: str) -> list[dict[str, Any]]:
    answer = ringfence("flows", "list", "--since", "5m", "--filter", query, "-o", "json")
    items: list[dict[str, Any]] = json.loads(answer)
    return items


@pytest.fixture(scope="module")
def addresses(overlay: Lab) -> tuple[str, str, str]:
    """Of the client, the server and the server's Service."""
    found = {
        (item["kind"], item["metadata"]["name"]): item
        for item in overlay.get("pod,svc", "-n", "far")["items"]
    }
    client, server = (found["Pod", name]["status"]["podIP"] for name in ("client", "server"))
    return client, server, found["Service", "server"]["spec"]["clusterIP"]


def test_status_tells_the_pod_networks(overlay: Lab) -> None:
    status = overlay.status()
    assert status["cni"] == "overlay"
    networks = {m["name"]: m["pod_network"] for m in status["machines"] if m["pod_network"]}
    assert networks == {"node1": "10.244.1.0/24", "node2": "10.244.2.0/24"}


def test_a_connection_is_told_once_and_linked_to_its_tunnel(
    overlay: Lab, addresses: tuple[str, str, str]
) -> None:
    client, server, service = addresses
    in_pod(overlay, "client", FETCH.format(count=CONNECTIONS, host=service))
    query = f'consumer.address = "{client}" and port = 80'

    def all_seen() -> bool:
        found = flows(query)
        opened = [hop["opened"] for flow in found for hop in [flow, *flow["related"]]]
        return len(opened) == 3 and opened[:2] == [CONNECTIONS] * 2

    until("the connections and their tunnel are seen", all_seen, 60)
    (flow,) = flows(query)
    told = [
        (hop["consumer"]["address"], hop["provider"]["address"], hop["protocol"], hop["port"])
        for hop in [flow, *flow["related"]]
    ]
    assert told == [
        (client, service, "TCP", 80),
        (client, server, "TCP", 8080),
        (NEAR, FAR, "UDP", VXLAN_PORT),
    ]
    inside, outside = flow["related"]
    assert outside["carries"] >= 1 > inside["carries"]
    tunnels = {
        (one["consumer"]["address"], one["provider"]["address"]): one
        for one in flows(f"port = {VXLAN_PORT}")
    }
    assert set(tunnels) == {(NEAR, FAR), (FAR, NEAR)}
    for way, ends in (("forward", (NEAR, FAR)), ("reverse", (FAR, NEAR))):
        carried, carrier = inside[way], tunnels[ends]["forward"]
        assert carrier["packets"] >= carried["packets"] > CONNECTIONS
        assert carrier["bytes"] - carried["bytes"] >= HEADERS * carried["packets"]


def test_a_policy_holds_between_pods_of_different_nodes(
    overlay: Lab, addresses: tuple[str, str, str], tmp_path: Path
) -> None:
    _, server, service = addresses
    split = ("--kubernetes-cluster", "lab", "--namespace", "far")
    (tmp_path / "scopes.yaml").write_text(ringfence("scopes", "design", "split", *split))
    ringfence("apply", "-f", str(tmp_path / "scopes.yaml"))
    proposed = ringfence("discover", "far", "--since", "10m")
    (tmp_path / "far.yaml").write_text(proposed)
    ringfence("apply", "-f", str(tmp_path / "far.yaml"))
    assert dial(overlay, "stranger", server, 8080) == "open"
    ringfence("enforce", "far", "--yes")
    assert dial(overlay, "client", service, 80) == "open"
    assert dial(overlay, "stranger", server, 8080) == "timed out"
