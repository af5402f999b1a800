"""Whom and what a policy speaks of, slow and obvious: the oracle's reading of ends and ports."""

from collections.abc import Sequence

from ringfence.inventory.outside import address_types
from ringfence.model.address import Address, Network, is_v4
from ringfence.model.ids import ScopeName
from ringfence.model.policy import (
    Action,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.query import matches
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy.connection import Connection
from ringfence.policy.moment import Moment


class Meaning:
    """What policies mean among some items, at one moment."""

    def __init__(self, items: Sequence[Item], tree: ScopeTree, moment: Moment) -> None:
        self._items, self._tree, self._moment = items, tree, moment

    def holder(self, address: Address) -> Item | None:
        """Follows "A host-network pod is its node"."""
        holders = [item for item in self._items if address in item.addresses]
        own = [item for item in holders if not item.host_network]
        return next(iter(own + holders), None)

    def in_scope(self, item: Item, scope: ScopeName) -> bool:
        """Follows "A scope's full query is its own query AND all its ancestors'"."""
        return self.is_subject(item) and all(
            matches(above.query, item.labels) for above in self._tree.path(scope)
        )

    @staticmethod
    def is_subject(item: Item) -> bool:
        """Follows "A filter that matches only host-network pods matches nothing"."""
        return item.is_workload and not item.host_network

    def policy_matches(
        self,
        workspace: Workspace,
        policy: Policy,
        connection: Connection,
        role: EndRole,
        subject: Item,
    ) -> bool:
        """Whether a policy speaks of the connection as `subject`, which decides, meets it."""
        # "`protocol: any` must be written. A protocol without ports means all its ports."
        if policy.protocol not in (None, connection.protocol):
            return False
        as_receiver = role is EndRole.NODE
        # "Other ends match the consumer before SNAT and the provider after DNAT."
        consumer, provider = connection.consumer, connection.provider
        # "The receiving node decides on (consumer, Service)": no pod stands at the other end.
        behind = None if as_receiver else provider
        if isinstance(policy.consumer, ApiServerEnd):
            if not self._is_api_server(policy.consumer, subject, consumer, policy.action):
                return False
        elif not self._end_matches(workspace, policy.consumer, consumer, behind, policy.action):
            return False
        target = _service_of(policy.provider)
        if isinstance(target, ServiceEnd) and self._services(target):
            return self._service_matches(policy, target, connection, as_receiver)
        if isinstance(target, ServiceEnd) and any(isinstance(port, str) for port in policy.ports):
            return policy.action is Action.DENY  # what its ports are is not known either
        port = connection.dialled_port if as_receiver else connection.provider_port
        if not self._port_matches(policy, port, self.holder(provider)):
            return False
        if as_receiver:
            return self._unknown_matches(target, policy.action)
        return self._end_matches(workspace, target, provider, consumer, policy.action)

    @staticmethod
    def _port_matches(policy: Policy, port: int, provider: Item | None) -> bool:
        """Follows "A port's name means the number that the workload's containers declare"."""
        if policy.icmp:
            type_, code = divmod(port, 256)
            return any(one.type == type_ and one.code in (None, code) for one in policy.icmp)
        declared = provider.containers if provider else ()
        held = [(one.name, one.protocol) for one in declared if one.port == port]
        return not policy.ports or any(
            (wanted, policy.protocol) in held if isinstance(wanted, str) else port in wanted
            for wanted in policy.ports
        )

    def _end_matches(
        self,
        workspace: Workspace,
        end: End,
        address: Address,
        other: Address | None,
        action: Action,
    ) -> bool:
        item = self.holder(address)
        match end:
            case CidrEnd(networks, exceptions):
                # "CIDRs match addresses inside the cluster too."
                return _in_any(address, networks) and not _in_any(address, exceptions)
            case ServiceEnd() | ApiServerEnd():
                return self._unknown_matches(end, action)
            case FqdnEnd(name):
                return self._is_outside(address) and self._is_called(address, name)
            case OwnNodeEnd():
                pod = None if other is None else self.holder(other)
                return item is not None and pod is not None and _runs(item, pod)
            case OutsideEnd():
                return self._is_outside(address)
            case ScopeEnd(scope):
                return item is not None and self.in_scope(item, scope)
            case ClusterEnd(name):
                query = next(
                    cluster.query for cluster in workspace.clusters if cluster.name == name
                )
                return (
                    item is not None
                    and self.in_scope(item, workspace.scope)
                    and matches(query, item.labels)
                )
            case NamedFilterEnd(filter_name):
                # "`restricted` leaves of it only members of the scope."
                named = self._tree.filters[filter_name]
                inside = item is not None and self.in_scope(item, named.scope)
                end = FilterEnd(named.query)
                return (inside or not named.restricted) and self._end_matches(
                    workspace, end, address, other, action
                )
            case FilterEnd(query):
                return item is not None and self.is_subject(item) and matches(query, item.labels)

    def _is_outside(self, address: Address) -> bool:
        """Follows "Every address that no item of the inventory holds", and that is a host's."""
        return self.holder(address) is None and address_types(address) in (
            ("private",),
            ("public",),
        )

    def _is_called(self, address: Address, pattern: str) -> bool:
        """Follows "`*` may stand for the first label"."""
        called = [name for name, held in self._moment.names.items() if address in held]
        return any(pattern in (name, "*." + name.partition(".")[2]) for name in called)

    def _is_api_server(
        self, end: ApiServerEnd, subject: Item, address: Address, action: Action
    ) -> bool:
        """Follows "As a consumer the hosts behind that, of the workload which decides"."""
        known = self._services(_service_of(end))
        cluster = end.kubernetes_cluster or subject.cluster
        here = [one.service for one in known if one.service and cluster in ("", one.cluster)]
        hosts = [self.holder(backend.address) for spec in here for backend in spec.backends]
        holder = self.holder(address)
        if not known:
            return self._unknown_matches(_service_of(end), action)
        if holder is not None:
            return holder in hosts
        return any(address == backend.address for spec in here for backend in spec.backends)

    def _unknown_matches(self, end: End, action: Action) -> bool:
        """An end of which nothing is known: nobody for an ALLOW, everybody for a DENY."""
        known = not isinstance(end, ServiceEnd) or bool(self._services(end))
        return not known and action is Action.DENY

    def _services(self, end: End) -> list[Item]:
        return [
            item
            for item in self._items
            if isinstance(end, ServiceEnd)
            and item.kind is ItemKind.SERVICE
            and (item.namespace, item.name) == (end.namespace, end.name)
            and (not end.kubernetes_cluster or item.cluster == end.kubernetes_cluster)
        ]

    def _service_matches(
        self, policy: Policy, end: ServiceEnd, connection: Connection, as_receiver: bool
    ) -> bool:
        """Follows "any of its addresses, and a direct one to a serving backend's target port"."""
        consumer = self.holder(connection.consumer)
        for service in self._services(end):
            # No Kubernetes cluster named: "in whichever Kubernetes cluster the other end is".
            placed = consumer.cluster if consumer is not None else ""
            if not end.kubernetes_cluster and placed and placed != service.cluster:
                continue
            for port in service.service.ports if service.service else ():
                if policy.ports and not any(
                    wanted == port.name if isinstance(wanted, str) else port.port in wanted
                    for wanted in policy.ports
                ):
                    continue
                if self._dials(connection, service, port):
                    return True
                if not as_receiver and _reaches_directly(connection, service, port):
                    return True
        return False

    def _dials(self, connection: Connection, service: Item, port: ServicePort) -> bool:
        if connection.protocol != port.protocol or service.service is None:
            return False
        fronts = service.addresses + service.service.external_addresses
        if connection.dialled in fronts and connection.dialled_port == port.port:
            return True
        nodes = [
            item
            for item in self._items
            if item.kind is ItemKind.NODE and item.cluster == service.cluster
        ]
        at_a_node = any(connection.dialled in node.addresses for node in nodes)
        return port.node_port != 0 and connection.dialled_port == port.node_port and at_a_node


def _reaches_directly(connection: Connection, service: Item, port: ServicePort) -> bool:
    dialled = connection.dialled, connection.dialled_port
    reached = connection.provider, connection.provider_port
    return dialled == reached and any(
        backend.serving
        and backend.service_port == port.name
        and (backend.address, backend.port) == reached
        and backend.protocol == connection.protocol
        for backend in (service.service.backends if service.service else ())
    )


def _service_of(end: End) -> End:
    """An API server, as a provider, is the Service `kubernetes` in namespace `default`."""
    if isinstance(end, ApiServerEnd):
        return ServiceEnd("default", "kubernetes", end.kubernetes_cluster)
    return end


def _runs(node: Item, pod: Item) -> bool:
    return (
        node.kind is ItemKind.NODE
        and pod.kind is ItemKind.POD
        and (pod.cluster, pod.node) == (node.cluster, node.name)
    )


def _in_any(address: Address, networks: tuple[Network, ...]) -> bool:
    """Whether a block of the address's own family holds it."""
    return any(network.is_v4 == is_v4(address) and address in network for network in networks)
