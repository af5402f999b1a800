"""Reads policies that stand above and below NetworkPolicy (policy.networking.k8s.io).

ClusterNetworkPolicy (v1alpha2, v1beta1) and its older forms AdminNetworkPolicy and
BaselineAdminNetworkPolicy (v1alpha1) mean the same: subjects, and rules in order.
"""

from typing import Any

from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Stage
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes import fields, schema
from ringfence.policy.kubernetes.fields import exactly_one
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Nodes,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    UnknownPeer,
)

CLUSTER_NETWORK_POLICY = "ClusterNetworkPolicy"
ADMIN_NETWORK_POLICY = "AdminNetworkPolicy"
BASELINE_ADMIN_NETWORK_POLICY = "BaselineAdminNetworkPolicy"
_ONLY_BASELINE = "default"
_TIERS = {"Admin": Stage.ADMIN, "Baseline": Stage.BASELINE}
MAX_PRIORITY = 1000
_MAX_ITEMS = 100
"""Of rules, peers and ports; v1alpha2 has 25."""
_ALLOW = {CLUSTER_NETWORK_POLICY: "Accept"}


def cluster_policy(kind: str, manifest: Any) -> KubernetesPolicy:
    """The policy that a manifest of that kind states; raises FieldError for what is not sound."""
    given = fields.convert(manifest, schema.TieredPolicy, "")
    name, spec = given.metadata.name, given.spec
    if kind == BASELINE_ADMIN_NETWORK_POLICY and name != _ONLY_BASELINE:
        raise FieldError("metadata.name", f"expected {_ONLY_BASELINE!r}, the only one there may be")
    rules = []
    for word, direction, listed in (
        ("ingress", Direction.INBOUND, spec.ingress),
        ("egress", Direction.OUTBOUND, spec.egress),
    ):
        _bound(listed, f"spec.{word}", least=0)
        rules += [
            _rule(kind, f"{word}[{at}]", direction, one) for at, one in enumerate(listed or ())
        ]
    exactly_one([spec.subject.namespaces, spec.subject.pods], "namespaces, pods", "spec.subject")
    subject = spec.subject.pods or schema.NamespacedPods(spec.subject.namespaces or _EVERYTHING)
    return KubernetesPolicy(
        _stage(kind, spec),
        kind,
        "",
        name,
        _pods(subject, "spec.subject.pods" if spec.subject.pods else "spec.subject"),
        tuple(rules),
        priority=_priority(kind, spec),
    )


_EVERYTHING = schema.LabelSelector()


def _stage(kind: str, spec: schema.TieredSpec) -> Stage:
    if kind != CLUSTER_NETWORK_POLICY:
        return Stage.ADMIN if kind == ADMIN_NETWORK_POLICY else Stage.BASELINE
    if spec.tier not in _TIERS:
        raise FieldError("spec.tier", f"expected one of {', '.join(_TIERS)}")
    return _TIERS[spec.tier]


def _priority(kind: str, spec: schema.TieredSpec) -> int:
    if kind == BASELINE_ADMIN_NETWORK_POLICY:
        return 0
    if spec.priority is None or not 0 <= spec.priority <= MAX_PRIORITY:
        raise FieldError("spec.priority", f"expected a number from 0 to {MAX_PRIORITY}")
    return spec.priority


def _rule(kind: str, name: str, direction: Direction, given: schema.TieredRule) -> PolicyRule:
    actions = {_ALLOW.get(kind, "Allow"): Action.ALLOW, "Deny": Action.DENY}
    if kind != BASELINE_ADMIN_NETWORK_POLICY:
        actions["Pass"] = Action.PASS
    path = f"spec.{name}"
    if given.action not in actions:
        raise FieldError(f"{path}.action", f"expected one of {', '.join(actions)}")
    action = actions[given.action]
    inbound = direction is Direction.INBOUND
    word, listed = ("from", given.from_) if inbound else ("to", given.to)
    _bound(listed, f"{path}.{word}")
    peers = tuple(
        _peer(one, f"{path}.{word}[{at}]", action, inbound=inbound)
        for at, one in enumerate(listed or ())
    )
    ports: tuple[Ports | NamedPort, ...] | None
    if kind == CLUSTER_NETWORK_POLICY:
        _bound(given.protocols, f"{path}.protocols", least=0 if given.protocols is None else 1)
        ports = tuple(
            _protocol(one, f"{path}.protocols[{at}]")
            for at, one in enumerate(given.protocols or ())
        )
    else:
        _bound(given.ports, f"{path}.ports", least=0)
        ports = tuple(_port(one, f"{path}.ports[{at}]") for at, one in enumerate(given.ports or ()))
    return PolicyRule(name, direction, action, peers, ports or None, given.name)


def _bound(listed: list[Any] | None, path: str, least: int = 1) -> None:
    if not least <= len(listed or ()) <= _MAX_ITEMS:
        raise FieldError(path, f"expected a list of {least} to {_MAX_ITEMS} items")


def _peer(given: dict[str, Any], path: str, action: Action, *, inbound: bool) -> Peer:
    if len(given) != 1:
        raise FieldError(path, "expected exactly one kind of peer")
    (kind, value) = next(iter(given.items()))
    here = f"{path}.{kind}"
    match kind:
        case "namespaces":
            selected = fields.convert(value, schema.LabelSelector, here)
            return Pods(fields.selector(selected, here))
        case "pods":
            return _pods(fields.convert(value, schema.NamespacedPods, here), here)
        case "nodes" if not inbound:
            return Nodes(fields.selector(fields.convert(value, schema.LabelSelector, here), here))
        case "networks" if not inbound:
            blocks = fields.convert(value, list[str], here)
            _bound(blocks, here)
            return Networks(
                tuple(fields.network(text, f"{here}[{at}]") for at, text in enumerate(blocks))
            )
        case "domainNames" if not inbound:
            _bound(fields.convert(value, list[str], here), here)
            if action is not Action.ALLOW:
                raise FieldError(here, "expected no domain names in a rule that does not allow")
    return UnknownPeer()


def _pods(given: schema.NamespacedPods, path: str) -> Pods:
    return Pods(
        fields.selector(given.namespace_selector, f"{path}.namespaceSelector"),
        fields.selector(given.pod_selector, f"{path}.podSelector"),
    )


def _port(given: schema.AdminPort, path: str) -> Ports | NamedPort:
    number, span, name = given.port_number, given.port_range, given.named_port
    exactly_one([number, span, name], "portNumber, portRange, namedPort", path)
    if number is not None:
        here = f"{path}.portNumber"
        protocol = fields.protocol(number.protocol, f"{here}.protocol")
        return Ports(protocol, (fields.ports(number.port, number.port, here),))
    if span is not None:
        here = f"{path}.portRange"
        protocol = fields.protocol(span.protocol, f"{here}.protocol")
        return Ports(protocol, (fields.ports(span.start, span.end, here),))
    return NamedPort(None, fields.port_name(name or "", f"{path}.namedPort"))


def _protocol(given: schema.ClusterProtocol, path: str) -> Ports | NamedPort:
    transports = {"TCP": given.tcp, "UDP": given.udp, "SCTP": given.sctp}
    name = given.destination_named_port
    exactly_one([*transports.values(), name], "tcp, udp, sctp, destinationNamedPort", path)
    if name is not None:
        return NamedPort(None, fields.port_name(name, f"{path}.destinationNamedPort"))
    word, transport = next((word, one) for word, one in transports.items() if one is not None)
    protocol, port = fields.PROTOCOLS[word], transport.destination_port
    if port is None:
        return Ports(protocol)
    here = f"{path}.{word.lower()}.destinationPort"
    exactly_one([port.number, port.range], "number, range", here)
    first, last = (port.range.start, port.range.end) if port.range else (port.number or 0,) * 2
    return Ports(protocol, (fields.ports(first, last, here),))
