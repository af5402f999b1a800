"""From the rules of workloads to what each node enforces.

Pure, and independent of the order of its inputs: equal policies over equal inventories give
equal bytes. `ringfence.policy.compiler` keeps it up to date as an inventory changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.inventory.living import Living
from ringfence.model.address import Address
from ringfence.model.ids import RevisionId
from ringfence.policy.compiler import Compiler
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.nodes import NodeKey, Surroundings
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy
from ringfence.policy.translate import Widening


@dataclass(frozen=True, slots=True)
class Compiled:
    """What every node enforces, and where that is wider than the policies say."""

    policies: dict[NodeKey, NodePolicy]
    widenings: tuple[Widening, ...]
    surroundings: Surroundings = Surroundings()  # noqa: RUF009 - frozen


def compile_policies(
    policy_set: PolicySet,
    control_plane: Iterable[tuple[Address, int]],
    access: NodeAccess = NodeAccess(),  # noqa: B008 - frozen
    kubernetes: Iterable[KubernetesLayer] = (),
) -> Compiled:
    """Compile for every node and host of the inventory, governed or not.

    `control_plane` is where agents reach it, (address, TCP port); `kubernetes` the layers of the
    same inventory that pods must satisfy besides.
    """
    surroundings = Surroundings(tuple(control_plane), access)
    compiler = compiler_of(policy_set, surroundings, kubernetes)
    return Compiled(compiler.nodes.policies, tuple(compiler.widenings), surroundings)


def compiler_of(
    policy_set: PolicySet,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - frozen
    kubernetes: Iterable[KubernetesLayer] = (),
) -> Compiler:
    """A compiler that has compiled a policy set."""
    snapshot = policy_set.snapshot
    revisions = map(RevisionId, snapshot.revisions.tolist())
    living = Living(zip(revisions, snapshot.items, strict=True))
    return Compiler(
        living,
        policy_set.tree,
        policy_set.enforced,
        policy_set.moment,
        policy_set.quarantines,
        surroundings,
        tuple(kubernetes),
    )
