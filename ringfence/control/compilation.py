"""From the enforced set to what each node's agent is sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from ringfence.control.agents import NodeKey
from ringfence.control.fail_safes import fail_safes, with_fail_safes
from ringfence.model.address import Address, Network
from ringfence.policy.compile import compile as compile_rules
from ringfence.policy.order import PolicySet
from ringfence.policy.program import encode


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What directives depend on besides inventory and policy.

    `control_plane` is where agents reach the control plane, (address, TCP port).
    """

    control_plane: tuple[tuple[Address, int], ...]
    ssh_networks: tuple[Network, ...]
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class Compilation:
    """Encoded node policies, and what a person should know of how they came about."""

    nodes: Mapping[NodeKey, bytes]
    warnings: tuple[str, ...]


def compile_nodes(policy_set: PolicySet, surroundings: Surroundings) -> Compilation:
    """The policy of every node in the inventory; the same for the same inputs."""
    compiled = compile_rules(policy_set, surroundings.control_plane)
    snapshot, ssh_networks = policy_set.snapshot, surroundings.ssh_networks
    clusters = {policy.kubernetes_cluster for policy in compiled.nodes}
    stated = {cluster: fail_safes(snapshot, cluster, ssh_networks) for cluster in clusters}
    return Compilation(
        {
            (policy.kubernetes_cluster, policy.node): encode(
                with_fail_safes(policy, stated[policy.kubernetes_cluster])
            )
            for policy in compiled.nodes
        },
        compiled.warnings,
    )
