"""Reads NetworkPolicy (networking.k8s.io/v1), with the API server's defaults and refusals."""

from collections.abc import Iterable
from typing import Any

from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import spans, subtract
from ringfence.model.verdict import Stage
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes import fields, schema
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Peer,
    Pods,
    PolicyRule,
    Ports,
)

NETWORK_POLICY = "NetworkPolicy"
DEFAULT_NAMESPACE = "default"
_TYPES = {"Ingress": Direction.INBOUND, "Egress": Direction.OUTBOUND}


def network_policy(manifest: Any) -> KubernetesPolicy:
    """The NetworkPolicy that a manifest states; raises FieldError for what is not sound."""
    given = fields.convert(manifest, schema.NetworkPolicy, "")
    namespace, spec = given.metadata.namespace or DEFAULT_NAMESPACE, given.spec
    rules = [
        _rule(f"ingress[{at}]", Direction.INBOUND, namespace, one.from_, one.ports)
        for at, one in enumerate(spec.ingress or ())
    ]
    rules += [
        _rule(f"egress[{at}]", Direction.OUTBOUND, namespace, one.to, one.ports)
        for at, one in enumerate(spec.egress or ())
    ]
    isolates = _isolates(spec)
    return KubernetesPolicy(
        Stage.NETWORK_POLICY,
        NETWORK_POLICY,
        namespace,
        given.metadata.name,
        Pods(namespace, fields.selector(spec.pod_selector, "spec.podSelector")),
        tuple(rule for rule in rules if rule.direction in isolates),
        isolates=isolates,
    )


def _isolates(spec: schema.NetworkPolicySpec) -> frozenset[Direction]:
    """Without policyTypes: inbound, and outbound if the policy has egress rules."""
    for at, name in enumerate(spec.policy_types or ()):
        if name not in _TYPES:
            raise FieldError(f"spec.policyTypes[{at}]", f"expected Ingress or Egress, not {name!r}")
    if spec.policy_types:
        return frozenset(_TYPES[name] for name in spec.policy_types)
    return frozenset(Direction) if spec.egress else frozenset({Direction.INBOUND})


def _rule(
    name: str,
    direction: Direction,
    namespace: str,
    peers: list[schema.NetworkPolicyPeer] | None,
    ports: list[schema.NetworkPolicyPort] | None,
) -> PolicyRule:
    word = "from" if direction is Direction.INBOUND else "to"
    read = tuple(
        _peer(one, namespace, f"spec.{name}.{word}[{at}]") for at, one in enumerate(peers or ())
    )
    # An empty list of peers or ports restricts as little as an absent one.
    return PolicyRule(
        name, direction, Action.ALLOW, read or None, _ports(ports or (), name) or None
    )


def _peer(given: schema.NetworkPolicyPeer, namespace: str, path: str) -> Peer:
    pods, namespaces, block = given.pod_selector, given.namespace_selector, given.ip_block
    if block is None:
        if pods is None and namespaces is None:
            raise FieldError(path, "expected podSelector, namespaceSelector or ipBlock")
        of_pods = fields.selector(pods, f"{path}.podSelector") if pods else ()
        if namespaces is None:
            return Pods(namespace, of_pods)
        return Pods(fields.selector(namespaces, f"{path}.namespaceSelector"), of_pods)
    if pods is not None or namespaces is not None:
        raise FieldError(path, "expected no selectors beside ipBlock")
    whole = fields.network(block.cidr, f"{path}.ipBlock.cidr")
    holes = []
    for at, text in enumerate(block.except_ or ()):
        here = f"{path}.ipBlock.except[{at}]"
        hole = fields.network(text, here)
        if hole == whole or subtract(spans([hole]), spans([whole])):
            raise FieldError(here, f"expected a block within {whole}, smaller than it, not {hole}")
        holes.append(hole)
    return Networks((whole,), tuple(holes))


def _ports(given: Iterable[schema.NetworkPolicyPort], rule: str) -> tuple[Ports | NamedPort, ...]:
    found: list[Ports | NamedPort] = []
    for at, one in enumerate(given):
        path = f"spec.{rule}.ports[{at}]"
        protocol = fields.protocol(one.protocol, f"{path}.protocol")
        if one.end_port is not None and not isinstance(one.port, int):
            raise FieldError(f"{path}.endPort", "expected a number in `port` beside it")
        if isinstance(one.port, str):
            found.append(NamedPort(protocol, fields.port_name(one.port, f"{path}.port")))
        else:
            found.append(Ports(protocol, _range(one.port, one.end_port, f"{path}.port")))
    return tuple(found)


def _range(first: int | None, last: int | None, path: str) -> tuple[PortRange, ...]:
    return () if first is None else (fields.ports(first, last or first, path),)
