"""What the ends of a policy stand for in one inventory.

A policy names its ends in words (a filter, a Service, a CIDR); judging and translating need
positions and addresses. Both take them from here, so they cannot differ on who is meant.

A host-network pod is its node: it never stands for itself, so a filter that matches only such
pods matches nothing. A Service that the inventory lacks matches nothing in an ALLOW and everyone in
a DENY. A name without an address at the time matches nothing in both: names come and go with the
questions that are asked, and a DENY by name keeps nobody from the addresses behind it anyway. So
does an address set that never held anything: a list that nobody could fetch is not everybody.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.outside import NO_HOSTS
from ringfence.inventory.resolutions import Names
from ringfence.inventory.snapshot import NOWHERE, Snapshot, View
from ringfence.model.address import Network, host_network
from ringfence.model.errors import InputError
from ringfence.model.fqdn import fqdn_matches
from ringfence.model.ids import ClusterId, ScopeName
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.query import And, Query
from ringfence.model.ranges import AddressRange, blocks, spans, subtract
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import ItemKind
from ringfence.policy.moment import Moment

OUTSIDE, NAMES = "addresses of all items", "addresses of names of DNS"
"""Facts that ends depend on, besides queries and Services; that of an address set is its name."""
WorkloadsEnd = ScopeEnd | ClusterEnd | FilterEnd | NamedFilterEnd
"""Ends that are a query."""
API_SERVICE = ServiceEnd("default", "kubernetes")
"""Whose endpoints are the API servers of a Kubernetes cluster, each of which enters itself."""
DNS_SERVICE = ServiceEnd("kube-system", "kube-dns")
"""What every installer calls the cluster's DNS (kubernetes.io, "Customizing DNS Service")."""


@dataclass(frozen=True)
class ResolvedEnd:
    """Who an end is: the union of its fields. All empty is nobody, never everybody."""

    items: BitMap = field(default_factory=BitMap)
    """Positions of workloads, host-network pods not among them."""
    ranges: tuple[AddressRange, ...] = ()
    """Disjoint and sorted."""
    services: BitMap = field(default_factory=BitMap)
    """Positions of Services."""
    same_cluster: bool = False
    """Of the Services, only those in the other end's Kubernetes cluster are meant; where the
    other end is in none, all are."""
    own_node: bool = False
    """The node that runs the other end's pod."""
    anyone: bool = False
    """Every address."""
    unknown: bool = False
    """The inventory knows nothing by that name; `anyone` says which way that went."""
    part: str = ""
    """What tells it from the other parts of an end that is resolved in several."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The ranges as the fewest CIDR blocks, sorted."""
        return tuple(block for span in self.ranges for block in blocks(span))


ANYONE = ResolvedEnd(anyone=True)


def members(tree: ScopeTree, snapshot: View, scope: ScopeName) -> BitMap:
    """The positions of the workloads that an enforced workspace of the scope governs."""
    return snapshot.chosen(tree.full_query(scope))


def resolve(
    end: End,
    action: Action,
    workspace: Workspace,
    tree: ScopeTree,
    snapshot: View,
    moment: Moment,
) -> ResolvedEnd:
    """Who `end` of a policy with `action` in `workspace` is.

    Raises InputError where it names a scope, a cluster, a filter or an address set that is none.
    """
    match end:
        case ScopeEnd() | ClusterEnd() | FilterEnd() | NamedFilterEnd():
            return ResolvedEnd(items=snapshot.chosen(query_of(end, workspace, tree)))
        case ServiceEnd(kubernetes_cluster=where) | ApiServerEnd(kubernetes_cluster=where):
            named = end if isinstance(end, ServiceEnd) else API_SERVICE
            services = _services(snapshot, replace(named, kubernetes_cluster=where))
            if not services:
                return ResolvedEnd(anyone=action is Action.DENY, unknown=True)
            return ResolvedEnd(services=services, same_cluster=not where)
        case CidrEnd():
            return ResolvedEnd(ranges=end.ranges)
        case OutsideEnd():
            return ResolvedEnd(ranges=_outside(snapshot))
        case AddressSetEnd(set_name):
            snapshot.note(set_name)
            held = moment.held_by(set_name)
            return ResolvedEnd(ranges=held, unknown=not held)
        case FqdnEnd(pattern):
            snapshot.note(NAMES)
            found = _answered(pattern, moment.names, snapshot)
            return ResolvedEnd(ranges=found, unknown=not found)
        case OwnNodeEnd():
            return ResolvedEnd(own_node=True)


def query_of(end: WorkloadsEnd, workspace: Workspace, tree: ScopeTree) -> Query:
    """What the workloads of an end satisfy; raises InputError as `resolve` does."""
    match end:
        case ScopeEnd(scope):
            return tree.full_query(scope)
        case ClusterEnd(name):
            return And((tree.full_query(workspace.scope), cluster_query(workspace, name)))
        case FilterEnd(query):
            return query
        case NamedFilterEnd(filter_name):
            return tree.filter_query(filter_name)


def own_nodes(snapshot: Snapshot) -> NDArray[np.int32]:
    """For each position that of the node that runs it, NOWHERE for all but pods.

    One element longer than the items: the last, which index NOWHERE finds, is NOWHERE.
    """
    nodes: dict[tuple[ClusterId, str], int] = {
        (item.cluster, item.name): position
        for position, item in enumerate(snapshot.items)
        if item.kind is ItemKind.NODE
    }
    running = (
        nodes.get((item.cluster, item.node), NOWHERE) if item.kind is ItemKind.POD else NOWHERE
        for item in snapshot.items
    )
    return np.array([*running, NOWHERE], dtype=np.int32)


def _answered(pattern: str, names: Names, snapshot: View) -> tuple[AddressRange, ...]:
    """The hosts outside among the addresses of the names that a pattern means."""
    meant = (addresses for name, addresses in names.items() if fqdn_matches(pattern, name))
    told = {address for addresses in meant for address in addresses}
    free = spans(host_network(one) for one in told if not snapshot.is_held(one))
    return subtract(free, spans(NO_HOSTS))


def _outside(snapshot: View) -> tuple[AddressRange, ...]:
    snapshot.note(OUTSIDE)
    held = {address for item in snapshot.items for address in item.addresses}
    return subtract(((0, 2**128 - 1),), spans([*NO_HOSTS, *map(host_network, held)]))


def cluster_query(workspace: Workspace, name: str) -> Query:
    """The query of a cluster of the workspace; raises InputError where it has none so named."""
    for cluster in workspace.clusters:
        if cluster.name == name:
            return cluster.query
    raise InputError(f"workspace {workspace.name!r} has no cluster {name!r}")


def _services(snapshot: View, end: ServiceEnd) -> BitMap:
    return BitMap(
        position
        for position in snapshot.called(end.namespace, end.name)
        if end.kubernetes_cluster in ("", snapshot.items[position].cluster)
    )
