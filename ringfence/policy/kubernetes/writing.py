"""Policies of Kubernetes as the objects that its API server reads; the inverse of `manifests`.

Written is what `export` makes: selectors, addresses and numbered ports, no nodes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import Stage
from ringfence.policy.errors import InexpressibleError
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    Requires,
    Selector,
)

_WORDS = ((Direction.INBOUND, "ingress", "from"), (Direction.OUTBOUND, "egress", "to"))
_ACTIONS = {Action.ALLOW: "Accept", Action.DENY: "Deny", Action.PASS: "Pass"}
_TIERS = {Stage.ADMIN: "Admin", Stage.BASELINE: "Baseline"}


def manifest(policy: KubernetesPolicy) -> dict[str, Any]:
    """The object; raises InexpressibleError for what is not written."""
    spec = _network_policy(policy) if policy.stage is Stage.NETWORK_POLICY else _tiered(policy)
    group = "networking.k8s.io/v1"
    metadata = {"name": policy.name}
    if policy.namespace:
        metadata["namespace"] = policy.namespace
    else:
        group = "policy.networking.k8s.io/v1alpha2"
    return {"apiVersion": group, "kind": policy.kind, "metadata": metadata, "spec": spec}


def _network_policy(policy: KubernetesPolicy) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": _selector(policy.subject.pods)}
    spec["policyTypes"] = [
        word.capitalize() for direction, word, _ in _WORDS if direction in policy.isolates
    ]
    for direction, word, peers in _WORDS:
        rules = [
            {
                **({peers: [_peer(one) for one in rule.peers]} if rule.peers else {}),
                **({"ports": list(_ports(rule.ports))} if rule.ports else {}),
            }
            for rule in policy.rules
            if rule.direction is direction
        ]
        spec |= {word: rules} if rules else {}
    return spec


def _peer(peer: Peer) -> dict[str, Any]:
    match peer:
        case Networks((whole,), holes):
            block: dict[str, Any] = {"cidr": str(whole)}
            return {"ipBlock": block | ({"except": list(map(str, holes))} if holes else {})}
        case Pods(namespaces, pods) if not isinstance(namespaces, str):
            selected = {"namespaceSelector": _selector(namespaces)}
            return selected | ({"podSelector": _selector(pods)} if pods else {})
    raise InexpressibleError(f"no peer of a NetworkPolicy is written for {peer}")


def _ports(ports: Iterable[Ports | NamedPort]) -> Iterable[dict[str, Any]]:
    for one in ports:
        if isinstance(one, NamedPort):
            yield {"protocol": format_protocol(one.protocol), "port": one.name}
            continue
        protocol, ranges = _numbered(one)
        yield from (
            {"protocol": protocol, "port": first} | ({"endPort": last} if last > first else {})
            for first, last in ranges
        )
        if not ranges:
            yield {"protocol": protocol}


def _tiered(policy: KubernetesPolicy) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "tier": _TIERS[policy.stage],
        "priority": policy.priority,
        "subject": {"pods": _namespaced(policy.subject)},
    }
    for direction, word, peers in _WORDS:
        rules = [_tiered_rule(one, peers) for one in policy.rules if one.direction is direction]
        spec |= {word: rules} if rules else {}
    return spec


def _tiered_rule(rule: PolicyRule, peers: str) -> dict[str, Any]:
    protocols = [
        {protocol.lower(): {"destinationPort": _destination(first, last)}}
        for one in rule.ports or ()
        for protocol, ranges in [_numbered(one)]
        for first, last in ranges or [(1, 65535)]
    ]
    return {
        **({"name": rule.title} if rule.title else {}),
        "action": _ACTIONS[rule.action],
        peers: [_tiered_peer(one) for one in rule.peers or ()],
        **({"protocols": protocols} if protocols else {}),
    }


def _tiered_peer(peer: Peer) -> dict[str, Any]:
    match peer:
        case Networks(networks, ()):
            return {"networks": list(map(str, networks))}
        case Pods():
            return {"pods": _namespaced(peer)}
    raise InexpressibleError(f"no peer of a ClusterNetworkPolicy is written for {peer}")


def _destination(first: int, last: int) -> dict[str, Any]:
    return {"number": first} if first == last else {"range": {"start": first, "end": last}}


def _namespaced(selected: Pods) -> dict[str, Any]:
    if isinstance(selected.namespaces, str):
        raise InexpressibleError("a ClusterNetworkPolicy selects namespaces by their labels")
    return {
        "namespaceSelector": _selector(selected.namespaces),
        "podSelector": _selector(selected.pods),
    }


def _numbered(ports: Ports | NamedPort) -> tuple[str, Sequence[tuple[int, int]]]:
    if isinstance(ports, NamedPort):
        raise InexpressibleError("a ClusterNetworkPolicy names a port without its protocol")
    return format_protocol(ports.protocol), [(one.first, one.last) for one in ports.ranges]


def _selector(selector: Selector) -> dict[str, Any]:
    """One value is a label, which is how people write it."""
    single = [
        one
        for one in selector
        if one.operator in (Requires.EQUALS, Requires.IN) and len(one.values) == 1
    ]
    rest = [
        {
            "key": one.key,
            "operator": str(one.operator),
            **({"values": list(one.values)} if one.values else {}),
        }
        for one in selector
        if one not in single
    ]
    equal = {one.key: one.values[0] for one in single}
    found: dict[str, Any] = {"matchLabels": equal} if equal else {}
    return found | ({"matchExpressions": rest} if rest else {})
