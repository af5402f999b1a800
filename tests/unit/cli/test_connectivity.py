"""What a folder of manifests permits: what the corpus of others has few cases of."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ringfence.cli.main import FAILED, main
from ringfence.cli.netpol import app
from ringfence.model.errors import InputError
from ringfence.policy.errors import PolicyError

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}, {containerPort: 9090}]}]}
---
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress, Ingress], %s}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [%s]}
---
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {defaultBackend: {service: {name: web, port: %s}}}
"""
ROUTE = """
apiVersion: route.openshift.io/v1
kind: Route
metadata: {name: web, namespace: shop}
spec: {to: {kind: Service, name: web}, port: {targetPort: %s}}
"""


def run(folder: Path, manifests: str, *options: str) -> Result:
    (folder / "all.yaml").write_text(WEB + manifests)
    return CliRunner().invoke(app, ["connectivity", "--dir", str(folder), *options])


def exposed(folder: Path, rules: str, *options: str) -> list[dict[str, str]]:
    done = run(folder, POLICY % rules, "--exposure", "-o", "json", *options)
    told = json.loads(done.stdout)
    results = told.get("exposure_results") or told["exposure_conn_focus_results"]
    egress: list[dict[str, str]] = results["egress_exposure"]
    return egress


@pytest.mark.parametrize(
    ("ports", "told"),
    [
        ("{port: http}", "TCP http"),
        ("{port: http}, {port: 80}, {port: dns, protocol: UDP}", "TCP 80,http,UDP dns"),
        ("{port: http}, {}", "TCP 1-65535,http"),
    ],
)
def test_names_of_ports_that_absent_pods_may_have(tmp_path: Path, ports: str, told: str) -> None:
    rules = f"egress: [{{to: [{{namespaceSelector: {{}}}}], ports: [{ports}]}}]"
    (only,) = exposed(tmp_path, rules)
    assert (only["dst"], only["conn"]) == ("entire-cluster", told)


def test_exposure_on_one_connection(tmp_path: Path) -> None:
    rules = "egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}]"
    (only,) = exposed(tmp_path, rules, "--focus-connection", "tcp-80")
    assert only == {"src": "shop/web[Pod]", "dst": "shop/[pod with {app=db}]"}
    assert exposed(tmp_path, rules, "--focus-connection", "tcp-81") == []


def test_exposure_on_one_connection_is_headed_by_it(tmp_path: Path) -> None:
    done = run(tmp_path, "", "--exposure", "--focus-connection", "tcp-80")
    _, told = done.stdout.split("\n\n", 1)
    assert [" ".join(line.split()) for line in told.splitlines()] == [
        "Exposure Analysis Result On TCP 80:",
        "Egress Exposure:",
        "shop/web[Pod] => 0.0.0.0-255.255.255.255[External]",
        "shop/web[Pod] => entire-cluster",
        "",
        "Ingress Exposure:",
        "shop/web[Pod] <= 0.0.0.0-255.255.255.255[External]",
        "shop/web[Pod] <= entire-cluster",
    ]


ADMIN = """
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: %s}
spec: {priority: %d, subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: %s}}}, %s}
---
"""


def test_what_administrators_say_of_absent_pods_counts(tmp_path: Path) -> None:
    bank = "{namespaces: {matchLabels: {kubernetes.io/metadata.name: bank}}}"
    ours = (
        f"egress: [{{action: Allow, to: [{bank}], ports: [{{portRange: {{start: 1, end: 99}}}}]}}]"
    )
    theirs = (
        "ingress: [{action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {port: 80}}]}]"
    )
    manifests = ADMIN % ("ours", 1, "shop", ours) + ADMIN % ("theirs", 2, "bank", theirs)
    done = run(tmp_path, manifests + POLICY % "egress: []", "--exposure", "-o", "json")
    (only,) = json.loads(done.stdout)["exposure_results"]["egress_exposure"]
    assert (only["dst"], only["conn"]) == ("bank/[all pods]", "TCP 1-79,81-99")


def test_ingress_controllers_are_governed_too(tmp_path: Path) -> None:
    everyone = (
        "egress: [{action: Deny, to: [{namespaces: {}}], ports: [{portNumber: {port: 8080}}]}]"
    )
    admin = ADMIN.replace("{matchLabels: {kubernetes.io/metadata.name: %s}}", "{}")
    manifests = SERVICE % "{port: 80, targetPort: 8080}, {port: 9090}" + ROUTE % "0" + "---"
    done = run(tmp_path, manifests + admin % ("a", 1, everyone), "--focus", "ingress-controller")
    assert done.stdout == "{ingress-controller} => shop/web[Pod] : TCP 9090\n"


def test_one_connection_in_focus_is_told_once(tmp_path: Path) -> None:
    done = run(tmp_path, "", "--focus-connection", "udp-53")
    assert done.stdout == (
        "Permitted connections on UDP 53:\n"
        "0.0.0.0-255.255.255.255[External] => shop/web[Pod]\n"
        "shop/web[Pod] => 0.0.0.0-255.255.255.255[External]\n"
    )


@pytest.mark.parametrize(
    ("manifests", "conn"),
    [
        (SERVICE % "{port: 80, targetPort: http}" + INGRESS % "{number: 80}", "TCP 8080"),
        (SERVICE % "{name: a, port: 9090}" + INGRESS % "{name: a}", "TCP 9090"),
        (SERVICE % "{port: 80, targetPort: http}" + INGRESS % "{number: 8080}", None),
        (SERVICE % "{port: 80, targetPort: 8080}" + INGRESS % "{number: 8080}", "TCP 8080"),
        (SERVICE % "{port: 80, targetPort: 7070}" + INGRESS % "{number: 80}", None),
        (SERVICE % "{port: 80, targetPort: http}" + ROUTE % "http", "TCP 8080"),
        (SERVICE % "{port: 80, targetPort: 8080}, {port: 9090}" + ROUTE % "80", "TCP 8080"),
        (SERVICE % "{port: 80, targetPort: 8080}, {port: 9090}" + ROUTE % "0", "TCP 8080,9090"),
    ],
)
def test_what_ingress_controllers_reach(tmp_path: Path, manifests: str, conn: str | None) -> None:
    done = run(tmp_path, manifests, "--focus", "ingress-controller", "-o", "json")
    assert [one["conn"] for one in json.loads(done.stdout)] == ([conn] if conn else [])


@pytest.mark.parametrize(
    ("owner", "told"),
    [
        ("{kind: ReplicaSet, name: web-1, controller: true}", "shop/web-1[ReplicaSet]"),
        ("{kind: ReplicaSet, name: web-1}", "shop/web[Pod]"),
        ("{kind: Node, name: n1, controller: true}", "shop/web[Pod]"),
    ],
)
def test_who_owns_a_pod(tmp_path: Path, owner: str, told: str) -> None:
    (tmp_path / "all.yaml").write_text(
        WEB.replace("labels:", f"ownerReferences: [{owner}], labels:").rstrip("-\n")
    )
    done = CliRunner().invoke(app, ["connectivity", "--dir", str(tmp_path)])
    assert done.stdout.startswith(f"0.0.0.0-255.255.255.255[External] => {told} :")


CLUSTER = """
apiVersion: policy.networking.k8s.io/%s
kind: ClusterNetworkPolicy
metadata: {name: %s}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: %s, to: [%s]}]}
---
"""


def test_a_case_with_a_policy_that_is_not_read_is_refused(tmp_path: Path) -> None:
    policy = {"apiVersion": "extensions/v1beta1", "kind": "NetworkPolicy"}
    step = {"namespaces": {}, "policies": [policy], "probes": []}
    (tmp_path / "cases.json").write_text(json.dumps([{"name": "one", "steps": [step]}]))
    (tmp_path / "cluster.json").write_text('{"namespaces": {}, "pods": []}')
    done = CliRunner().invoke(app, ["check", "--case", str(tmp_path / "cases.json")])
    assert isinstance(done.exception, PolicyError)
    assert "document 1: NetworkPolicy: apiVersion: expected a policy" in str(done.exception)


def test_versions_and_ties_of_cluster_policies(tmp_path: Path) -> None:
    bank = "networks: [10.0.0.0/8]"
    first, second = CLUSTER % ("v1beta1", "a", "Deny", bank), CLUSTER % ("v1", "b", "Deny", bank)
    done = run(tmp_path, first + second + CLUSTER % ("v1alpha2", "c", "Accept", bank))
    assert "shop/web[Pod] => 10." not in done.stdout
    unread, tie = done.stderr.splitlines()
    assert "ClusterNetworkPolicy/b: apiVersion: is not read here; passed over" in unread
    assert "ClusterNetworkPolicy/a, ClusterNetworkPolicy/c: have one priority" in tie


def test_pods_that_have_finished_and_ports_without_number(tmp_path: Path) -> None:
    job = WEB.replace(
        "labels:", "ownerReferences: [{kind: Job, name: once, controller: true}], labels:"
    )
    finished = job.replace("{name: http, containerPort: 8080}", "{name: http}")
    (tmp_path / "all.yaml").write_text(finished.replace("---", "status: {phase: Succeeded}"))
    done = CliRunner().invoke(app, ["connectivity", "--dir", str(tmp_path)])
    assert done.stderr == ""
    assert done.stdout.endswith(
        "\nshop/once[Job] => 0.0.0.0-255.255.255.255[External] : All Connections\n"
    )


@pytest.mark.parametrize(
    ("manifests", "told"),
    [
        (2 * "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n", "one manifest of"),
        (
            POLICY % "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: http}]}]",
            "egress[0]: expected ports of an ipBlock by number",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, manifests: str, told: str) -> None:
    done = run(tmp_path, manifests)
    assert isinstance(done.exception, PolicyError)
    assert told in str(done.exception)


def test_a_refusal_does_not_reach_the_terminal_as_others_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = POLICY.replace("name: p", 'name: "\\e]0;a"') % "ingress: [{from: [{}]}]"
    (tmp_path / "all.yaml").write_text(hostile)
    arguments = ["ringfence", "netpol", "connectivity", "--dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert stop.value.code == FAILED
    assert "NetworkPolicy/shop/�]0;a: spec.ingress[0].from[0]" in told


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(WEB)
    done = CliRunner().invoke(app, ["connectivity", "--dir", str(tmp_path)])
    assert isinstance(done.exception, InputError)


@pytest.mark.parametrize(
    "asked", [("--focus", "nosuch"), ("--focus", "web", "--focus-peer", "shop/nosuch")]
)
def test_a_workload_that_there_is_not_is_an_error(
    tmp_path: Path,
    asked: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "all.yaml").write_text(WEB)
    argv = ["ringfence", "netpol", "connectivity", "--dir", str(tmp_path), *asked]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == FAILED
    said = f"error: there is no workload {asked[-1]} in {tmp_path}\n"
    assert capsys.readouterr() == ("", said)
