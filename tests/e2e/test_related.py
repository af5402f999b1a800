"""Ways to a Service that translation splits into hops, as `flows related` links them again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from ringfence.lab.config import LabConfig
from ringfence.lab.shop.manifests import NAMESPACE, UNUSED_NODE_PORT
from tests.e2e.cluster import Lab, ringfence, until

CONFIG = LabConfig()
EXTERNAL = str(CONFIG.external.address)
NODES = {spec.name: str(spec.address) for spec in CONFIG.node_specs}
GATEWAYS = {spec.name: str(next(spec.pods.hosts())) for spec in CONFIG.node_specs}
LOCAL_NODE_PORT = 31097
CALLS = 5
DIAL = """
import socket
for _ in range({calls}): socket.create_connection(({host!r}, {port}), 5).close()
"""
Tuple = tuple[str, str, int]


@dataclass(frozen=True)
class Way:
    """What was dialled, and what arrived."""

    dialled: Tuple
    arrived: Tuple
    translated: list[str]
    since: str
    """Others dialled the same before."""


@pytest.fixture(scope="module")
def paths(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    """Each way was gone a few times; by its name."""
    manifest = tmp_path_factory.mktemp("local") / "service.json"
    manifest.write_text(json.dumps(local_service()))
    installed.kubectl("apply", "-f", str(manifest))
    try:
        until("kube-proxy serves it", lambda: _open(installed), 30)
        yield go(installed)
    finally:
        installed.kubectl("delete", "-f", str(manifest))


def local_service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front-end-local", "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "externalTrafficPolicy": "Local",
            "selector": {"name": "front-end"},
            "ports": [{"port": 80, "targetPort": 8079, "nodePort": LOCAL_NODE_PORT}],
        },
    }


def pod(lab: Lab, name: str) -> tuple[str, str]:
    """The node and the address of a pod of the shop."""
    found = lab.get("pod", "-n", NAMESPACE, "-l", f"name={name}")["items"][0]
    return found["spec"]["nodeName"], found["status"]["podIP"]


def _open(lab: Lab) -> bool:
    """Whether it answers another machine than the one that will be counted."""
    home, _ = pod(lab, "front-end")
    try:
        lab.on("control", "python3", "-c", DIAL.format(calls=1, host=NODES[home],
                                                       port=LOCAL_NODE_PORT))  # fmt: skip
    except AssertionError:
        return False
    return True


def go(lab: Lab) -> dict[str, Way]:
    home, front_end = pod(lab, "front-end")
    lies, catalogue = pod(lab, "catalogue")
    (elsewhere,) = NODES.keys() - {lies}
    own = lab.get("svc", "-n", NAMESPACE, "front-end")["spec"]["clusterIP"]
    since = datetime.now(UTC).isoformat()
    for host, port in ((NODES[elsewhere], UNUSED_NODE_PORT), (NODES[home], LOCAL_NODE_PORT)):
        lab.on("external", "python3", "-c", DIAL.format(calls=CALLS, host=host, port=port))
    lab.in_pod("front-end", DIAL.format(calls=CALLS, host=own, port=80))
    return {
        "NodePort, Cluster, through another node": Way(
            (EXTERNAL, NODES[elsewhere], UNUSED_NODE_PORT),
            (NODES[elsewhere], catalogue, 80),
            ["SNAT", "DNAT"],
            since,
        ),
        "NodePort, Local": Way(
            (EXTERNAL, NODES[home], LOCAL_NODE_PORT), (EXTERNAL, front_end, 8079), ["DNAT"], since
        ),
        "hairpin": Way(
            (front_end, own, 80), (GATEWAYS[home], front_end, 8079), ["SNAT", "DNAT"], since
        ),
    }


@pytest.mark.parametrize(
    "way", ["NodePort, Cluster, through another node", "NodePort, Local", "hairpin"]
)
def test_the_hops_of_a_connection_are_linked(paths: dict[str, Way], way: str) -> None:
    path = paths[way]

    def related() -> list[dict[str, Any]]:
        consumer, provider, port = path.dialled
        words = (
            "flows",
            "related",
            consumer,
            provider,
            str(port),
            "--since",
            path.since,
            "-o",
            "json",
        )
        items: list[dict[str, Any]] = json.loads(ringfence(*words))["items"]
        return items

    def whole() -> bool:
        return [len(one["hops"]) for one in related()] == [2]

    until("both hops are told", whole, 60)
    (connection,) = related()
    first, last = connection["hops"]
    assert (told(first), first["translated"]) == (path.dialled, [])
    assert (told(last), last["translated"]) == (path.arrived, path.translated)
    assert connection["flow"]["opened"] == CALLS
    for hop in (first, last):
        (counted,) = [seen for seen in hop["observations"] if seen["counted"]]
        assert (counted["opened"], counted["answered"]) == (CALLS, CALLS)
    before = next(seen["before"] for seen in last["observations"] if seen["before"])
    assert told(before) == path.dialled


def told(hop: dict[str, Any]) -> Tuple:
    return hop["consumer"]["address"], hop["provider"]["address"], hop["port"]
