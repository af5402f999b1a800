"""The manifests grant what the parts use, and nothing more."""

from pathlib import Path
from string import Template
from typing import Any

import yaml

from ringfence.connector.sync import WATCHED

DIRECTORY = Path(__file__).parents[3] / "deploy/kubernetes"
VARIABLES = {
    "IMAGE": "ringfence:1",
    "SERVER": "https://192.0.2.1:8443",
    "KUBERNETES_CLUSTER": "lab",
    "CA_PEM_BASE64": "Q0E=",
    "CONNECTOR_TOKEN": "one",
    "AGENT_TOKEN": "two",
    "DNS": "false",
}


def objects() -> dict[tuple[str, str], Any]:
    found = {}
    for path in DIRECTORY.glob("*.yaml"):
        for document in yaml.safe_load_all(Template(path.read_text()).substitute(VARIABLES)):
            found[document["kind"], document["metadata"]["name"]] = document
    return found


def test_the_connector_may_list_and_watch_just_what_it_watches() -> None:
    rules = objects()["ClusterRole", "ringfence-connector"]["rules"]
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        (kind.resource.group, kind.resource.name, verb)
        for kind in WATCHED
        for verb in ("list", "watch")
    }


def test_the_connector_may_read_and_change_one_secret_which_holds_its_identity() -> None:
    found = objects()
    (rule,) = found["Role", "connector-identity"]["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["connector-identity"],
        "verbs": ["get", "patch"],
    }
    assert "data" not in found["Secret", "connector-identity"], "applied again, it stays as it is"
    (container,) = found["Deployment", "connector"]["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["RINGFENCE_IDENTITY_SECRET"] == "ringfence/connector-identity"


def test_containers_hold_no_more_than_they_need() -> None:
    found = objects()
    pods = {
        name: found[kind, name]["spec"]["template"]["spec"]
        for kind, name in (("Deployment", "connector"), ("DaemonSet", "agent"))
    }
    for pod in pods.values():
        assert "hostIPC" not in pod
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        containers = pod["containers"] + pod.get("initContainers", [])
        for container in containers:
            security = container["securityContext"]
            assert "privileged" not in security
            assert security["readOnlyRootFilesystem"]
            assert security["capabilities"]["drop"] == ["ALL"]
        mounted = {mount["name"] for each in containers for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    connector = pods["connector"]
    assert connector["securityContext"]["runAsNonRoot"]
    assert "hostPID" not in connector
    assert "add" not in connector["containers"][0]["securityContext"]["capabilities"]
    assert not any("hostPath" in volume for volume in connector["volumes"])
    agent = pods["agent"]
    # Who runs all the while has no business with the node's units.
    (first,) = agent["initContainers"]
    assert [mount["name"] for mount in first["volumeMounts"]] == ["units"]
    assert "add" not in first["securityContext"]["capabilities"]
    assert "units" not in {mount["name"] for mount in agent["containers"][0]["volumeMounts"]}
    # A socket that is mounted itself is that of a runtime before its restart.
    on_host = [volume["hostPath"]["type"] for volume in agent["volumes"] if "hostPath" in volume]
    assert set(on_host) == {"Directory", "DirectoryOrCreate"}
    assert not agent["automountServiceAccountToken"]
    assert agent["containers"][0]["securityContext"]["capabilities"]["add"] == [
        "BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE",
    ]  # fmt: skip
