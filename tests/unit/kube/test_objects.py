"""Recorded objects of a real cluster as inventory items, and the cases that records lack."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.kube import schema
from ringfence.kube.objects import (
    Owner,
    namespace_item,
    node_item,
    owner_of,
    pod_item,
    policy_item,
)
from ringfence.kube.services import service_item
from ringfence.kube.watch import NETWORK_POLICIES
from ringfence.model import labels
from ringfence.model.address import format_address, parse_address
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.protocol import SCTP, TCP, UDP
from ringfence.model.workload import Backend, ContainerPort, ItemKind, ServicePort, ServiceType

LAB = ClusterId("lab")
POD_KEY = item_key(LAB, ItemKind.POD, "d5b8dd77-f0e2-422e-ac7e-064bafd3df7f")


def recorded(name: str, kind: Any) -> Any:
    text = (Path(__file__).parent / f"recorded/{name}.json").read_bytes()
    return msgspec.json.decode(text, type=kind)


def pod(**parts: Any) -> schema.Pod:
    meta = {"name": "p", "uid": "u", "namespace": "ns"} | parts.pop("metadata", {})
    return msgspec.convert({"metadata": meta, "spec": {}} | parts, type=schema.Pod)


def test_a_recorded_pod_with_its_namespace_and_owners() -> None:
    replica_set = recorded("replicaset", schema.Bare)
    front_end = recorded("pod", schema.Pod)
    owner = owner_of(front_end, {replica_set.metadata.uid: replica_set})
    assert owner == Owner("Deployment", "front-end")
    assert owner_of(front_end, {}) == Owner("ReplicaSet", "front-end-659588f94b")
    item = pod_item(LAB, front_end, recorded("namespace", schema.Bare), owner)
    assert item.key == POD_KEY
    assert item.display == "sock-shop/front-end-659588f94b-6692g"
    assert item.workload_name == "front-end"
    assert item.node == "node2"
    assert not item.host_network
    assert item.addresses == (parse_address("10.244.2.2"),)
    assert item.containers == (ContainerPort("", TCP, 8079),)
    assert item.probe_ports == ((TCP, 8079),)
    begun = datetime(2026, 11, 21, 12, 6, 37, tzinfo=UTC)
    assert item.since_ns == int(begun.timestamp()) * 10**9
    assert dict(item.labels) == {
        "address": ("10.244.2.2",),
        "kind": ("pod",),
        "kubernetes.cluster": ("lab",),
        "kubernetes.label.app.kubernetes.io/part-of": ("sock-shop",),
        "kubernetes.label.name": ("front-end",),
        "kubernetes.label.pod-template-hash": ("659588f94b",),
        "kubernetes.namespace": ("sock-shop",),
        "kubernetes.namespace.label.kubernetes.io/metadata.name": ("sock-shop",),
        "kubernetes.node": ("node2",),
        "kubernetes.owner.kind": ("Deployment",),
        "kubernetes.owner.name": ("front-end",),
        "kubernetes.service_account": ("front-end",),
        "name": ("front-end-659588f94b-6692g",),
    }


def test_since_when_a_pod_has_its_address() -> None:
    up = {"type": "PodReadyToStartContainers", "status": "True"}
    up["lastTransitionTime"] = "1970-01-01T00:00:09Z"
    begun = "1970-01-01T00:00:07Z"
    late = up | {"lastTransitionTime": "1970-01-01T00:00:30Z"}
    down = up | {"status": "False"}
    for conditions, since_s in (([], 7), ([down], 7), ([up], 7), ([late], 28)):
        told = pod(status={"conditions": conditions, "startTime": begun})
        assert pod_item(LAB, told, None, None).since_ns == since_s * 10**9
    assert pod_item(LAB, pod(), None, None).since_ns == 0


def test_a_recorded_service_with_its_slice() -> None:
    one = recorded("endpointslice", schema.EndpointSlice)
    item = service_item(LAB, recorded("service", schema.Service), [one, one], None)
    assert item.addresses == (parse_address("10.100.198.197"),)
    assert item.service is not None
    assert item.service.type is ServiceType.NODE_PORT
    assert item.service.ports == (ServicePort("", TCP, 80, 31095),)
    expected = Backend("", TCP, parse_address("10.244.2.2"), 8079, serving=True, item=POD_KEY)
    assert item.service.backends == (expected,)


def test_a_recorded_node_and_namespace() -> None:
    node = node_item(LAB, recorded("node", schema.Node))
    assert (node.kind, node.name, node.node) == (ItemKind.NODE, "node1", "node1")
    assert [format_address(address) for address in node.addresses] == ["10.77.0.11"]
    assert list(map(str, node.pod_networks)) == ["10.244.1.0/24"]
    namespace = namespace_item(LAB, recorded("namespace", schema.Bare))
    assert namespace.display == "sock-shop"
    assert namespace.labels["kubernetes.namespace"] == ("sock-shop",)


def test_labels_keep_their_spelling() -> None:
    for given in (
        {"app": "a", "tier": "b"},
        {"App": "a", "app": "b", "Tier": "c", "x": "d"},
        {"App": "a", "app": "a"},
        {"APP": "a", "App": "b"},
    ):
        told = pod(metadata={"labels": given})
        item = pod_item(LAB, told, recorded("namespace", schema.Bare), None)
        assert labels.exact(item.labels, item.exact_labels) == given
        assert bool(item.exact_labels) is any(key != key.lower() for key in given)


def test_a_policy_is_told_as_it_is() -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"no": "such peer"}]}]}
    raw = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec, "status": {}}
    held = msgspec.convert(raw, type=schema.Policy)
    item = policy_item(LAB, NETWORK_POLICIES.resource.api_version, NETWORK_POLICIES.name, held)
    assert item.manifest == (
        '{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy",'
        '"metadata":{"name":"p","namespace":"ns"},'
        '"spec":{"ingress":[{"from":[{"no":"such peer"}]}],"podSelector":{}}}'
    )
    assert (item.kind, item.display) == (ItemKind.KUBERNETES_POLICY, "ns/p")


def test_the_kubelet_dials_probes_and_hooks_by_number_or_name() -> None:
    containers = [
        {
            "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 5000}],
            "livenessProbe": {"httpGet": {"port": "web"}},
            "readinessProbe": {"tcpSocket": {"port": 5001}},
            "startupProbe": {"exec": {"command": ["true"]}},
        },
        {
            "ports": [{"name": "media", "containerPort": 5004, "protocol": "UDP"}],
            "livenessProbe": {"grpc": {"port": 9090}},
            "readinessProbe": {"httpGet": {"port": "web"}},  # another container's name
            "lifecycle": {"preStop": {"httpGet": {"port": "7070"}}},
            "startupProbe": {"httpGet": {"port": 6060, "host": "192.0.2.9"}},  # not the pod
        },
    ]
    sidecar = {"restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 4000}}}
    begins = [sidecar, {"ports": [{"name": "media", "containerPort": 9999, "protocol": "UDP"}]}]
    item = pod_item(LAB, pod(spec={"containers": containers, "initContainers": begins}), None, None)
    dialled = [4000, 5001, 7070, 8080, 9090]
    assert item.probe_ports == tuple((TCP, port) for port in dialled)
    named = [port for port in item.containers if port.name == "media"]
    assert named == [ContainerPort("media", UDP, 5004)]


@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({}, []),
        ({"phase": "Running", "podIP": "10.1.0.2"}, ["10.1.0.2"]),
        (
            {"podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::2"}]},
            ["10.1.0.2", "fd00::2"],
        ),
        ({"phase": "Succeeded", "podIP": "10.1.0.2"}, []),
        ({"phase": "Failed", "podIP": "10.1.0.2"}, []),
        ({"podIP": "not an address"}, []),
    ],
)
def test_a_pod_holds_its_addresses_until_it_has_finished(
    status: dict[str, Any], addresses: list[str]
) -> None:
    item = pod_item(LAB, pod(status=status), None, None)
    assert [format_address(address) for address in item.addresses] == addresses
    assert item.labels.get("address", ()) == tuple(sorted(addresses))


def test_hostile_strings_are_data_and_long_annotations_stay_out() -> None:
    evil = "'; DROP TABLE flows; --\x00\n{{7*7}}\u202e"
    held = {"team": evil, "note": "é" * 129, "unasked": "x"}
    metadata = {"labels": {"A.b/C": evil, "a.B/c": "low"}, "annotations": held}
    item = pod_item(LAB, pod(metadata=metadata), None, None, ("team", "note", "absent"))
    assert item.labels["kubernetes.annotation.team"] == (evil,)
    assert item.labels["kubernetes.label.a.b/c"] == tuple(sorted((evil, "low")))
    said = [key for key in item.labels if key.startswith("kubernetes.annotation")]
    assert said == ["kubernetes.annotation.team"]


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([], None),
        ([("StatefulSet", "db", "x", True)], Owner("StatefulSet", "db")),
        ([("Job", "nightly-1", "job", True)], Owner("CronJob", "nightly")),
        ([("Node", "node1", "n", True)], None),
        ([("Other", "o", "o", False), ("DaemonSet", "d", "d", True)], Owner("DaemonSet", "d")),
    ],
)
def test_owners(owners: list[tuple[str, str, str, bool]], expected: Owner | None) -> None:
    def references(rows: list[tuple[str, str, str, bool]]) -> list[dict[str, Any]]:
        keys = ("kind", "name", "uid", "controller")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    job = {"name": "nightly-1", "uid": "job"} | {
        "ownerReferences": references([("CronJob", "nightly", "c", True)])
    }
    parents = {"job": msgspec.convert({"metadata": job}, type=schema.Bare)}
    assert owner_of(pod(metadata={"ownerReferences": references(owners)}), parents) == expected


def test_services_of_every_shape() -> None:
    def service(spec: dict[str, Any], status: dict[str, Any] | None = None) -> Any:
        meta = {"name": "s", "uid": "s", "namespace": "ns"}
        raw = {"metadata": meta, "spec": spec, "status": status or {}}
        item = service_item(LAB, msgspec.convert(raw, type=schema.Service), [], None)
        assert item.service is not None
        return item

    headless = service({"clusterIP": "None", "clusterIPs": ["None"]})
    assert headless.addresses == ()
    assert service({"type": "ExternalName"}).service.type is ServiceType.EXTERNAL_NAME
    balanced = service(
        {
            "type": "LoadBalancer",
            "clusterIPs": ["10.100.0.5", "fd00::5"],
            "externalIPs": ["192.0.2.7"],
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": [" 203.0.113.9/24 ", "2001:db8::/32"],
            "ports": [{"name": "sig", "port": 5060, "protocol": "SCTP", "nodePort": 30001}],
        },
        {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "lb.example"}]}},
    )
    assert len(balanced.addresses) == 2
    spec = balanced.service
    assert [format_address(one) for one in spec.external_addresses] == ["192.0.2.7", "192.0.2.8"]
    assert spec.ports == (ServicePort("sig", SCTP, 5060, 30001),)
    assert spec.external_traffic_policy == "Local"
    assert [format_address(one) for one in spec.balancer_addresses] == ["192.0.2.8"]
    assert [*map(str, spec.source_ranges)] == ["203.0.113.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("conditions", "serving"),
    [
        ({}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": True, "serving": False}, False),
    ],
)
def test_serving(conditions: dict[str, bool], serving: bool) -> None:
    raw = {
        "metadata": {"name": "e", "uid": "e"},
        "endpoints": [
            {"addresses": ["10.1.0.2", "10.1.0.3"], "conditions": conditions},
            {"addresses": ["host.example"]},
        ],
        "ports": [{"name": "web", "port": 80}, {"name": "all"}],
    }
    one = msgspec.convert(raw, type=schema.EndpointSlice)
    service = msgspec.convert(
        {"metadata": {"name": "s", "uid": "s"}, "spec": {}}, type=schema.Service
    )
    spec = service_item(LAB, service, [one], None).service
    assert spec is not None
    assert spec.backends == (Backend("web", TCP, parse_address("10.1.0.2"), 80, serving, None),)


@pytest.mark.parametrize(
    ("where", "context", "expected"),
    [
        ("containers", {"privileged": True}, True),
        ("containers", {"capabilities": {"add": ["CAP_NET_ADMIN"]}}, True),
        ("initContainers", {"capabilities": {"add": ["net_admin"]}}, True),
        ("ephemeralContainers", {"capabilities": {"add": ["SYS_ADMIN"]}}, True),
        ("containers", {"capabilities": {"add": ["ALL"]}}, True),
        ("containers", {"capabilities": {"add": ["NET_RAW"], "drop": ["NET_ADMIN"]}}, False),
        ("containers", {"privileged": False, "capabilities": None}, False),
    ],
)
def test_a_pod_that_may_change_its_own_rules_is_known(
    where: str, context: dict[str, Any], expected: bool
) -> None:
    told = pod(spec={where: [{"securityContext": context}]})
    item = pod_item(LAB, told, None, None)
    assert item.net_admin is expected
    assert item.labels.get("kubernetes.net_admin") == (("true",) if expected else None)
