"""Names of ports at which a workload may talk to pods that are not there to say their numbers."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Stage
from ringfence.policy.kubernetes.policies import KubernetesPolicy, NamedPort, PolicyRule, Ports
from ringfence.policy.kubernetes.rules import KubernetesLayer


class PortName(NamedTuple):
    """A container port's name; `protocol` is None where a policy leaves that open too."""

    protocol: int | None
    name: str


_Speaks = Callable[[PolicyRule], bool]


def outbound_names(policies: Iterable[KubernetesPolicy]) -> frozenset[PortName]:
    """All names that rules speak of towards others."""
    return frozenset(
        PortName(port.protocol, port.name)
        for policy in policies
        for rule in policy.rules
        for port in rule.ports or ()
        if rule.direction is Direction.OUTBOUND and isinstance(port, NamedPort)
    )


def allowed_names(
    layer: KubernetesLayer, at: int, names_peer: _Speaks, names: Iterable[PortName]
) -> list[PortName]:
    """Those of the names that rules allow the pod at that position, to a peer that they name."""
    stages = [
        (stage, [one for one in layer.tiers[stage] if at in layer.cluster.select(one.subject)])
        for stage in (Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE)
    ]
    return [one for one in names if _allows(stages, one, names_peer)]


def _allows(
    stages: Iterable[tuple[Stage, list[KubernetesPolicy]]], name: PortName, names_peer: _Speaks
) -> bool:
    for stage, policies in stages:
        rules = [
            rule
            for policy in policies
            for rule in policy.rules
            if rule.direction is Direction.OUTBOUND and names_peer(rule) and _speaks(rule, name)
        ]
        counting = rules if stage is Stage.NETWORK_POLICY else rules[:1]
        if counting and counting[0].action is not Action.PASS:
            return counting[0].action is Action.ALLOW and any(_says(one, name) for one in counting)
        if stage is Stage.NETWORK_POLICY and any(
            Direction.OUTBOUND in policy.isolates for policy in policies
        ):
            return False
    return False


def _speaks(rule: PolicyRule, name: PortName) -> bool:
    """Whether the rule is of a port of that name, whatever its number."""
    every = rule.ports is None or any(
        isinstance(one, Ports) and one.protocol == name.protocol and not one.ranges
        for one in rule.ports
    )
    return every or _says(rule, name)


def _says(rule: PolicyRule, name: PortName) -> bool:
    return any(
        isinstance(one, NamedPort)
        and one.name == name.name
        and one.protocol in (None, name.protocol)
        for one in rule.ports or ()
    )
