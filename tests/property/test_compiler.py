"""Whatever changes, what stands compiled is brought to the very bytes that a full compile gives.

Its warnings too. Worlds are those of the other laws; each is changed several times, a few things
at once, so that positions are given up and taken again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from ringfence.control.compilation import Standing, compile_nodes
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import News
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.ids import ClusterId, ItemKey, PolicyId, RevisionId, Version, item_key
from ringfence.model.labels import LABEL_PREFIX
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NewPods,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import parse
from ringfence.model.ranges import spans
from ringfence.model.workload import Backend, ContainerPort, Item, ItemKind
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings
from tests.property.policy_world import (
    CLUSTERS,
    LISTED,
    MOMENT,
    QUERIES,
    World,
    _Digits,
    item,
    worlds,
)

SURROUNDINGS = Surroundings(
    ((parse_address("192.0.2.1"), 7443),), NodeAccess((parse_network("192.0.2.0/24"),))
)
ADDRESSES = [
    parse_address(text)
    for text in ("10.0.1.2", "10.0.1.9", "10.1.2.2", "fd00::1:7", "203.0.113.7", "10.100.0.5")
]
LABELS = [{}, {"app": "a"}, {"app": "b"}, {"app": "a", "env": "prod"}, {"env": "test"}]


def manifest(name: str, spec: dict[str, object]) -> Item:
    """A NetworkPolicy of cluster east."""
    key = item_key(CLUSTERS[0], "kubernetes-policy", name)
    written = PolicyManifest("networking.k8s.io/v1", "NetworkPolicy", Metadata(name, "shop"), spec)
    kind, cluster = ItemKind.KUBERNETES_POLICY, CLUSTERS[0]
    return Item(key, kind, cluster, "shop", name, (), {}, manifest=str(written))


MANIFESTS = [
    manifest("closed", {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress"]}),
    manifest(
        "open",
        {
            "podSelector": {},
            "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "b"}}}]}],
            "policyTypes": ["Egress"],
        },
    ),
    manifest(
        "block",
        {
            "podSelector": {},
            "egress": [
                {
                    "to": [{"ipBlock": {"cidr": "10.0.0.0/16"}}],
                    "ports": [{"protocol": "TCP", "port": 8080}],
                }
            ],
            "policyTypes": ["Egress"],
        },
    ),
]


@dataclass
class Changing:
    """A world that changes; `digits` choose what becomes of it."""

    items: dict[ItemKey, tuple[RevisionId, Item]]
    judged_by: JudgedBy
    moment: Moment
    revision: int

    def put(self, one: Item) -> None:
        """The item is so from now on; its labels are Kubernetes' too."""
        self.revision += 1
        told = {k: v for k, v in one.labels.items() if not k.startswith(LABEL_PREFIX)}
        app = {LABEL_PREFIX + "app": told["app"]} if "app" in told else {}
        one = replace(one, labels={**told, **app})
        if one.kind is ItemKind.NODE and one.name == "n1":
            one = replace(one, pod_networks=(parse_network("10.0.0.0/16"),))
        if one.kind is ItemKind.POD:
            one = replace(one, net_admin=one.name.endswith("1"))
        self.items[one.key] = RevisionId(self.revision), one

    def some(self, digits: _Digits, kind: ItemKind) -> Item | None:
        """One of a kind, if there is any."""
        found = sorted(key for key, (_, one) in self.items.items() if one.kind is kind)
        return self.items[digits.choose(found)][1] if found else None


def relabelled(world: Changing, digits: _Digits) -> None:
    kind = digits.choose([ItemKind.POD, ItemKind.POD, ItemKind.HOST, ItemKind.NODE])
    if one := world.some(digits, kind):
        kept = {key: one.labels[key] for key in ("kind", "kubernetes.cluster")}
        chosen = {key: (value,) for key, value in digits.choose(LABELS).items()}
        world.put(replace(one, labels={**kept, **chosen}))


def moved(world: Changing, digits: _Digits) -> None:
    if one := world.some(digits, ItemKind.POD):
        held = (digits.choose(ADDRESSES), *one.addresses[: digits.choose([0, 1])])
        node = digits.choose([one.node, "n1", "n2", "n3"])
        host = digits.choose([False, False, True])
        world.put(replace(one, addresses=held, node=node, host_network=host))


def comes(world: Changing, digits: _Digits) -> None:
    cluster, number = digits.choose(CLUSTERS), digits.choose(range(3))
    name, held = f"new-{number}", (digits.choose(ADDRESSES),)
    chosen = digits.choose(LABELS)
    one = item(ItemKind.POD, cluster, name, held, chosen, digits.choose(["n1", "n2"]))
    world.put(replace(one, containers=digits.choose(containers(world))))


def containers(world: Changing) -> list[tuple[ContainerPort, ...]]:
    return [*(one.containers for _, one in world.items.values())][:6] or [()]


def goes(world: Changing, digits: _Digits) -> None:
    kind = digits.choose([ItemKind.POD, ItemKind.POD, ItemKind.SERVICE, ItemKind.HOST])
    if one := world.some(digits, kind):
        del world.items[one.key]


def node_goes(world: Changing, digits: _Digits) -> None:
    if one := world.some(digits, ItemKind.NODE):
        del world.items[one.key]


def node_comes(world: Changing, digits: _Digits) -> None:
    cluster, name = digits.choose(CLUSTERS), digits.choose(["n1", "n3"])
    held = (parse_address(f"192.168.9.{name[1]}"),)
    world.put(item(ItemKind.NODE, cluster, name, held, digits.choose(LABELS)))


def backends(world: Changing, digits: _Digits) -> None:
    one = world.some(digits, ItemKind.SERVICE)
    if one is None or one.service is None:
        return
    held: list[Address] = [a for _, it in world.items.values() for a in it.addresses]
    chosen = [digits.choose([*held, *ADDRESSES]) for _ in range(digits.choose(range(3)))]
    port = digits.choose(one.service.ports)
    more = tuple(
        Backend(port.name, port.protocol, address, digits.choose([8079, 80]), True, None)
        for address in chosen
    )
    kept = one.service.backends[: digits.choose(range(3))]
    world.put(replace(one, service=replace(one.service, backends=(*kept, *more))))


def fronts(world: Changing, digits: _Digits) -> None:
    one = world.some(digits, ItemKind.SERVICE)
    if one is None or one.service is None:
        return
    ports = tuple(
        replace(port, port=digits.choose([port.port, 8079]), node_port=digits.choose([0, 31095]))
        for port in one.service.ports[: digits.choose([1, 2])]
    )
    external = tuple(digits.choose([(), (parse_address("198.51.100.7"),)]))
    spec = replace(
        one.service,
        ports=ports,
        external_addresses=external,
        balancer_addresses=digits.choose([(), external]),
        source_ranges=digits.choose([(), (parse_network("10.0.0.0/8"),)]),
    )
    world.put(replace(one, service=spec, addresses=digits.choose([(), one.addresses])))


def manifests(world: Changing, digits: _Digits) -> None:
    one = digits.choose(MANIFESTS)
    if one.key in world.items:
        del world.items[one.key]
    else:
        world.put(one)


def told(world: Changing, digits: _Digits) -> None:
    chosen = (digits.choose(ADDRESSES) for _ in range(digits.choose([0, 2])))
    answers = {"example.org": frozenset(chosen)}
    world.moment = replace(world.moment, names=answers)


def listed(world: Changing, digits: _Digits) -> None:
    block = parse_network(digits.choose(["10.0.1.0/28", "203.0.113.0/24", "10.1.0.0/16"]))
    world.moment = replace(world.moment, sets={**world.moment.sets, LISTED: spans([block])})


def later(world: Changing, digits: _Digits) -> None:
    world.moment = replace(world.moment, at_ns=digits.choose([0, 1, 2]))


def quarantined(world: Changing, digits: _Digits) -> None:
    query, since = digits.choose(QUERIES), digits.choose([0, 1])
    one = Quarantine(ClusterId(""), "q", query, ("dns", "probes"), "", "", since)
    held = digits.choose([(), (one,)])
    world.judged_by = replace(world.judged_by, quarantines=held)


def written(world: Changing, digits: _Digits) -> None:
    (one, version), *others = world.judged_by.workspaces
    catch_all = CatchAll(digits.choose([Action.ALLOW, Action.DENY]), Action.DENY)
    new_pods = digits.choose(list(NewPods))
    fresh = replace(one, catch_all=catch_all, policies=one.policies[::-1], new_pods=new_pods)
    pairs = ((fresh, Version(version + 1)), *others)
    world.judged_by = replace(world.judged_by, workspaces=pairs)


OF_ITEMS: list[Callable[[Changing, _Digits], None]] = [
    relabelled, moved, comes, goes, backends, fronts, manifests,
]  # fmt: skip
CHANGES = [*OF_ITEMS, *OF_ITEMS, *OF_ITEMS, told, told, listed, listed, later, quarantined]
CHANGES += [written, node_goes, node_comes]
Step = tuple[Callable[[Changing, _Digits], None], int]
steps = st.lists(
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 2**40)), min_size=1, max_size=3),
    min_size=3,
    max_size=6,
)


def speaking(one: Workspace) -> Workspace:
    """The workspace with policies besides that depend on what few others do."""
    everyone, all_of = CidrEnd((parse_network("0.0.0.0/0"),)), ScopeEnd(one.scope)
    ends: list[tuple[End, End]] = [
        (OutsideEnd(), all_of),
        (all_of, FqdnEnd("example.org")),
        (OwnNodeEnd(), everyone),
        (all_of, ServiceEnd("shop", "carts")),
        (all_of, FilterEnd(parse('kind = "node"'))),
        (everyone, everyone),
        (all_of, CidrEnd((parse_network("198.51.100.0/24"),))),
        (OwnNodeEnd(), ServiceEnd("shop", "gone")),
        (all_of, ServiceEnd("shop", "gone")),
        (all_of, OwnNodeEnd()),
    ]
    ports = [(), (PortRange(8080, 8080),)]
    more = tuple(
        Policy(PolicyId(f"m{at}-{action}-{len(said)}"), *pair, TCP, said, action, Rank.ABSOLUTE, 1)
        for at, pair in enumerate(ends)
        for said in ports
        for action in (Action.ALLOW, Action.DENY)
    )
    return replace(one, policies=(*one.policies, *more))


@given(
    worlds(),
    st.sampled_from([(), (), (CLUSTERS[0],)]),
    steps,
    st.lists(st.sampled_from(NewPods), min_size=10),
)
def test_what_stands_is_what_a_full_compile_gives(
    drawn: World, live: tuple[ClusterId, ...], steps: list[list[Step]], new_pods: list[NewPods]
) -> None:
    (first, version), *others = drawn.enforced
    enforced = tuple(
        (replace(one, new_pods=choice), its)
        for (one, its), choice in zip([(speaking(first), version), *others], new_pods, strict=False)
    )
    judged_by = JudgedBy(drawn.tree, enforced, (), tuple(drawn.quarantines), live)
    world = Changing({}, judged_by, replace(MOMENT, at_ns=0), 0)
    for one in drawn.items:
        world.put(one)
    standing, known = Standing(SURROUNDINGS), dict[ItemKey, tuple[RevisionId, Item]]()
    for some in ([], *steps):
        for change, number in some:
            change(world, _Digits(number))
        news: News = {
            key: world.items.get(key)
            for key in known.keys() | world.items.keys()
            if known.get(key) is not world.items.get(key)
        }
        known = dict(world.items)
        stands = standing.compile(world.judged_by, news, world.moment)
        snapshot = Snapshot(world.items.values())
        policy_set = world.judged_by.ringfence(snapshot, world.moment)
        layers = tuple(world.judged_by.kubernetes(snapshot))
        whole = compile_nodes(policy_set, SURROUNDINGS, layers)
        assert stands.warnings == whole.warnings
        assert stands.nodes.keys() == whole.nodes.keys()
        for node, policy in whole.nodes.items():
            assert stands.nodes[node] == policy, node
