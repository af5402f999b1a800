"""Policies and the workspaces that version them: what people write, before any resolution."""

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum

from ringfence.model.address import Network
from ringfence.model.errors import InputError
from ringfence.model.evidence import Evidence
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import AddressSetName, FilterName, PolicyId, ScopeName, WorkspaceName
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, Port, format_protocol
from ringfence.model.query import Query
from ringfence.model.ranges import AddressRange, spans, subtract


class Action(StrEnum):
    """What a rule says. PASS, on to the next stage, is for rules of Kubernetes' policies only.

    LOG decides nothing: what it matches is told, and judged by the other rules.
    """

    ALLOW = "ALLOW"
    DENY = "DENY"
    PASS = "PASS"  # noqa: S105
    LOG = "LOG"


SPOKEN = (Action.ALLOW, Action.DENY)
"""What catch-alls of workspaces say."""
SPOKEN_BY_POLICIES = (*SPOKEN, Action.LOG)
"""What policies of workspaces say."""


class Denied(StrEnum):
    """What a connection meets that is denied: silence, or an answer that says so."""

    DROP = "DROP"
    REJECT = "REJECT"


class Rank(StrEnum):
    """Absolute policies are read before default ones, from the top of the tree."""

    ABSOLUTE = "absolute"
    DEFAULT = "default"


class Direction(StrEnum):
    """Whose decision: the provider's inbound or the consumer's outbound."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True)
class ScopeEnd:
    """Every workload of a scope."""

    scope: ScopeName


@dataclass(frozen=True, slots=True)
class ClusterEnd:
    """Every workload of a cluster that the workspace names."""

    cluster: str


@dataclass(frozen=True, slots=True)
class FilterEnd:
    """Every workload that matches a filter."""

    query: Query


@dataclass(frozen=True, slots=True)
class NamedFilterEnd:
    """Every workload of a filter that has a name, a `model.scope.InventoryFilter`."""

    filter: FilterName


@dataclass(frozen=True, slots=True)
class ServiceEnd:
    """A Service: any of its addresses, and a serving backend's target port dialled directly.

    `kubernetes_cluster` empty means: in whichever Kubernetes cluster the other end is.
    """

    namespace: str
    name: str
    kubernetes_cluster: str = ""


@dataclass(frozen=True, slots=True)
class CidrEnd:
    """Every address in `networks` but those in `exceptions`, inside Kubernetes clusters too."""

    networks: tuple[Network, ...]
    exceptions: tuple[Network, ...] = ()

    @property
    def ranges(self) -> tuple[AddressRange, ...]:
        """The addresses that are meant, disjoint and sorted."""
        return subtract(spans(self.networks), spans(self.exceptions))


@dataclass(frozen=True, slots=True)
class AddressSetEnd:
    """Every address of a set that has a name, a `model.address_set.AddressSet`.

    As of a CIDR block, addresses inside Kubernetes clusters are meant too.
    """

    name: AddressSetName


@dataclass(frozen=True, slots=True)
class FqdnEnd:
    """The hosts outside that DNS answered for a name, as `model.fqdn` writes names.

    Whoever answers for a name chooses the addresses, so they never mean what the inventory holds,
    nor what no host has: no answer opens or closes the way to a workload or a metadata service.
    """

    name: str


@dataclass(frozen=True, slots=True)
class OwnNodeEnd:
    """The node that runs the other end's pod, from where the kubelet's probes come."""


@dataclass(frozen=True, slots=True)
class ApiServerEnd:
    """The API server of a Kubernetes cluster.

    As a provider it is the Service `kubernetes` in namespace `default`, as a consumer the hosts
    behind that. `kubernetes_cluster` empty means as a provider that of the consumer, and as a
    consumer that of the workload which decides.
    """

    kubernetes_cluster: str = ""


@dataclass(frozen=True, slots=True)
class OutsideEnd:
    """Any host outside: every address that no item of the inventory holds.

    Only private and public addresses are hosts' there: what is said of the link, to groups, or to
    a cloud's metadata service never leaves the node. Those are named as CIDR blocks.
    """


End = (
    ScopeEnd
    | ClusterEnd
    | FilterEnd
    | NamedFilterEnd
    | ServiceEnd
    | CidrEnd
    | AddressSetEnd
    | FqdnEnd
    | OwnNodeEnd
    | ApiServerEnd
    | OutsideEnd
)
_WITHOUT_PORT_NAMES = (CidrEnd, AddressSetEnd, FqdnEnd, OwnNodeEnd, OutsideEnd)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may (or may not) open connections to whom.

    `protocol` None is the written `any`; empty `ports` means all ports of the protocol, empty
    `icmp` all types of ICMP. A port's name means, of each workload of the provider, the number
    that its containers declare for it, and of a Service the Service's port of that name. The
    smaller `priority` is read first, then the position in the workspace. From `expires_ns`, epoch
    ns, on it is as if the policy were not there, an ALLOW as well as a DENY; so it is as long as
    `review`, the reason why somebody must look at it first, is not empty. `owner`, `ticket`,
    `approved` and `evidence` are for people.
    """

    id: PolicyId
    consumer: End
    provider: End
    protocol: int | None
    ports: tuple[Port, ...]
    action: Action
    rank: Rank = Rank.DEFAULT
    priority: int = 100
    description: str = ""
    icmp: tuple[IcmpType, ...] = ()
    owner: str = ""
    ticket: str = ""
    expires_ns: int | None = None
    approved: bool = False
    review: str = ""
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.action not in SPOKEN_BY_POLICIES:
            known = ", ".join(SPOKEN_BY_POLICIES)
            raise InputError(f"policy {self.id!r}: {self.action} is not one of {known}")
        if isinstance(self.consumer, ServiceEnd):
            raise InputError(
                f"policy {self.id!r}: a Service opens no connections, so it is no consumer; "
                "name the workloads behind it"
            )
        if self.ports and self.protocol not in WITH_PORTS:
            raise InputError(
                f"policy {self.id!r}: ports on {format_protocol(self.protocol)}, which has none"
            )
        if self.icmp and self.protocol not in (ICMP, ICMPV6):
            raise InputError(
                f"policy {self.id!r}: ICMP types on {format_protocol(self.protocol)}, "
                "which has none"
            )
        names = [port for port in self.ports if isinstance(port, str)]
        if names and isinstance(self.provider, _WITHOUT_PORT_NAMES):
            raise InputError(
                f"policy {self.id!r}: nothing says what port {names[0]!r} is at its provider, for "
                "only workloads and Services name their ports; write a number"
            )

    @property
    def rule(self) -> "Policy":
        """The policy without what is for people alone."""
        return replace(self, description="", owner="", ticket="", approved=False, evidence=None)

    def counts(self, at_ns: int) -> bool:
        """Whether the policy decides anything: it awaits no review, and has not expired."""
        return not self.review and not self.is_expired(at_ns)

    def is_expired(self, at_ns: int) -> bool:
        """Whether its time is over."""
        return self.expires_ns is not None and self.expires_ns <= at_ns


@dataclass(frozen=True, slots=True)
class Cluster:
    """A named query over workloads (not a Kubernetes cluster), within the workspace's scope."""

    name: str
    query: Query


@dataclass(frozen=True, slots=True)
class CatchAll:
    """What happens to connections that no policy matched; each direction must be stated."""

    inbound: Action
    outbound: Action

    def __post_init__(self) -> None:
        if not {self.inbound, self.outbound} <= {*SPOKEN}:
            raise InputError(f"a catch-all says one of {', '.join(SPOKEN)}")

    def of(self, direction: Direction) -> Action:
        """The action of that direction."""
        return self.inbound if direction is Direction.INBOUND else self.outbound


class NewPods(StrEnum):
    """What a pod of the scope may do on the network before its rules are in force."""

    OPEN = "open"
    CLOSED = "closed"
    """Nothing: its node drops what it sends and what it is sent."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A versioned set of policies bound to one scope; only the primary one can be enforced.

    `denied` is for whatever its policies or its catch-all deny.
    """

    name: WorkspaceName
    scope: ScopeName
    primary: bool
    catch_all: CatchAll
    clusters: tuple[Cluster, ...]
    policies: tuple[Policy, ...]
    denied: Denied = Denied.DROP
    new_pods: NewPods = NewPods.OPEN

    def __post_init__(self) -> None:
        policies: list[str] = [policy.id for policy in self.policies]
        clusters = [cluster.name for cluster in self.clusters]
        for kind, names in (("policy", policies), ("cluster", clusters)):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise InputError(f"workspace {self.name!r} has {kind} {twice[0]!r} twice")
