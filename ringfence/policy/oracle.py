"""The meaning of policy once more, slow and obvious: one connection, one rule at a time.

It exists to be read beside the definition and to be compared with the fast evaluator. It shares
no code with it, only the domain types, the filter language's `matches` and the policies that the
words of a quarantine stand for. Quotation marks hold the sentence that a step follows.
"""

from collections.abc import Iterator, Sequence

from ringfence.inventory.outside import address_types
from ringfence.model.address import Address, Network, is_v4
from ringfence.model.ids import ScopeName, Version
from ringfence.model.policy import (
    Action,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    Direction,
    End,
    FilterEnd,
    FqdnEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.quarantine import QUARANTINE, Quarantine
from ringfence.model.query import matches
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, EndRole, EndVerdict, Layer, Stage, Verdict
from ringfence.model.workload import Item, ItemKind, ServicePort
from ringfence.policy.connection import Connection
from ringfence.policy.quarantine import as_workspace


class Oracle:
    """Judges single connections by the definition."""

    def __init__(
        self,
        items: Sequence[Item],
        tree: ScopeTree,
        enforced: Sequence[tuple[Workspace, Version]],
        quarantines: Sequence[Quarantine] = (),
    ) -> None:
        self._items = items
        self._tree = tree
        self._enforced = enforced
        self._quarantines = quarantines

    def judge(self, connection: Connection) -> Verdict:
        """Follows "Each governed end decides for itself: consumer outbound, provider inbound"."""
        ends = [
            (EndRole.CONSUMER, Direction.OUTBOUND, connection.consumer),
            (EndRole.PROVIDER, Direction.INBOUND, connection.provider),
        ]
        # "The receiving node, if governed, decides inbound as a third end."
        if connection.node is not None:
            ends.append((EndRole.NODE, Direction.INBOUND, connection.node))
        verdicts = []
        for role, direction, address in ends:
            item = self._holder(address)
            if item is not None and item.is_workload:
                matching = tuple(self._decisions(connection, item, role, direction))
                verdicts.append(EndVerdict(role, direction, item.key, matching))
        return Verdict(tuple(verdicts))

    def _decisions(
        self, connection: Connection, subject: Item, role: EndRole, direction: Direction
    ) -> Iterator[Decision]:
        for place, (stage, workspace, version, said) in enumerate(self._order()):
            # "A workload is governed by every enforced workspace whose scope's full query it
            # matches, ancestors included."
            if not self._governs(workspace, subject):
                continue
            if isinstance(said, Direction):
                matched, action, name = said is direction, workspace.catch_all.of(said), None
            else:
                matched = self._policy_matches(workspace, said, connection, role, subject)
                action, name = said.action, said.id
            if matched:
                yield Decision(
                    Layer.RINGFENCE,
                    stage,
                    workspace.scope,
                    workspace.name,
                    version,
                    name,
                    place,
                    action,
                )

    # --- the order ---

    def _order(self) -> Iterator[tuple[Stage, Workspace, Version, Policy | Direction]]:
        # "A quarantine stands ahead of every workspace, the latest first; it denies the rest."
        for quarantine in sorted(self._quarantines, key=lambda one: (-one.since_ns, one.name)):
            apart = as_workspace(quarantine)
            for policy in apart.policies:
                yield Stage.ABSOLUTE, apart, Version(0), policy
            for direction in Direction:
                yield Stage.ABSOLUTE, apart, Version(0), direction
        # "Scope priority is pre-order, parents before children." Of one scope's workspaces, which
        # only an analysis brings together, the primary comes first.
        scopes = self._tree.preorder()
        down = [one for scope in scopes for one in self._workspaces_of(scope.name)]
        up = [one for scope in reversed(scopes) for one in self._workspaces_of(scope.name)]
        # 1. "absolute policies, from the highest-priority scope to the lowest"
        for workspace, version in down:
            for policy in self._sorted(workspace, Rank.ABSOLUTE):
                yield Stage.ABSOLUTE, workspace, version, policy
        # 2. "default policies, from the lowest-priority scope to the highest"
        for workspace, version in up:
            for policy in self._sorted(workspace, Rank.DEFAULT):
                yield Stage.DEFAULT, workspace, version, policy
        # 3. "catch-alls, from the lowest-priority scope to the highest; one per direction"
        for workspace, version in up:
            yield Stage.CATCH_ALL, workspace, version, Direction.INBOUND
            yield Stage.CATCH_ALL, workspace, version, Direction.OUTBOUND

    def _workspaces_of(self, scope: ScopeName) -> list[tuple[Workspace, Version]]:
        bound = [one for one in self._enforced if one[0].scope == scope]
        return sorted(bound, key=lambda one: (not one[0].primary, one[0].name))

    def _sorted(self, workspace: Workspace, rank: Rank) -> list[Policy]:
        """Follows "The smaller priority number comes first, then position"."""
        numbered = enumerate(workspace.policies)
        ranked = [(p.priority, at, p) for at, p in numbered if p.rank is rank]
        return [policy for _, _, policy in sorted(ranked, key=lambda entry: entry[:2])]

    # --- who is who ---

    def _holder(self, address: Address) -> Item | None:
        """Follows "A host-network pod is its node"."""
        holders = [item for item in self._items if address in item.addresses]
        own = [item for item in holders if not item.host_network]
        return next(iter(own + holders), None)

    def _governs(self, workspace: Workspace, item: Item) -> bool:
        if workspace.name != QUARANTINE:
            return self._in_scope(item, workspace.scope)
        query = next(one.query for one in self._quarantines if one.name == workspace.scope)
        return self._is_subject(item) and matches(query, item.labels)

    def _in_scope(self, item: Item, scope: ScopeName) -> bool:
        """Follows "A scope's full query is its own query AND all its ancestors'"."""
        return self._is_subject(item) and all(
            matches(above.query, item.labels) for above in self._tree.path(scope)
        )

    @staticmethod
    def _is_subject(item: Item) -> bool:
        """Follows "A filter that matches only host-network pods matches nothing"."""
        return item.is_workload and not item.host_network

    # --- does a policy speak of the connection? ---

    def _policy_matches(
        self,
        workspace: Workspace,
        policy: Policy,
        connection: Connection,
        role: EndRole,
        subject: Item,
    ) -> bool:
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
        if not self._port_matches(policy, port, self._holder(provider)):
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
        item = self._holder(address)
        match end:
            case CidrEnd(networks, exceptions):
                # "CIDRs match addresses inside the cluster too."
                return _in_any(address, networks) and not _in_any(address, exceptions)
            case FqdnEnd() | ServiceEnd() | ApiServerEnd():
                return self._unknown_matches(end, action)
            case OwnNodeEnd():
                pod = None if other is None else self._holder(other)
                return item is not None and pod is not None and _runs(item, pod)
            case OutsideEnd():
                # "Every address that no item of the inventory holds" and that is a host's.
                kinds = {*address_types(address)}
                return item is None and kinds in ({"private"}, {"public"})
            case ScopeEnd(scope):
                return item is not None and self._in_scope(item, scope)
            case ClusterEnd(name):
                query = next(
                    cluster.query for cluster in workspace.clusters if cluster.name == name
                )
                return (
                    item is not None
                    and self._in_scope(item, workspace.scope)
                    and matches(query, item.labels)
                )
            case FilterEnd(query):
                return item is not None and self._is_subject(item) and matches(query, item.labels)

    def _is_api_server(
        self, end: ApiServerEnd, subject: Item, address: Address, action: Action
    ) -> bool:
        """Follows "As a consumer the hosts behind that, of the workload which decides"."""
        known = self._services(_service_of(end))
        cluster = end.kubernetes_cluster or subject.cluster
        here = [one.service for one in known if one.service and cluster in ("", one.cluster)]
        hosts = [self._holder(backend.address) for spec in here for backend in spec.backends]
        holder = self._holder(address)
        if not known:
            return self._unknown_matches(_service_of(end), action)
        if holder is not None:
            return holder in hosts
        return any(address == backend.address for spec in here for backend in spec.backends)

    def _unknown_matches(self, end: End, action: Action) -> bool:
        """An end of which nothing is known: nobody for an ALLOW, everybody for a DENY."""
        known = not isinstance(end, FqdnEnd | ServiceEnd) or bool(self._services(end))
        return not known and action is Action.DENY

    # --- Services ---

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
        consumer = self._holder(connection.consumer)
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
