"""Explanations of what a folder permits: what the corpus of others has no case of."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ringfence.cli.netpol import app

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}, {containerPort: 9090}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, ports: [{containerPort: 5432}]}]}
---
"""
NAMED_PORT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-http, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]
"""
UNNAMED_RULE = """
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: "a\\nb"}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]
"""
PUBLISHED = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: a, port: 80, targetPort: http}, {port: 9090}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front, namespace: shop}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8080}, {port: 9090}]}]}
"""


def explain(folder: Path, manifests: str, *options: str) -> str:
    (folder / "all.yaml").write_text(PODS + manifests)
    done = CliRunner().invoke(app, ["connectivity", "--dir", str(folder), "--explain", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_port_name_that_the_destination_lacks(tmp_path: Path) -> None:
    told = explain(tmp_path, NAMED_PORT, "--focus", "db", "--explain-only", "deny")
    assert (
        "NetworkPolicy 'shop/to-http' selects shop/db[Pod], and Ingress rule #1 selects "
        "shop/web[Pod], but named ports of the rule have no match in the configuration of the "
        "destination peer\n"
    ) in told
    assert "db[Pod] => shop/web[Pod]:\n\nDenied connections:\n\tDenied TCP:[1-8079" in told
    assert "Allowed connections" not in told


def test_a_rule_without_a_name_and_hostile_names(tmp_path: Path) -> None:
    told = explain(tmp_path, UNNAMED_RULE)
    assert "ClusterNetworkPolicy 'a�b' denies connections by Egress rule #1\n" in told


def test_what_is_published_has_to_be_allowed_too(tmp_path: Path) -> None:
    told = explain(tmp_path, PUBLISHED, "--focus", "ingress-controller", "-o", "json")
    (pair,) = json.loads(told)
    allowed = [one["conn"] for one in pair["connections"] if one["allowed"]]
    assert (pair["src"], pair["dst"], allowed) == (
        "{ingress-controller}",
        "shop/web[Pod]",
        ["TCP:[8080]"],
    )
    by_port = {one["conn"]: one["ingress"]["reasons"] for one in pair["connections"]}
    assert [one["effect"] for one in by_port["TCP:[8080]"]] == ["allows", "publishes"]
    assert [one["effect"] for one in by_port["TCP:[9090]"]] == ["allows", "publishes_other_ports"]


def test_reasons_are_told_kind_by_kind(tmp_path: Path) -> None:
    told = explain(tmp_path, PUBLISHED, "--focus", "ingress-controller", "--explain-only", "allow")
    ingress = told.partition("Ingress (Allowed)\n")[2].strip().splitlines()
    assert [line.split()[0] for line in ingress] == ["Ingress", "NetworkPolicy"]


def test_who_is_published_and_not_reached_at_all(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(
        PODS + PUBLISHED.replace("ingress: [{ports", "egress: [{ports")
    )
    done = CliRunner().invoke(app, ["connectivity", "--dir", str(tmp_path), "--explain"])
    assert "ingress-controller" not in done.stdout
    assert "warning: shop/web[Pod]: is published, and policies deny connections" in done.stderr


def test_one_connection_in_focus(tmp_path: Path) -> None:
    told = explain(tmp_path, PUBLISHED, "--focus", "db", "--focus-connection", "tcp-80")
    assert "Allowed TCP:[80] due to the system default (Allow all)\n" in told
    assert "\tDenied TCP:[80] due to the following policies and rules:\n" in told
    assert "8080" not in told


@pytest.mark.parametrize("what", ["->", "style=dashed", "denies connections by Egress rule #1\\l"])
def test_a_drawing(tmp_path: Path, what: str) -> None:
    assert what in explain(tmp_path, UNNAMED_RULE, "-o", "dot")
