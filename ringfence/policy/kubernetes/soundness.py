"""What no folder of manifests may hold if its connectivity is to be told.

Each policy is sound by itself; these are refused for what they say of the folder's pods, or beside
each other.
"""

from collections.abc import Iterable, Mapping, Sequence

from pyroaring import BitMap

from ringfence.model.policy import Direction
from ringfence.model.verdict import Stage
from ringfence.policy.errors import PolicyError
from ringfence.policy.kubernetes.cluster import Cluster, Pod
from ringfence.policy.kubernetes.cluster_policy import ADMIN_NETWORK_POLICY
from ringfence.policy.kubernetes.policies import KubernetesPolicy, NamedPort, Networks, Pods
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.topology import Workload


def refuse_ties(layer: KubernetesLayer) -> None:
    """An AdminNetworkPolicy may not share its priority with another policy of its tier."""
    for names in layer.ties:
        if any(one.startswith(f"{ADMIN_NETWORK_POLICY}/") for one in names):
            raise PolicyError(f"{', '.join(names)}: expected a priority of its own for each")


def refuse_names_outside(policies: Iterable[KubernetesPolicy]) -> None:
    """A NetworkPolicy that names a port of addresses, where no pod says its number, is mistaken."""
    for policy in policies:
        for rule in policy.rules if policy.stage is Stage.NETWORK_POLICY else ():
            outside = any(isinstance(one, Networks) for one in rule.peers or ())
            named = any(isinstance(one, NamedPort) for one in rule.ports or ())
            if rule.direction is Direction.OUTBOUND and outside and named:
                raise PolicyError(
                    f"{policy.display}: {rule.name}: expected ports of an ipBlock by number"
                )


def refuse_gaps(
    cluster: Cluster,
    workloads: Mapping[Workload, Sequence[Pod]],
    policies: Iterable[KubernetesPolicy],
) -> None:
    """One pod cannot stand for a workload of which a selector takes some pods and not others."""
    mixed = {
        workload: BitMap(cluster.position(pod.key) for pod in pods)
        for workload, pods in workloads.items()
        if any(pod.labels != pods[0].labels for pod in pods)
    }
    for policy in policies if mixed else ():
        peers = [peer for rule in policy.rules for peer in rule.peers or ()]
        for selected in [policy.subject, *(peer for peer in peers if isinstance(peer, Pods))]:
            found = cluster.select(selected)
            for workload, pods in mixed.items():
                if found & pods and pods - found:
                    raise PolicyError(
                        f"{policy.display} selects some pods of {workload.display} and not others: "
                        "expected pods of one owner to have the labels that policies ask for alike"
                    )
