"""`ringfence export --as`: policies of Kubernetes, or every reason why there are none."""

from pathlib import Path

import yaml
from typer.testing import CliRunner, Result

from ringfence.cli.export import app
from ringfence.policy.errors import InexpressibleError

DOCUMENTS = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {query: kubernetes.namespace = "shop"}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: shop
  catchAll: {inbound: DENY, outbound: ALLOW}
  policies:
    - id: front
      action: ALLOW
      consumer: {cidr: [0.0.0.0/0], except: [10.0.0.0/8]}
      provider: {filter: kubernetes.namespace = "shop" and kubernetes.label.app = "front"}
      protocol: TCP
      ports: [8000-8010]
%s
"""
PROBES = """
    - {id: probes, action: %s, consumer: {filter: kind = "pod"}, provider: {scope: shop},
       protocol: UDP, rank: absolute}
"""


def export(folder: Path, more: str, form: str) -> Result:
    file = folder / "shop.yaml"
    file.write_text(DOCUMENTS % more)
    return CliRunner().invoke(app, ["--as", form, "-f", str(file)])


def test_network_policies(tmp_path: Path) -> None:
    done = export(tmp_path, "", "networkpolicy")
    isolation, front = yaml.safe_load_all(done.stdout)
    assert isolation["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert front["metadata"] == {"name": "shop-front-ingress", "namespace": "shop"}
    assert front["spec"] == {
        "podSelector": {"matchLabels": {"app": "front"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
                "ports": [{"protocol": "TCP", "port": 8000, "endPort": 8010}],
            }
        ],
    }


def test_what_needs_an_order(tmp_path: Path) -> None:
    done = export(tmp_path, PROBES % "DENY", "clusternetworkpolicy")
    written = list(yaml.safe_load_all(done.stdout))
    tiered = [one["spec"] for one in written if one["kind"] == "ClusterNetworkPolicy"]
    assert [one["metadata"]["name"] for one in written if one["kind"] == "NetworkPolicy"] == [
        "shop-ingress",
        "shop-front-ingress",
    ]
    assert [(one["tier"], one["priority"]) for one in tiered] == [("Admin", 0), ("Admin", 1)]
    assert [key for one in tiered for key in one if key in ("ingress", "egress")] == [
        "ingress",
        "egress",
    ]
    (rule,) = tiered[0]["ingress"]
    assert (rule["name"], rule["action"]) == ("probes", "Deny")


def test_a_refusal_names_each_policy(tmp_path: Path) -> None:
    done = export(tmp_path, PROBES % "DENY", "networkpolicy")
    assert isinstance(done.exception, InexpressibleError)
    assert done.stdout == ""
    assert "workspace shop: policy probes: ingress: a NetworkPolicy cannot deny" in done.stderr


def test_a_ports_name_stays_a_name_and_what_only_logs_is_left_out(tmp_path: Path) -> None:
    more = """
    - {id: metrics, action: ALLOW, provider: {scope: shop}, protocol: TCP, ports: [metrics],
       consumer: {filter: kubernetes.namespace = "ops" and kind = "pod"}}
    - {id: seen, action: LOG, consumer: {host: outside}, provider: {scope: shop}, protocol: any}
"""
    done = export(tmp_path, more, "networkpolicy")
    written = {one["metadata"]["name"]: one for one in yaml.safe_load_all(done.stdout)}
    assert sorted(written) == ["shop-front-ingress", "shop-ingress", "shop-metrics-ingress"]
    (rule,) = written["shop-metrics-ingress"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "metrics"}]


def test_what_expires_is_refused(tmp_path: Path) -> None:
    more = """
    - {id: lent, action: ALLOW, consumer: {filter: kind = "pod"}, provider: {scope: shop},
       protocol: TCP, expires: 2999-01-01}
"""
    done = export(tmp_path, more, "networkpolicy")
    assert isinstance(done.exception, InexpressibleError)
    assert done.stdout == ""
    assert "policy lent: ingress: it expires" in done.stderr
