"""What upstream refuses is refused, with the place; what it completes is completed."""

import json
from typing import Any

import pytest
import yaml

from ringfence.model.policy import Action, Direction
from ringfence.policy.errors import ManifestError
from ringfence.policy.kubernetes.held import hold
from ringfence.policy.kubernetes.manifests import Manifest, read_policies
from ringfence.policy.kubernetes.policies import KubernetesPolicy, Networks, Pods, UnknownPeer
from ringfence.policy.kubernetes.unread import unread_fields

V1 = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
ADMIN = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n"
BASELINE = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\n"
CLUSTER = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n"


def network_policy(spec: str) -> str:
    return V1 + f"metadata: {{name: p, namespace: shop}}\nspec: {{podSelector: {{}}, {spec}}}"


def admin(rule: str, *, kind: str = ADMIN, name: str = "p", extra: str = "priority: 1") -> str:
    return (
        kind
        + f"metadata: {{name: {name}}}\nspec: {{{extra}, subject: {{namespaces: {{}}}}, {rule}}}"
    )


def cluster(rule: str) -> str:
    return admin(rule, kind=CLUSTER, extra="tier: Admin, priority: 1")


def read(*texts: str) -> tuple[KubernetesPolicy, ...]:
    documents: list[Any] = [yaml.safe_load(text) for text in texts]
    return read_policies(Manifest("f.yaml", at, one) for at, one in enumerate(documents, 1))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (network_policy("policyTypes: [Both]"), "spec.policyTypes[0]"),
        (network_policy("ingress: [{from: [{}]}]"), "spec.ingress[0].from[0]"),
        (
            network_policy("ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]"),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            network_policy("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}]}]"),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            network_policy("ingress: [{from: [{ipBlock: {cidr: 'fe80::%eth0/64'}}]}]"),
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            network_policy(
                "egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]"
            ),
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
        (
            network_policy("ingress: [{from: [{podSelector: {}, ipBlock: {cidr: '::/0'}}]}]"),
            "spec.ingress[0].from[0]",
        ),
        (
            network_policy("ingress: [{ports: [{port: 80, endPort: 79}]}]"),
            "spec.ingress[0].ports[0].port",
        ),
        (
            network_policy("ingress: [{ports: [{port: web, endPort: 79}]}]"),
            "spec.ingress[0].ports[0].endPort",
        ),
        (
            network_policy("ingress: [{ports: [{protocol: ICMP}]}]"),
            "spec.ingress[0].ports[0].protocol",
        ),
        (
            network_policy("ingress: [{from: [{podSelector: {matchLabels: {a: true}}}]}]"),
            "spec.ingress[0].from[0].podSelector.matchLabels[...]",
        ),
        (
            network_policy(
                "ingress: [{from: [{podSelector: {matchExpressions: "
                "[{key: a, operator: Exists, values: [b]}]}}]}]"
            ),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values",
        ),
        (admin("ingress: [{action: Allow}]"), "spec.ingress[0].from"),
        (
            admin("ingress: [{action: Accept, from: [{namespaces: {}}]}]"),
            "spec.ingress[0].action",
        ),
        (
            admin("egress: [{action: Deny, to: [{namespaces: {}, pods: {}}]}]"),
            "spec.egress[0].to[0]",
        ),
        (
            admin(
                "ingress: [{action: Deny, from: [{namespaces: {}}], "
                "ports: [{portRange: {start: 10, end: 1}}]}]"
            ),
            "spec.ingress[0].ports[0].portRange",
        ),
        (admin("ingress: []", extra="priority: 1001"), "spec.priority"),
        (admin("ingress: []", kind=BASELINE), "metadata.name"),
        (admin("ingress: []", kind=CLUSTER), "spec.tier"),
        (
            cluster("egress: [{action: Deny, to: [{domainNames: [example.org]}]}]"),
            "spec.egress[0].to[0].domainNames",
        ),
        (
            cluster("egress: [{action: Deny, to: [{namespaces: {}}], protocols: []}]"),
            "spec.egress[0].protocols",
        ),
        (V1 + "metadata: {}", "metadata"),
        (
            network_policy("ingress: [{from: [{podSelector: {matchLabels: {app: }}}]}]"),
            "spec.ingress[0].from[0].podSelector.matchLabels[...]",
        ),
    ],
)
def test_what_is_not_sound_is_refused_with_its_place(text: str, field: str) -> None:
    with pytest.raises(ManifestError) as refused:
        read(text)
    message = str(refused.value)
    assert message.startswith("f.yaml: document 1: ")
    assert f": {field}: " in message


def test_a_second_policy_of_one_name_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"document 2: .* not a second"):
        read(network_policy(""), network_policy("ingress: []"))


def test_defaults() -> None:
    (closed,) = read(network_policy("policyTypes: null"))
    assert closed.isolates == {Direction.INBOUND}
    assert not closed.rules
    (both,) = read(network_policy("egress: [{}]"))
    assert both.isolates == {*Direction}
    assert (both.rules[0].peers, both.rules[0].ports) == (None, None)
    # Rules of a direction that the policy does not speak of are not there.
    (one,) = read(network_policy("policyTypes: [Ingress], ingress: [{}], egress: [{}]"))
    assert [rule.direction for rule in one.rules] == [Direction.INBOUND]


def test_peers() -> None:
    (policy,) = read(
        network_policy(
            "ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}, "
            "{ipBlock: {cidr: 010.1.2.3/8}}]}]"
        )
    )
    own, everywhere, block = policy.rules[0].peers or ()
    assert (own, everywhere) == (Pods("shop"), Pods(()))
    assert isinstance(block, Networks)
    assert [str(one) for one in block.networks] == ["10.0.0.0/8"]
    (later,) = read(cluster("ingress: [{action: Accept, from: [{ofALaterVersion: {}}]}]"))
    assert later.rules[0].peers == (UnknownPeer(),)


def test_fields_that_nobody_reads_are_told() -> None:
    selects = {"podSelector": {"matchLabel": {"a": "b"}, "matchExpressions": None}}
    spec = {**selects, "polcyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cdir": ""}}]}]}
    given = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"x": 1}}
    assert [*unread_fields({**given, "spec": spec, "Spec": {}})] == [
        "Spec",
        "spec.podSelector.matchLabel",
        "spec.polcyTypes",
        "spec.egress[0].to[0].ipBlock.cdir",
    ]
    tiered = {
        "kind": "ClusterNetworkPolicy",
        "spec": {"teir": "Admin", "egress": [{"to": [{"x": 1}]}]},
    }
    assert [*unread_fields(tiered)] == ["spec.teir"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (
            cluster(
                "ingress: [{action: Accept, from: [{namespaces: {}}], "
                "protocols: [{tcp: {sourcePort: {number: 1}}}]}]"
            ),
            "spec.ingress[0].protocols[0].tcp.sourcePort",
        ),
        (
            admin(
                "ingress: [{action: Allow, from: [{namespaces: {}}], "
                "protocols: [{tcp: {destinationPort: {number: 1}}}]}]"
            ),
            "spec.ingress[0].protocols",
        ),
        (network_policy("ingress: [{only: later}]"), "spec.ingress[0].only"),
    ],
)
def test_a_clusters_policy_with_a_field_that_nobody_reads_allows_nothing(
    text: str, field: str
) -> None:
    (held,) = hold([json.dumps(yaml.safe_load(text))])
    assert held.problem.startswith(f"{field}: ")
    assert all(rule.action is Action.DENY for rule in held.policy.rules)
