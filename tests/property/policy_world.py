"""Random worlds for the laws of policy: an inventory, a scope tree, enforced workspaces, and
connections between all that is in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.address_set import parse_range
from ringfence.model.ids import (
    AddressSetName,
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    SPOKEN,
    AddressSetEnd,
    CatchAll,
    CidrEnd,
    Cluster,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import ICMP, TCP, UDP, Port, PortName, PortRange
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import Query, parse
from ringfence.model.ranges import union
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.connection import Connection
from ringfence.policy.moment import Moment
from ringfence.policy.order import Enforced, PolicySet

CONNECTIONS = 250
"""Tried in each world."""

QUERIES: list[Query] = [
    parse(text)
    for text in (
        "everything",
        'app = "a"',
        'app = "b"',
        'app != "a"',
        'env in ("prod", "test")',
        'env = "prod" and app exists',
        'kind = "node"',
        'kind = "pod" or kind = "host"',
        'not kubernetes.cluster = "east"',
    )
]
NETWORKS = [
    parse_network(text)
    for text in ("0.0.0.0/0", "::/0", "10.1.0.0/16", "10.0.0.0/8", "10.1.1.2", "fd00::/64", "::/1")
]
SOURCE_RANGES = [
    parse_network(text) for text in ("10.0.0.0/8", "203.0.113.0/24", "0.0.0.0/0", "2001:db8::/32")
]
PORTS = [80, 443, 8079, 27017, 31095]
CLUSTERS = [ClusterId("east"), ClusterId("west")]
LISTED, EMPTY = AddressSetName("listed"), AddressSetName("empty")
MOMENT = Moment(
    sets={
        LISTED: union(map(parse_range, ("10.1.1.2-10.1.2.2", "203.0.113.0/24", "fd00::1:0/112"))),
        EMPTY: (),
    }
)
"""What address sets hold in every world."""
T = TypeVar("T")
OUTSIDE = [parse_address(text) for text in ("203.0.113.9", "2001:db8::9")]


@st.composite
def pods_and_nodes(draw: st.DrawFn, shared: bool = True, equal: bool = False) -> list[Item]:
    """Of two Kubernetes clusters, whose pod networks may be `equal`."""
    items = []
    for number, cluster in enumerate(CLUSTERS):
        for node in ("n1", "n2"):
            net = 0 if equal else number
            gateway, own = f"10.{net}.{node[1]}.1", f"192.168.{number}.{node[1]}"
            addresses = (parse_address(own), parse_address(gateway))
            one = item(ItemKind.NODE, cluster, node, addresses, draw(labels))
            blocks = (f"10.{net}.{node[1]}.0/24", f"fd0{net}::{node[1]}:0/112") if equal else ()
            items.append(replace(one, pod_networks=tuple(map(parse_network, blocks))))
            for pod in range(2, 4):
                host_network = draw(st.sampled_from([False, False, True]))
                given = f"10.{net}.{node[1]}.{pod}", f"fd0{net}::{node[1]}:{pod}"
                held = addresses if host_network else tuple(map(parse_address, given))
                name = f"{node}-p{pod}"
                one = item(ItemKind.POD, cluster, name, held, draw(labels), node, host_network)
                items.append(replace(one, containers=draw(containers)))
    for number in range(2):
        address = parse_address(f"172.16.0.{number}")
        others = draw(st.sampled_from([(), (), items[1].addresses[:1]])) if shared else ()
        held = (address, *others)
        items.append(item(ItemKind.HOST, ClusterId(""), f"h{number}", held, draw(labels)))
    return items


containers = st.sampled_from(
    [(ContainerPort("http", TCP, 80),), (ContainerPort("http", TCP, 8079),), ()]
)
labels = st.fixed_dictionaries(
    {}, optional={"app": st.sampled_from("ab"), "env": st.sampled_from(["prod", "test", "dev"])}
)


def item(
    kind: ItemKind,
    cluster: ClusterId,
    name: str,
    addresses: tuple[Address, ...],
    given: dict[str, str],
    node: str = "",
    host_network: bool = False,
) -> Item:
    labelled = make_labels([("kind", kind), ("kubernetes.cluster", cluster), *given.items()])
    key = item_key(cluster, kind, name)
    return Item(key, kind, cluster, "shop", name, addresses, labelled, node, host_network)


@st.composite
def services(draw: st.DrawFn, pods: list[Item]) -> list[Item]:
    found = []
    for number, cluster in enumerate(CLUSTERS):
        for name in ("carts", "front-end"):
            ports = tuple(
                ServicePort(
                    "http" if port == PORTS[0] else f"p{port}",
                    draw(protocols),
                    port,
                    draw(st.sampled_from([0, 31095])),
                )
                for port in draw(
                    st.lists(st.sampled_from(PORTS[:3]), unique=True, min_size=1, max_size=2)
                )
            )
            backends = tuple(
                Backend(
                    port.name,
                    # Its slice may be written by hand, and say something else than the Service.
                    draw(st.sampled_from([port.protocol, port.protocol, UDP])),
                    pod.addresses[0],
                    8079,
                    draw(st.booleans()),
                    pod.key,
                )
                for port in ports
                for pod in draw(st.lists(st.sampled_from(pods[:3]), min_size=1, max_size=2))
            )
            fronts = (parse_address(f"10.100.{number}.{len(name)}"),)
            external = draw(st.sampled_from([(), (parse_address(f"198.51.100.{number}"),)]))
            balanced = draw(st.booleans())
            spec = ServiceSpec(
                ServiceType.LOAD_BALANCER,
                ports,
                backends,
                external,
                balancer_addresses=external if balanced else (),
                source_ranges=tuple(
                    draw(st.lists(st.sampled_from(SOURCE_RANGES), unique=True, max_size=2))
                ),
            )
            key = item_key(cluster, "service", name)
            found.append(
                Item(
                    key,
                    ItemKind.SERVICE,
                    cluster,
                    "shop",
                    name,
                    fronts,
                    make_labels([("kind", "service"), ("app", "a")]),
                    service=spec,
                )
            )
    return found


protocols = st.sampled_from([TCP, TCP, UDP])


@st.composite
def trees(draw: st.DrawFn) -> ScopeTree:
    """Up to nine scopes, four deep."""
    scopes = [Scope(ScopeName("s0"), None, parse("everything"))]
    depth = {scopes[0].name: 1}
    for number in range(1, draw(st.integers(1, 9))):
        parent = draw(st.sampled_from([scope for scope in scopes if depth[scope.name] < 4]))
        name = ScopeName(f"s{number}")
        depth[name] = depth[parent.name] + 1
        query, order = draw(st.sampled_from(QUERIES)), draw(st.integers(0, 2))
        scopes.append(Scope(name, parent.name, query, order))
    return ScopeTree(scopes)


def policies(tree: ScopeTree, number: int) -> st.SearchStrategy[Policy]:
    """Policies out of numbers, which are far quicker to draw than their parts."""
    return st.integers(0, 2**60).map(lambda drawn: _policy(tree, number, _Digits(drawn)))


def _policy(tree: ScopeTree, number: int, digits: "_Digits") -> Policy:
    action, rank = digits.choose(SPOKEN), digits.choose(list(Rank))
    priority, protocol = (
        1 + digits.choose(range(3)),
        digits.choose([None, None, TCP, TCP, UDP, ICMP]),
    )
    first, ports = digits.choose(PORTS), digits.choose(["all", "all", "one", "from"])
    spans: dict[str, tuple[Port, ...]] = {
        "all": (),
        "one": (PortRange(first, first),),
        "from": (PortRange(first, 65535),),
    }
    consumer, provider = _consumer(tree, digits), _provider(tree, digits)
    if isinstance(provider, ScopeEnd | ClusterEnd | FilterEnd | ServiceEnd):
        spans["one"] = digits.choose([spans["one"], (PortName("http"),)])
    return Policy(
        PolicyId(f"p{number}"),
        consumer,
        provider,
        protocol,
        spans[ports] if protocol in (TCP, UDP) else (),
        action,
        rank,
        priority,
        expires_ns=digits.choose([None, None, 1, 2]),
    )


def _provider(tree: ScopeTree, digits: "_Digits") -> End:
    if digits.choose([True, False]):
        return _consumer(tree, digits)
    name = digits.choose(["carts", "front-end", "front-end", "gone"])
    return ServiceEnd("shop", name, digits.choose(["", "east"]))


def _consumer(tree: ScopeTree, digits: "_Digits") -> End:
    match digits.choose(
        ["all", "own", "scope", "cluster", "filter", "blocks", "name", "own", "set"]
    ):
        case "all":
            return CidrEnd((NETWORKS[0], NETWORKS[1]))
        case "own":
            return OwnNodeEnd()
        case "set":
            return AddressSetEnd(digits.choose([LISTED, LISTED, EMPTY]))
        case "scope":
            return ScopeEnd(digits.choose(tree.preorder()).name)
        case "cluster":
            return ClusterEnd(digits.choose(["c0", "c1"]))
        case "filter":
            return FilterEnd(digits.choose(QUERIES))
        case "blocks":
            blocks, holes = (
                tuple(digits.choose(NETWORKS) for _ in range(digits.choose(range(3))))
                for _ in range(2)
            )
            return CidrEnd(blocks, holes)
        case _:
            return FqdnEnd("example.org")


actions = st.sampled_from(SPOKEN)


@st.composite
def enforced(draw: st.DrawFn, tree: ScopeTree) -> list[Enforced]:
    bound = draw(
        st.lists(st.sampled_from(tree.preorder()), min_size=2, max_size=3).map(enumerate).map(list)
    )
    primaries = {scope.name: number for number, scope in bound}
    return [
        (
            Workspace(
                WorkspaceName(f"w{number}"),
                scope.name,
                primaries[scope.name] == number,
                CatchAll(draw(actions), draw(actions)),
                tuple(Cluster(f"c{n}", draw(st.sampled_from(QUERIES))) for n in range(2)),
                tuple(draw(policies(tree, n)) for n in range(draw(st.integers(2, 5)))),
            ),
            Version(number + 1),
        )
        for number, scope in bound
    ]


@st.composite
def quarantines(draw: st.DrawFn) -> list[Quarantine]:
    """Up to two, which may hold the same workloads and be as old as each other."""
    words = ["dns", "probes", "shop/carts", "10.1.0.0/16", "fd00::/64"]
    return [
        Quarantine(
            ClusterId(""),
            f"q{number}",
            draw(st.sampled_from(QUERIES)),
            tuple(draw(st.lists(st.sampled_from(words), unique=True, max_size=3))),
            "",
            "",
            draw(st.integers(1, 2)),
        )
        for number in range(draw(st.sampled_from([0, 0, 0, 1, 2])))
    ]


@dataclass(frozen=True)
class World:
    """Everything that verdicts depend on."""

    items: list[Item]
    tree: ScopeTree
    enforced: list[Enforced]
    quarantines: list[Quarantine]

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot((RevisionId(number), one) for number, one in enumerate(self.items, 1))

    def policy_set(self, bound: list[Enforced] | None = None) -> PolicySet:
        enforced = self.enforced if bound is None else bound
        return PolicySet(self.snapshot, self.tree, enforced, MOMENT, self.quarantines)


@st.composite
def worlds(draw: st.DrawFn, shared: bool = True, equal: bool = False) -> World:
    """Where an address may be `shared`, two hosts may hold a pod's as well."""
    workloads = draw(pods_and_nodes(shared, equal))
    pods = [one for one in workloads if one.kind is ItemKind.POD]
    items = workloads + draw(services(pods))
    tree = draw(trees())
    return World(items, tree, draw(enforced(tree)), draw(quarantines()))


def numbers(count: int = CONNECTIONS) -> st.SearchStrategy[list[int]]:
    """One for each connection, which is far quicker to draw than its parts."""
    return st.lists(st.integers(0, 2**40), min_size=count, max_size=count)


class Dialling:
    """Makes connections out of numbers: ones between anybody, ones to a backend by every way there
    is, and ones of no sense.
    """

    def __init__(self, items: list[Item]) -> None:
        self._held = [address for one in items for address in one.addresses] + OUTSIDE
        self._pods = [one for one in items if one.kind is ItemKind.POD]
        self._nodes = {(one.cluster, one.name): one for one in items if one.kind is ItemKind.NODE}
        services = [spec for one in items if (spec := one.service)]
        self._external = [address for spec in services for address in spec.external_addresses]
        self._receivers = [node.addresses[0] for node in self._nodes.values()]
        self._ways = [
            (one, spec, front, backend)
            for one in items
            if (spec := one.service)
            for front in spec.ports
            for backend in spec.backends
            if backend.service_port == front.name
        ]

    def connection(self, number: int) -> Connection:
        digits = _Digits(number)
        consumer, protocol = digits.choose(self._held), digits.choose([TCP, TCP, UDP, ICMP])
        service, spec, front, backend = digits.choose(self._ways)
        reached = backend.address, backend.port
        match digits.choose(["plain", "probe", "direct", "service", "received", "odd"]):
            case "plain":
                its, at = digits.choose([*self._held, *self._external]), digits.choose(PORTS)
                return Connection(protocol, consumer, its, at, its, at)
            case "probe":
                pod, at = digits.choose(self._pods), digits.choose(PORTS)
                kubelet, its = self._nodes[pod.cluster, pod.node].addresses[0], pod.addresses[0]
                mine, its = digits.choose([(kubelet, its), (its, kubelet)])
                return Connection(protocol, mine, its, at, its, at)
            case "direct":
                return Connection(backend.protocol, consumer, *reached, *reached)
            case "service":
                dialled = digits.choose([*service.addresses, *spec.external_addresses])
                return Connection(front.protocol, consumer, *reached, dialled, front.port)
            case "received":
                receiver = digits.choose(self._receivers)
                outer = [(external, front.port) for external in spec.external_addresses]
                dialled, at = digits.choose([(receiver, front.node_port), *outer])
                return Connection(front.protocol, consumer, *reached, dialled, at, receiver)
            case _:
                dialled, at = digits.choose(self._held), digits.choose(PORTS)
                some_node = digits.choose([None, *self._receivers])
                return Connection(protocol, consumer, *reached, dialled, at, some_node)


def consumer_ends(tree: ScopeTree) -> st.SearchStrategy[End]:
    return st.integers(0, 2**40).map(lambda number: _consumer(tree, _Digits(number)))


def provider_ends(tree: ScopeTree) -> st.SearchStrategy[End]:
    return st.integers(0, 2**40).map(lambda number: _provider(tree, _Digits(number)))


def connections(items: list[Item]) -> st.SearchStrategy[Connection]:
    """What `Dialling` makes of some number, among these items."""
    return st.integers(0, 2**40).map(Dialling(items).connection)


class _Digits:
    """A number as choices, each a digit of as many values as there are to choose from."""

    def __init__(self, number: int) -> None:
        self._left = number

    def choose(self, among: Sequence[T]) -> T:
        self._left, at = divmod(self._left, len(among))
        return among[at]
