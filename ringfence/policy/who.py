"""Who the ends of a rule are, seen from the workload at the other end, as named addresses."""

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.ids import ClusterId
from ringfence.model.policy import ClusterEnd
from ringfence.model.ranges import AddressRange, union
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fronts import Front, Fronts
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import PolicySet
from ringfence.policy.program import SetId
from ringfence.policy.sets import EVERYWHERE, AddressSets, of_addresses, within

Ranges = tuple[AddressRange, ...]


class Who:
    """Names and addresses of the ends of one policy set's rules."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.snapshot = policy_set.snapshot
        self.sets = AddressSets(self.snapshot)
        self.fronts = Fronts(self.snapshot)
        self._policy_set = policy_set
        self._ranges: dict[str, Ranges] = {}
        self._foreign: dict[ClusterId, Ranges] = {}
        self._policies = {
            (workspace.name, workspace.scope, policy.id): policy
            for workspace in policy_set.workspaces
            for policy in workspace.policies
        }

    def local(
        self, rule: OrderedRule, end: ResolvedEnd, at: int, *, consumer: bool
    ) -> SetId | None:
        """The workload's own addresses as far as a CIDR holds them, None if it holds them all."""
        addresses = self.snapshot.items[at].addresses
        if (
            at in end.items
            or not end.ranges
            or all(within(address, end.ranges) for address in addresses)
        ):
            return None
        return self.sets.name(self._meaning(rule, consumer=consumer), end.ranges)

    def side(self, rule: OrderedRule, at: int, *, consumer: bool) -> tuple[str, Ranges]:
        """What one end of the rule means to the workload at the other: a name, and addresses."""
        end, other = (rule.consumer, rule.provider) if consumer else (rule.provider, rule.consumer)
        items = self.snapshot.items
        if end.own_node:
            return self.own_node(at)
        meaning = self._meaning(rule, consumer=consumer)
        if other.own_node:
            pods = [pod for pod in self.named(end) if self._policy_set.own_nodes[pod] == at]
            return f"{meaning} on {items[at].key}", self.sets.of_items(pods)
        if end.anyone:
            return "everywhere", EVERYWHERE
        if meaning not in self._ranges:
            self._ranges[meaning] = union((*end.ranges, *self.sets.of_items(end.items)))
        return meaning, self._ranges[meaning]

    def _meaning(self, rule: OrderedRule, *, consumer: bool) -> str:
        """A name for an end that holds as long as nobody rewrites the policy."""
        decision = rule.decision
        if decision.policy is None:
            return "everywhere"
        policy = self._policies[decision.workspace, decision.scope, decision.policy]
        end = policy.consumer if consumer else policy.provider
        where = f"{decision.workspace} " if isinstance(end, ClusterEnd) else ""
        part = (rule.consumer if consumer else rule.provider).part
        return f"{where}{end}{f' {part}' if part else ''}"

    def named(self, end: ResolvedEnd) -> BitMap:
        """The positions of the workloads that the end names, itself or through a Service."""
        if end.anyone:
            return self.snapshot.subjects
        found = end.items | self.sets.holders(end.ranges)
        for front in self.fronts.of_services(end.services, None, ()):
            found |= self.sets.holders(of_addresses(b.address for b in front.backends))
        return found

    def nodes_of(self, end: ResolvedEnd) -> BitMap:
        """The positions of the nodes that run the pods that the end names."""
        nodes = (int(self._policy_set.own_nodes[pod]) for pod in self.named(end))
        return BitMap(node for node in nodes if node != NOWHERE)

    def nodes(self, cluster: ClusterId) -> SetId:
        """The set of all addresses of a Kubernetes cluster's nodes."""
        return self.sets.name(*self.nodes_in(cluster))

    def nodes_in(self, cluster: ClusterId) -> tuple[str, Ranges]:
        """A Kubernetes cluster's nodes: a name, and addresses."""
        addresses = self.fronts.node_addresses.get(cluster, [])
        return f"nodes of {cluster}", of_addresses(addresses)

    def balancer(self, front: Front) -> SetId:
        """The set of a Service's load-balancer addresses."""
        meaning = f"load balancer of {front.service.key}"
        return self.sets.name(meaning, of_addresses(front.external_addresses))

    def own_node(self, at: int) -> tuple[str, Ranges]:
        """The node that runs the pod at the position: a name, and addresses."""
        node = int(self._policy_set.own_nodes[at])
        if node == NOWHERE:
            return "nobody", ()
        return f"node {self.snapshot.items[node].key}", self.sets.of_items([node])

    def foreign(self, cluster: ClusterId | None) -> Ranges:
        """The addresses of the workloads of other clusters than that one; none for None."""
        if cluster is None:
            return ()
        if cluster not in self._foreign:
            items = self.snapshot.items
            others = (at for at in self.snapshot.subjects if items[at].cluster not in (cluster, ""))
            self._foreign[cluster] = self.sets.of_items(others)
        return self._foreign[cluster]
