"""The evaluator and the oracle agree on everything they say, whatever the world and the policies.

Each world is tried with CONNECTIONS connections.
"""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.ids import (
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
from ringfence.model.protocol import ICMP, TCP, UDP, PortRange
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import Query, parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import Enforced, PolicySet

CONNECTIONS = 20

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
PORTS = [80, 443, 8079, 27017, 31095]
CLUSTERS = [ClusterId("east"), ClusterId("west")]
OUTSIDE = [parse_address(text) for text in ("203.0.113.9", "2001:db8::9")]


@st.composite
def pods_and_nodes(draw: st.DrawFn) -> list[Item]:
    items = []
    for number, cluster in enumerate(CLUSTERS):
        for node in ("n1", "n2"):
            gateway, own = f"10.{number}.{node[1]}.1", f"192.168.{number}.{node[1]}"
            addresses = (parse_address(own), parse_address(gateway))
            items.append(item(ItemKind.NODE, cluster, node, addresses, draw(labels)))
            for pod in range(2, 4):
                host_network = draw(st.sampled_from([False, False, True]))
                given = f"10.{number}.{node[1]}.{pod}", f"fd0{number}::{node[1]}:{pod}"
                held = addresses if host_network else tuple(map(parse_address, given))
                name = f"{node}-p{pod}"
                items.append(
                    item(ItemKind.POD, cluster, name, held, draw(labels), node, host_network)
                )
    for number in range(2):
        address = parse_address(f"172.16.0.{number}")
        items.append(item(ItemKind.HOST, ClusterId(""), f"h{number}", (address,), draw(labels)))
    return items


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
                ServicePort(f"p{port}", draw(protocols), port, draw(st.sampled_from([0, 31095])))
                for port in draw(
                    st.lists(st.sampled_from(PORTS[:3]), unique=True, min_size=1, max_size=2)
                )
            )
            backends = tuple(
                Backend(
                    port.name,
                    port.protocol,
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
            spec = ServiceSpec(ServiceType.NODE_PORT, ports, backends, external)
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


def provider_ends(tree: ScopeTree) -> st.SearchStrategy[End]:
    service = st.builds(
        ServiceEnd,
        st.just("shop"),
        st.sampled_from(["carts", "front-end", "front-end", "gone"]),
        st.sampled_from(["", "east"]),
    )
    return st.booleans().flatmap(lambda named: service if named else consumer_ends(tree))


def consumer_ends(tree: ScopeTree) -> st.SearchStrategy[End]:
    networks = st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple)
    return st.one_of(
        st.just(CidrEnd((NETWORKS[0], NETWORKS[1]))),
        st.builds(OwnNodeEnd),
        st.builds(ScopeEnd, st.sampled_from([scope.name for scope in tree.preorder()])),
        st.builds(ClusterEnd, st.sampled_from(["c0", "c1"])),
        st.builds(FilterEnd, st.sampled_from(QUERIES)),
        st.builds(CidrEnd, networks, networks),
        st.builds(FqdnEnd, st.just("example.org")),
        st.builds(OwnNodeEnd),
    )


@st.composite
def policies(draw: st.DrawFn, tree: ScopeTree, number: int) -> Policy:
    protocol = draw(st.sampled_from([None, None, TCP, TCP, UDP, ICMP]))
    first = draw(st.sampled_from(PORTS))
    ports = draw(st.sampled_from([(), (), (PortRange(first, first),), (PortRange(first, 65535),)]))
    return Policy(
        PolicyId(f"p{number}"),
        draw(consumer_ends(tree)),
        draw(provider_ends(tree)),
        protocol,
        ports if protocol in (TCP, UDP) else (),
        draw(actions),
        draw(st.sampled_from(Rank)),
        draw(st.integers(1, 3)),
    )


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
        for number in range(draw(st.integers(0, 2)))
    ]


@st.composite
def connections(draw: st.DrawFn, items: list[Item]) -> Connection:
    """Ones between anybody, ones to a backend by every way there is, and ones of no sense."""
    held = [address for one in items for address in one.addresses] + OUTSIDE
    pods = [one for one in items if one.kind is ItemKind.POD]
    nodes = {(one.cluster, one.name): one for one in items if one.kind is ItemKind.NODE}
    address, port = st.sampled_from(held), st.sampled_from(PORTS)
    node = st.sampled_from([one.addresses[0] for one in nodes.values()])
    protocol, consumer = draw(protocols | st.just(ICMP)), draw(address)
    if draw(st.integers(0, 3)) == 0:
        pod = draw(st.sampled_from(pods))
        probe = nodes[pod.cluster, pod.node].addresses[0], pod.addresses[0], draw(port)
        anybody = consumer, draw(address), draw(port)
        mine, its, at = draw(st.sampled_from([probe, anybody]))
        return Connection(protocol, mine, its, at, its, at)
    ways = [
        (one, spec, front, backend)
        for one in items
        if (spec := one.service)
        for front in spec.ports
        for backend in spec.backends
        if backend.service_port == front.name
    ]
    service, spec, front, backend = draw(st.sampled_from(ways))
    reached = backend.address, backend.port
    match draw(st.sampled_from(["direct", "service", "received", "odd"])):
        case "direct":
            return Connection(backend.protocol, consumer, *reached, *reached)
        case "service":
            dialled = draw(st.sampled_from([*service.addresses, *spec.external_addresses]))
            return Connection(front.protocol, consumer, *reached, dialled, front.port)
        case "received":
            receiver = draw(node)
            outer = [(external, front.port) for external in spec.external_addresses]
            dialled, at = draw(st.sampled_from([(receiver, front.node_port), *outer]))
            return Connection(front.protocol, consumer, *reached, dialled, at, receiver)
        case _:
            dialled, at, receiver_or_none = draw(address), draw(port), draw(st.none() | node)
            return Connection(protocol, consumer, *reached, dialled, at, receiver_or_none)


@given(st.data())
def test_evaluator_and_explanation_agree_with_the_oracle(data: st.DataObject) -> None:
    workloads = data.draw(pods_and_nodes())
    pods = [one for one in workloads if one.kind is ItemKind.POD]
    items = workloads + data.draw(services(pods))
    tree = data.draw(trees())
    bound, apart = data.draw(enforced(tree)), data.draw(quarantines())
    asked = data.draw(st.lists(connections(items), min_size=CONNECTIONS, max_size=CONNECTIONS))

    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    policy_set = PolicySet(snapshot, tree, bound, apart)
    assert policy_set.rules == PolicySet(snapshot, tree, bound[::-1], apart[::-1]).rules
    columns = tabulate(snapshot, asked)
    verdicts = evaluate(policy_set, columns)
    oracle = Oracle(items, tree, bound, apart)
    for row, connection in enumerate(asked):
        expected = oracle.judge(connection)
        assert explain([policy_set], columns, row) == expected
        assert bool(verdicts.allowed[row]) is expected.allowed
        places = {end.role: end.deciding.place for end in expected.ends if end.deciding}
        for role in EndRole:
            assert verdicts.deciding(role)[row] == places.get(role, -1)
