"""Who the ends of a rule are, seen from the workload at the other end, as named addresses."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.inventory.living import Living
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, Network, int_address
from ringfence.model.ids import ClusterId, PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import ClusterEnd, Policy, Workspace
from ringfence.model.ranges import AddressRange, spans, subtract, union
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fronts import Front, Fronts
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import SetId
from ringfence.policy.sets import EVERYWHERE, AddressSets, of_addresses, within

Ranges = tuple[AddressRange, ...]
Said = Mapping[tuple[WorkspaceName, ScopeName, PolicyId | None], Policy]
"""Every policy, by where it stands."""
SUBJECTS, CLUSTERS = "all workloads", "which Kubernetes clusters there are"
SERVICE_ADDRESSES, NODE_PORTS = "addresses of all Services", "ports of all node ports"
"""Facts that rules depend on."""


@dataclass(frozen=True, slots=True)
class Held:
    """The fact which workloads hold addresses in the ranges."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Served:
    """The fact of which Services the backends have addresses in the ranges."""

    ranges: Ranges


def by_place(workspaces: Iterable[Workspace]) -> Said:
    """All policies of workspaces."""
    return {
        (workspace.name, workspace.scope, policy.id): policy
        for workspace in workspaces
        for policy in workspace.policies
    }


class Who:
    """Names and addresses of the ends of rules, as long as the inventory does not change.

    What it depends on besides the ends and members of a rule, and the Kubernetes nodes, it notes.
    """

    def __init__(self, snapshot: Living, sets: AddressSets, fronts: Fronts, said: Said) -> None:
        self.snapshot, self.sets, self.fronts = snapshot, sets, fronts
        self._said = said
        self._ranges: dict[str, Ranges] = {}
        self._meant: dict[tuple[int, str, ClusterId], tuple[str, Ranges]] = {}
        self._running: dict[str, dict[int, list[int]]] = {}
        self._nodes = sorted(
            (int.from_bytes(address), cluster)
            for cluster, addresses in fronts.node_addresses.items()
            for address in addresses
        )

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
            named = self.named(end)
            if meaning not in self._running:
                running = self._running[meaning] = {}
                for pod in named:
                    running.setdefault(self.snapshot.runner(pod), []).append(pod)
            pods = BitMap(self._running[meaning].get(at, ()))
            held = self.sets.of_items(pods)
            if end.ranges:  # of both its addresses a pod may be meant by one
                wholly = self.sets.of_items(pods & end.items)
                held = subtract(held, subtract(held, union((*end.ranges, *wholly))))
            return f"{meaning} on {items[at].key}", held
        if end.anyone:
            return "everywhere", EVERYWHERE
        if meaning not in self._ranges:
            self._ranges[meaning] = union((*end.ranges, *self.sets.of_items(end.items)))
        home = items[at].cluster
        if not self.are_foreign(home):
            return meaning, self._ranges[meaning]
        key = rule.decision.place, meaning, home  # each entry notes itself what it depends on
        if key not in self._meant:
            self._meant[key] = self._seen(meaning, end, home)
        return self._meant[key]

    def _seen(self, meaning: str, end: ResolvedEnd, home: ClusterId) -> tuple[str, Ranges]:
        """An end as a Kubernetes cluster sees it: a name, and addresses.

        Another's pod is left out that has an address of one of the cluster's own, or for its pods:
        there the address is theirs.
        """
        items = self.snapshot.items
        others = [at for at in end.items if items[at].cluster not in (home, "")]
        astray = {
            address
            for at in others
            for address in items[at].addresses
            if (seen := self.snapshot.at(address, home)) == NOWHERE
            or items[seen].cluster != items[at].cluster
        }
        if not astray:
            return meaning, self._ranges[meaning]
        mine = (one for at in end.items - BitMap(others) for one in items[at].addresses)
        theirs = (one for at in others for one in items[at].addresses if one not in astray)
        ranges = union((*end.ranges, *of_addresses((*mine, *theirs))))
        return f"{meaning} as {home} sees it", ranges

    def is_same(self, address: Address, cluster: ClusterId, home: ClusterId) -> bool:
        """Whether an address is the same one as two Kubernetes clusters see it."""
        if cluster == home:
            return True
        one, other = (self.snapshot.at(address, each) for each in (cluster, home))
        held = one != NOWHERE or not self.snapshot.pod_networks.hold(home, address)
        return one == other and held

    def _meaning(self, rule: OrderedRule, *, consumer: bool) -> str:
        """A name for an end that holds as long as nobody rewrites the policy."""
        decision = rule.decision
        if decision.policy is None:
            return "everywhere"
        policy = self._said[decision.workspace, decision.scope, decision.policy]
        end = policy.consumer if consumer else policy.provider
        where = f"{decision.workspace} " if isinstance(end, ClusterEnd) else ""
        part = (rule.consumer if consumer else rule.provider).part
        return f"{where}{end}{f' {part}' if part else ''}"

    def named(self, end: ResolvedEnd) -> BitMap:
        """The positions of the workloads that the end names, itself or through a Service."""
        if end.anyone:
            self.snapshot.note(SUBJECTS)
            return self.snapshot.subjects
        found = end.items | self.holders(end.ranges)
        for front in self.fronts.of_services(end.services, None, ()):
            found |= self.sets.holders(of_addresses(b.address for b in front.backends))
        return found

    def nodes_of(self, end: ResolvedEnd) -> BitMap:
        """The positions of the nodes that run the pods that the end names."""
        nodes = set(map(self.snapshot.runner, self.named(end)))
        return BitMap(nodes - {NOWHERE})

    def holders(self, ranges: Ranges) -> BitMap:
        """The positions of the workloads that hold an address in the ranges."""
        if ranges:
            self.snapshot.note(Held(ranges))
        return self.sets.holders(ranges)

    def nodes_among(self, ranges: Ranges, home: ClusterId) -> list[tuple[ClusterId, Address]]:
        """The addresses of nodes in the ranges, and whose those are as a cluster sees it."""
        found = []
        for first, last in ranges:
            begin, end = (bisect_left(self._nodes, (one, "")) for one in (first, last + 1))
            found += [(cluster, int_address(one)) for one, cluster in self._nodes[begin:end]]
        return [(cluster, one) for cluster, one in found if self.is_same(one, cluster, home)]

    def nodes(self, cluster: ClusterId, home: ClusterId) -> SetId:
        """The set of all addresses of a Kubernetes cluster's nodes, as another one sees them."""
        return self.sets.name(*self.nodes_in(cluster, home))

    def nodes_in(self, cluster: ClusterId, home: ClusterId) -> tuple[str, Ranges]:
        """A Kubernetes cluster's nodes, as another one sees them: a name, and addresses."""
        told = self.fronts.node_addresses.get(cluster, [])
        addresses = [one for one in told if self.is_same(one, cluster, home)]
        seen = "" if len(addresses) == len(told) else f" as {home} sees them"
        return f"nodes of {cluster}{seen}", of_addresses(addresses)

    def balancer(self, front: Front) -> SetId:
        """The set of a Service's load-balancer addresses."""
        meaning = f"load balancer of {front.service.key}"
        return self.sets.name(meaning, of_addresses(front.external_addresses))

    def served(self, front: Front) -> Iterator[tuple[SetId, SetId | None]]:
        """The same by the source ranges from which they are served, None for everywhere."""
        spec, key = front.service.service, front.service.key
        by_ranges: dict[tuple[Network, ...], list[Address]] = {}
        for address in front.external_addresses:
            networks = spec.served_from(address) if spec else ()
            by_ranges.setdefault(networks, []).append(address)
        if set(by_ranges) == {()}:
            yield self.balancer(front), None
            return
        for networks, addresses in by_ranges.items():
            # Ranges are of one family.
            family = "IPv4" if networks[:1] and networks[0].is_v4 else "IPv6"
            source = f"source ranges of {key} in {family}" if networks else "everywhere"
            local = self.sets.name(f"load balancer of {key} for {source}", of_addresses(addresses))
            yield local, self.sets.name(source, spans(networks)) if networks else None

    def own_node(self, at: int) -> tuple[str, Ranges]:
        """The node that runs the pod at the position: a name, and addresses."""
        node = self.snapshot.runner(at)
        if node == NOWHERE:
            return "nobody", ()
        return f"node {self.snapshot.items[node].key}", self.sets.of_items([node])

    def foreign(self, cluster: ClusterId | None, end: ResolvedEnd, ranges: Ranges) -> Ranges:
        """The addresses of workloads of other clusters than that one; none for None.

        Of them those that count among the ranges, which are what the end means.
        """
        if cluster is None or not self.are_foreign(cluster):
            return ()
        if end.ranges or end.anyone:
            self.snapshot.note(Held(end.ranges or EVERYWHERE))
        items = self.snapshot.items
        held = (
            address
            for at in self.sets.holders(ranges)
            if items[at].cluster not in (cluster, "")
            for address in items[at].addresses
        )
        return of_addresses(one for one in held if not self._is_own(one, cluster))

    def _is_own(self, address: Address, home: ClusterId) -> bool:
        """Whether an address is one of a cluster's own as it sees it, or of no cluster."""
        at = self.snapshot.at(address, home)
        own = at != NOWHERE and self.snapshot.items[at].cluster in (home, "")
        return own or self.snapshot.pod_networks.hold(home, address)

    def are_foreign(self, cluster: ClusterId | None) -> bool:
        """Whether there are workloads of other clusters than that one; not for None."""
        if cluster is None:
            return False
        self.snapshot.note(CLUSTERS)
        return bool(self.snapshot.clusters - {cluster})
