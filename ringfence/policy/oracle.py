"""The meaning of policy once more, slow and obvious: one connection, one rule at a time.

It exists to be read beside the definition and to be compared with the fast evaluator. It shares
no code with it, only the domain types, the filter language's `matches` and the policies that the
words of a quarantine stand for. Quotation marks hold the sentence that a step follows.
"""

from collections.abc import Iterable, Iterator, Sequence

from ringfence.inventory.outside import address_types
from ringfence.model import policy as ends
from ringfence.model.address import Address, is_v4
from ringfence.model.ids import NO_CLUSTER, ScopeName, Version
from ringfence.model.policy import Action, Direction, End, Policy, Rank, Workspace
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import Query, matches
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, EndRole, EndVerdict, Layer, Stage, Verdict
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.connection import Connection
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.quarantine import as_workspace

Bound = tuple[Workspace, Version, list[Query]]
"""A workspace, its version, and the queries that a workload matches which it governs."""
Service = ends.ServiceEnd | ends.ApiServerEnd
Socket = tuple[Address, int, int]
"""Address, protocol, port."""


class Oracle:
    """Judges single connections by the definition; of `items` the last one changed last."""

    def __init__(
        self,
        items: Sequence[Item],
        tree: ScopeTree,
        enforced: Sequence[tuple[Workspace, Version]],
        moment: Moment = UNTOLD,
        quarantines: Sequence[Quarantine] = (),
    ) -> None:
        self._items, self._tree, self._moment = items, tree, moment
        self._enforced, self._quarantines = enforced, quarantines
        self._home = NO_CLUSTER

    def judge(self, connection: Connection) -> Verdict:
        """Follows "Each governed end decides for itself: consumer outbound, provider inbound"."""
        self._home = connection.home
        deciding = [
            (EndRole.CONSUMER, Direction.OUTBOUND, connection.consumer),
            (EndRole.PROVIDER, Direction.INBOUND, connection.provider),
        ]
        # "The receiving node, if governed, decides inbound as a third end."
        if connection.node is not None:
            deciding.append((EndRole.NODE, Direction.INBOUND, connection.node))
        verdicts = []
        for role, direction, address in deciding:
            item = self._holder(address)
            if item is not None and item.is_workload:
                matching = self._decisions(connection, role, direction, item)
                verdicts.append(EndVerdict(role, direction, item.key, tuple(matching)))
        return Verdict(tuple(verdicts))

    def _decisions(
        self, connection: Connection, role: EndRole, direction: Direction, subject: Item
    ) -> Iterator[Decision]:
        for place, (stage, (workspace, version, queries), said) in enumerate(self._order()):
            # "A workload is governed by every enforced workspace whose scope's full query it
            # matches, ancestors included."
            if not _is_member(subject, queries):
                continue
            if isinstance(said, Direction):
                matched, action, name = said is direction, workspace.catch_all.of(said), None
            else:
                matched = self._matches(workspace, said, connection, role, subject)
                action, name = said.action, said.id
            if matched:
                rule = workspace.scope, workspace.name, version, name
                yield Decision(Layer.RINGFENCE, stage, *rule, place, action)

    # --- the order ---

    def _order(self) -> Iterator[tuple[Stage, Bound, Policy | Direction]]:
        # "A quarantine stands ahead of every workspace, the latest first; it denies the rest."
        for quarantine in sorted(self._quarantines, key=lambda one: (-one.since_ns, one.name)):
            apart = as_workspace(quarantine)
            for said in (*apart.policies, *Direction):
                yield Stage.ABSOLUTE, (apart, Version(0), [quarantine.query]), said
        # "Scope priority is pre-order, parents before children." Of one scope's workspaces, which
        # only an analysis brings together, the primary comes first.
        scopes = [scope.name for scope in self._tree.preorder()]
        down = [bound for scope in scopes for bound in self._bound_to(scope)]
        up = [bound for scope in reversed(scopes) for bound in self._bound_to(scope)]
        # 1. "absolute policies, from the highest-priority scope to the lowest"
        for bound in down:
            for policy in self._policies(bound[0], Rank.ABSOLUTE):
                yield Stage.ABSOLUTE, bound, policy
        # 2. "default policies, from the lowest-priority scope to the highest"
        for bound in up:
            for policy in self._policies(bound[0], Rank.DEFAULT):
                yield Stage.DEFAULT, bound, policy
        # 3. "catch-alls, from the lowest-priority scope to the highest; one per direction"
        for bound in up:
            for direction in Direction:
                yield Stage.CATCH_ALL, bound, direction

    def _bound_to(self, scope: ScopeName) -> list[Bound]:
        found = [one for one in self._enforced if one[0].scope == scope]
        found.sort(key=lambda one: (not one[0].primary, one[0].name))
        return [(*one, self._full_query(scope)) for one in found]

    def _full_query(self, scope: ScopeName) -> list[Query]:
        """Follows "A scope's full query is its own query AND all its ancestors'"."""
        return [above.query for above in self._tree.path(scope)]

    def _policies(self, workspace: Workspace, rank: Rank) -> list[Policy]:
        """Follows "The smaller priority number comes first, then position"."""
        at_ns, ranked = self._moment.at_ns, [one for one in workspace.policies if one.rank is rank]
        # "From `expires_ns` on it is as if the policy were not there."
        lasting = [one for one in ranked if one.expires_ns is None or at_ns < one.expires_ns]
        # "So it is as long as `review` is not empty."
        lasting = [one for one in lasting if one.review == ""]
        return sorted(lasting, key=lambda one: one.priority)

    # --- what a policy speaks of ---

    def _matches(
        self,
        workspace: Workspace,
        policy: Policy,
        connection: Connection,
        role: EndRole,
        subject: Item,
    ) -> bool:
        """Whether a policy speaks of the connection as `subject`, which decides, meets it."""
        # "`protocol: any` must be written."
        if policy.protocol not in (None, connection.protocol):
            return False
        # "The receiving node decides on (consumer, Service)": no pod stands at the other end.
        received = role is EndRole.NODE
        # "Other ends match the consumer before SNAT and the provider after DNAT."
        consumer, provider = connection.consumer, connection.provider
        if isinstance(policy.consumer, ends.ApiServerEnd):
            opened = self._is_api_server(policy, policy.consumer, consumer, subject)
        else:
            behind = None if received else provider
            opened = self._means(policy.consumer, workspace, consumer, behind)
        if not opened:
            return False
        if isinstance(policy.provider, Service):
            return self._service_matches(policy, policy.provider, connection, received)
        port = connection.provider_port
        names = self._port_names(provider, connection.protocol, port)
        means = self._means(policy.provider, workspace, provider, consumer)
        return not received and means and _asks_for(policy, port, names)

    def _means(
        self, end: End, workspace: Workspace, address: Address, other: Address | None
    ) -> bool:
        """Whether an end that is no Service is the address, with the other end's beside it."""
        item = self._holder(address)
        match end:
            case ends.CidrEnd() | ends.AddressSetEnd():
                return self._lists(end, address)
            case ends.OutsideEnd():
                return self._is_outside(address)
            case ends.FqdnEnd(pattern):
                # "`*` may stand for the first label."
                called = [name for name, held in self._moment.names.items() if address in held]
                meant = [one for one in called if pattern in (one, "*." + one.partition(".")[2])]
                return self._is_outside(address) and bool(meant)
            case ends.OwnNodeEnd():
                pod = self._holder(other) if other else None
                return item is not None and pod is not None and _runs(item, pod)
            case ends.ScopeEnd(scope):
                queries = self._full_query(scope)
            case ends.ClusterEnd(name):
                own = next(one.query for one in workspace.clusters if one.name == name)
                queries = [*self._full_query(workspace.scope), own]
            case ends.NamedFilterEnd(filter_name):
                named = self._tree.filters[filter_name]
                # "`restricted` leaves of it only members of the scope."
                within = self._full_query(named.scope) if named.restricted else []
                queries = [*within, named.query]
            case ends.FilterEnd(query):
                queries = [query]
            case ends.ServiceEnd() | ends.ApiServerEnd():
                raise AssertionError("a Service holds no end's address: see below")
        return _is_member(item, queries)

    def _holder(self, address: Address) -> Item | None:
        """Follows "A host-network pod is its node", and else "the one that changed last".

        And "The own Kubernetes cluster's comes first, and what is in none, then the one other's".
        """
        held = self._holders(address)
        mine = [item for item in held if item.cluster in (self._home, "")]
        networks = [one for item in self._items if item.cluster == self._home
                    for one in item.pod_networks]  # fmt: skip
        if not mine and any(address in one for one in networks):
            return None
        others = held if len({item.cluster for item in held}) == 1 else []
        found = mine or others
        return min(found, key=lambda item: item.host_network, default=None)

    def _holders(self, address: Address) -> list[Item]:
        return [item for item in reversed(self._items) if address in item.addresses]

    def _lists(self, end: ends.CidrEnd | ends.AddressSetEnd, address: Address) -> bool:
        """Follows "CIDRs match addresses inside the cluster too", and address sets as they do."""
        if isinstance(end, ends.CidrEnd):
            excepted = any(address in block for block in end.exceptions)
            return not excepted and any(address in block for block in end.networks)
        held, number = self._moment.sets[end.name], int.from_bytes(address)
        return any(first <= number <= last for first, last in held)

    def _is_outside(self, address: Address) -> bool:
        """Follows "Every address that no item of the inventory holds", and that is a host's."""
        host = address_types(address) in (("private",), ("public",))
        return host and not self._holders(address)

    def _port_names(self, provider: Address, protocol: int, port: int) -> list[str]:
        """Follows "A port's name means the number that the workload's containers declare"."""
        holder = self._holder(provider)
        declared = holder.containers if holder else ()
        return [one.name for one in declared if (one.protocol, one.port) == (protocol, port)]

    # --- Services ---

    def _services(self, end: Service) -> list[Item]:
        # An API server is "as a provider the Service `kubernetes` in namespace `default`".
        named = "default", "kubernetes"
        if isinstance(end, ends.ServiceEnd):
            named = end.namespace, end.name
        called = [item for item in self._items if (item.namespace, item.name) == named]
        here = [item for item in called if end.kubernetes_cluster in ("", item.cluster)]
        return [item for item in here if item.kind is ItemKind.SERVICE]

    def _service_matches(
        self, policy: Policy, end: Service, connection: Connection, received: bool
    ) -> bool:
        services, consumer = self._services(end), self._holder(connection.consumer)
        if not services:
            # "A Service that is not there is nobody in an ALLOW and everybody in a DENY", and what
            # the names of its ports mean is not known either.
            named = any(isinstance(port, str) for port in policy.ports)
            port = connection.dialled_port if received else connection.provider_port
            return policy.action is Action.DENY and (named or _asks_for(policy, port, []))
        dialled = connection.dialled, connection.protocol, connection.dialled_port
        reached = connection.provider, connection.protocol, connection.provider_port
        direct = dialled == reached and not received
        # No Kubernetes cluster named: "in whichever Kubernetes cluster the other end is".
        near = consumer.cluster if consumer and not end.kubernetes_cluster else ""
        here = [service for service in services if near in ("", service.cluster)]
        if received and policy.action is Action.ALLOW:
            # "At a load balancer's addresses an ALLOW admits whom its source ranges hold."
            here = [service for service in here if not _keeps_out(service, connection)]
        return any(dialled in self._sockets(policy, service, direct) for service in here)

    def _sockets(self, policy: Policy, service: Item, direct: bool) -> Iterator[Socket]:
        """Follows "any of its addresses, and a direct one to a serving backend's target port"."""
        beside = [item for item in self._items if item.cluster == service.cluster]
        nodes = [at for item in beside if item.kind is ItemKind.NODE for at in item.addresses]
        spec = service.service
        if spec is None:
            return
        for front in spec.ports:
            if not _asks_for(policy, front.port, [front.name]):
                continue
            for address in (*service.addresses, *spec.external_addresses):
                yield address, front.protocol, front.port
            for address in nodes if front.node_port else ():
                yield address, front.protocol, front.node_port
            for backend in spec.backends if direct else ():
                leads_there = backend.service_port, backend.protocol
                if backend.serving and leads_there == (front.name, front.protocol):
                    yield backend.address, backend.protocol, backend.port

    def _is_api_server(
        self, policy: Policy, end: ends.ApiServerEnd, address: Address, subject: Item
    ) -> bool:
        """Follows "As a consumer the hosts behind that, of the workload which decides"."""
        services, holder = self._services(end), self._holder(address)
        near = end.kubernetes_cluster or subject.cluster
        here = [one.service for one in services if one.service and near in ("", one.cluster)]
        hosts = [backend.address for spec in here for backend in spec.backends]
        if not services:
            return policy.action is Action.DENY
        return address in hosts or (holder is not None and holder in map(self._holder, hosts))


def _is_member(item: Item | None, queries: Iterable[Query]) -> bool:
    # "A filter that matches only host-network pods matches nothing."
    if item is None or item.host_network or not item.is_workload:
        return False
    return all(matches(query, item.labels) for query in queries)


def _keeps_out(service: Item, connection: Connection) -> bool:
    spec = service.service
    if spec is None or connection.dialled not in spec.balancer_addresses:
        return False
    of_family = [one for one in spec.source_ranges if one.is_v4 == is_v4(connection.dialled)]
    return bool(of_family) and not any(connection.consumer in one for one in of_family)


def _runs(node: Item, pod: Item) -> bool:
    kinds = node.kind is ItemKind.NODE and pod.kind is ItemKind.POD
    return kinds and (pod.cluster, pod.node) == (node.cluster, node.name)


def _asks_for(policy: Policy, port: int, names: list[str]) -> bool:
    if policy.icmp:
        type_, code = divmod(port, 256)
        return any(one.type == type_ and one.code in (None, code) for one in policy.icmp)
    # "A protocol without ports means all its ports."
    return not policy.ports or any(
        wanted in names if isinstance(wanted, str) else port in wanted for wanted in policy.ports
    )
