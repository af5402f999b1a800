"""The two ways to lay scopes over a Kubernetes cluster.

*Single*: one scope holds the whole Kubernetes cluster. *Split*: under it, one scope for the nodes
and one for each application's namespace, so that each application's policies have an owner.
"""

from collections.abc import Sequence

from ringfence.model import labels
from ringfence.model.ids import ClusterId, ScopeName
from ringfence.model.query import Compare, Operator
from ringfence.model.scope import Scope
from ringfence.model.workload import ItemKind

NODES = ScopeName("nodes")


def single(cluster: ClusterId) -> tuple[Scope, ...]:
    """One scope, named for the Kubernetes cluster, with all of it."""
    return (Scope(ScopeName(cluster), None, _equals(labels.CLUSTER, cluster)),)


def split(cluster: ClusterId, namespaces: Sequence[str]) -> tuple[Scope, ...]:
    """The cluster's scope, and under it `nodes` and the namespaces, each named for itself.

    The nodes' scope comes first among the siblings, then the namespaces in the order given.
    """
    parent = ScopeName(cluster)
    applications = (
        Scope(ScopeName(namespace), parent, _equals(labels.NAMESPACE, namespace), order)
        for order, namespace in enumerate(namespaces, start=1)
    )
    nodes = Scope(NODES, parent, _equals(labels.KIND, ItemKind.NODE))
    return (*single(cluster), nodes, *applications)


def _equals(key: str, value: str) -> Compare:
    return Compare(key, Operator.EQ, (str(value),))
