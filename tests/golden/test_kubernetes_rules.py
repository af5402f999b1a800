"""Kubernetes' own policies beside Ringfence's, from intent to programs and to nftables rules."""

from dataclasses import replace
from typing import Any

from ringfence.model.workload import Item, ItemKind
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.manifests import read_policy
from ringfence.policy.kubernetes.policies import KubernetesPolicy
from ringfence.policy.kubernetes.rules import KubernetesLayer
from tests.golden.conftest import Golden
from tests.golden.shop import CLUSTER, ITEMS, policy_set
from tests.golden.test_rules import CONTROL_PLANE, EXAMPLES, describe


def manifest(kind: str, name: str, spec: dict[str, Any]) -> KubernetesPolicy:
    place = {"name": name} | ({"namespace": "sock-shop"} if kind == "NetworkPolicy" else {})
    return read_policy({"kind": kind, "metadata": place, "spec": spec})


def labelled(one: Item) -> Item:
    return replace(one, exact_labels=(("App", one.name),))


PODS = {
    name: {"matchLabels": {"App": name}} for name in ("front-end", "carts", "payment", "user-db")
}
WEB = {"protocol": "TCP", "port": 8081}
OF_KUBERNETES = [
    manifest(
        "NetworkPolicy",
        "front-end",
        {
            "podSelector": PODS["front-end"],
            "policyTypes": ["Egress", "Ingress"],
            "egress": [{"to": [{"podSelector": PODS["carts"]}], "ports": [WEB]}],
            "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}],
        },
    ),
    manifest(
        "NetworkPolicy",
        "carts",
        {
            "podSelector": PODS["carts"],
            "ingress": [{"from": [{"podSelector": PODS["front-end"]}], "ports": [WEB]}],
        },
    ),
    manifest(
        "ClusterNetworkPolicy",
        "not-to-carts",
        {
            "tier": "Admin",
            "priority": 5,
            "subject": {"pods": {"podSelector": PODS["carts"]}},
            "ingress": [
                {"action": "Pass", "from": [{"pods": {"podSelector": PODS["front-end"]}}]},
                {"action": "Deny", "from": [{"namespaces": {}}]},
            ],
        },
    ),
]
"""carts and front-end by Kubernetes' own policies; to others nothing is said."""


def test_kubernetes_policies_beside_ringfences(golden: Golden) -> None:
    """Two programs at carts, each of which must allow, as they stand in the kernel."""
    items = [labelled(one) if one.kind is ItemKind.POD else one for one in ITEMS]
    ours = policy_set(EXAMPLES["pod-to-service"], items=items)
    theirs = KubernetesLayer(LiveCluster(ours.snapshot, CLUSTER), OF_KUBERNETES)
    compiled = compile_policies(ours, CONTROL_PLANE, kubernetes=[theirs])
    golden("kubernetes.txt", describe(compiled))
    (policy,) = (p for p in compiled.policies.values() if p.node == "node2")
    (carts,) = (pod for pod in policy.pods if pod.name == "carts")
    backend = Nftables()
    golden("kubernetes.nft", backend.text(backend.render_pod(policy, carts)))
