"""From the enforced set to what each node's agent is sent."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ringfence.control.agents import NodeKey
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.gate import Gates
from ringfence.policy.handle import format_handle
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.order import PolicySet
from ringfence.policy.program import encode
from ringfence.policy.translate import Widening


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What directives depend on besides inventory and policy.

    `control_plane` is where agents reach the control plane, (address, TCP port).
    """

    control_plane: tuple[tuple[Address, int], ...]
    access: NodeAccess

    def compile(
        self, policy_set: PolicySet, kubernetes: Iterable[KubernetesLayer] = ()
    ) -> Compiled:
        """What every node enforces."""
        return compile_policies(policy_set, self.control_plane, self.access, kubernetes)


@dataclass(frozen=True, slots=True)
class Compilation:
    """Encoded node policies, and what a person should know of how they came about."""

    nodes: Mapping[NodeKey, bytes]
    warnings: tuple[str, ...]


def compile_nodes(
    policy_set: PolicySet,
    surroundings: Surroundings,
    kubernetes: Iterable[KubernetesLayer] = (),
) -> Compilation:
    """The policy of every node in the inventory; the same for the same inputs."""
    compiled = surroundings.compile(policy_set, kubernetes)
    nodes = {node: encode(policy) for node, policy in compiled.policies.items()}
    notes = (
        *_unknown(policy_set),
        *_expired(policy_set),
        *_ungated(policy_set),
        *_guarded(compiled),
        *_tell(policy_set.snapshot, compiled.widenings),
    )
    return Compilation(nodes, notes)


def _unknown(policy_set: PolicySet) -> Iterator[str]:
    """One line for each end of a policy of which the inventory knows nothing."""
    for rule in policy_set.rules:
        for role, end in (("consumer", rule.consumer), ("provider", rule.provider)):
            if end.unknown:
                who = "everybody" if end.anyone else "nobody"
                handle = format_handle(rule.decision)
                what = f"{role}'s {end.part}" if end.part else role
                yield f"{handle}: nothing is known of its {what}, which stands for {who}"


def _expired(policy_set: PolicySet) -> Iterator[str]:
    """One line for each policy that counts no more."""
    for workspace, version in policy_set.enforced:
        for policy in workspace.policies:
            if policy.is_expired(policy_set.moment.at_ns):
                yield f"{workspace.name}/{policy.id}@p{version}: expired, and counts no more"


def _ungated(policy_set: PolicySet) -> Iterator[str]:
    """One line for each node whose new pods cannot be told from others, and each wide scope."""
    gates = Gates(policy_set)
    for scope in gates.everywhere:
        yield (
            f"newPods: closed of scope {scope} holds back every new pod until the control plane"
            " knows it: name the scope's namespaces in its query to spare all others"
        )
    for item in policy_set.snapshot.items:
        if gates.wanted(item) and not item.pod_networks:
            yield (
                f"newPods: closed does not hold on node {item.name}: its Node object has no"
                " podCIDRs, by which packets of its pods are known"
            )


def _guarded(compiled: Compiled) -> Iterator[str]:
    """One line for each node with pods that may change their own rules."""
    for (_, node), policy in sorted(compiled.policies.items()):
        if names := [f"{pod.namespace}/{pod.name}" for pod in policy.pods if pod.guarded]:
            yield (
                f"NET_ADMIN: node {node} judges too what it routes for pods that may undo the rules"
                f" in their own namespaces (at {', '.join(names)})"
            )


def _tell(snapshot: Snapshot, widenings: tuple[Widening, ...]) -> tuple[str, ...]:
    """One line for each rule that admits more than its policy says, with the workloads it is at."""
    places: dict[tuple[str, str], set[str]] = {}
    for one in widenings:
        name = snapshot.items[snapshot.position(one.workload)].display
        places.setdefault((format_handle(one.decision), one.text), set()).add(name)
    return tuple(
        f"{handle}: {text} (at {', '.join(sorted(names))})"
        for (handle, text), names in sorted(places.items())
    )
