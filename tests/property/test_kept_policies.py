"""Whatever changes in a cluster, its policies are brought to the bytes that a full compile gives.

As `test_compiler`, of worlds where Kubernetes' policies alone are enforced, of all kinds and
speaking of all that they may speak of. Changes are of policies, pods, namespaces, labels, ports
and Services.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.control.compilation import Standing, compile_nodes
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import News
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId, item_key
from ringfence.model.labels import LABEL_PREFIX, make_labels
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.protocol import TCP, UDP
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)
from tests.property.policy_world import CLUSTERS, MOMENT, World, _Digits, item, worlds
from tests.property.test_compiler import (
    ADDRESSES,
    LABELS,
    SURROUNDINGS,
    Changing,
    backends,
    fronts,
    goes,
    moved,
    relabelled,
)

EAST = CLUSTERS[0]
SPACES = ["shop", "other"]
SELECTORS: list[dict[str, object]] = [
    {},
    {"matchLabels": {"app": "a"}},
    {"matchLabels": {"app": "b"}},
    {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]},
    {"matchExpressions": [{"key": "env", "operator": "Exists"}]},
    {"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]},
]
"""Of pods, namespaces and nodes."""
PORTS: list[dict[str, object]] = [
    {"port": "web"}, {"port": "dns", "protocol": "UDP"},
    {"port": 80}, {"port": 79, "endPort": 8080},
]  # fmt: skip
BLOCKS: list[dict[str, object]] = [
    {"cidr": "10.0.0.0/16"}, {"cidr": "0.0.0.0/0", "except": ["10.0.1.0/28"]},
]  # fmt: skip


def network_policy(digits: _Digits) -> tuple[str, str, dict[str, object]]:
    """Its API version, kind and specification."""
    rules: dict[str, list[object]] = {"from": [], "to": []}
    for field in digits.choose([("from",), ("to",), ("from", "to"), ()]):
        peers = [
            {"podSelector": digits.choose(SELECTORS)},
            {"namespaceSelector": digits.choose(SELECTORS)},
            {
                "namespaceSelector": digits.choose(SELECTORS),
                "podSelector": digits.choose(SELECTORS),
            },
            {"ipBlock": digits.choose(BLOCKS)},
        ]
        one: dict[str, object] = {field: [digits.choose(peers), digits.choose(peers)]}
        chosen = digits.choose([None, *PORTS])
        rules[field].append({**one, **({"ports": [chosen]} if chosen else {})})
    spec: dict[str, object] = {
        "podSelector": digits.choose(SELECTORS),
        "policyTypes": digits.choose([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
        "ingress": rules["from"],
        "egress": rules["to"],
    }
    if digits.choose([False] * 7 + [True]):
        spec["later"] = "a field that nobody knows"
    return "networking.k8s.io/v1", "NetworkPolicy", spec


def cluster_policy(digits: _Digits) -> tuple[str, str, dict[str, object]]:
    """Its API version, kind and specification."""
    space = {
        "pods": {
            "namespaceSelector": digits.choose(SELECTORS),
            "podSelector": digits.choose(SELECTORS),
        }
    }
    ends = [{"namespaces": digits.choose(SELECTORS)}, space]
    outside = [*ends, {"nodes": digits.choose(SELECTORS)}, {"networks": ["10.0.0.0/16"]}]
    named = digits.choose([{}, {"protocols": [{"destinationNamedPort": "web"}]}])
    spec: dict[str, object] = {
        "tier": digits.choose(["Admin", "Baseline"]),
        "priority": digits.choose([1, 1, 2]),
        "subject": digits.choose(ends),
        "ingress": [
            {"action": digits.choose(["Accept", "Deny", "Pass"]), "from": [one], **named}
            for one in digits.choose([[], ends[:1], ends])
        ],
        "egress": [
            {"action": digits.choose(["Deny", "Accept", "Pass"]), "to": [one], **named}
            for one in digits.choose([outside[2:], [], outside])
        ],
    }
    return "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", spec


def said(world: Changing, digits: _Digits) -> None:
    """A policy comes, says something else, or goes and comes again as another object."""
    name, space = digits.choose(["p1", "p2", "p3"]), digits.choose(SPACES)
    version, kind, spec = digits.choose([network_policy, network_policy, cluster_policy])(digits)
    space = "" if kind == "ClusterNetworkPolicy" else space
    key = item_key(EAST, "kubernetes-policy", f"{kind}/{space}/{name}{digits.choose(['', ' '])}")
    manifest = str(PolicyManifest(version, kind, Metadata(name, space), spec))
    of_policy = ItemKind.KUBERNETES_POLICY
    world.put(Item(key, of_policy, EAST, space, name, (), {}, manifest=manifest))


def unsaid(world: Changing, digits: _Digits) -> None:
    if one := world.some(digits, ItemKind.KUBERNETES_POLICY):
        del world.items[one.key]


def spaced(world: Changing, digits: _Digits) -> None:
    """A namespace comes, goes or has other labels."""
    name, cluster = digits.choose(SPACES), digits.choose([EAST, EAST, CLUSTERS[1]])
    key = item_key(cluster, "namespace", name)
    if key in world.items and digits.choose([False, False, True]):
        del world.items[key]
        return
    given = {LABEL_PREFIX + key: value for key, value in digits.choose(LABELS).items()}
    labels = make_labels([("kind", "namespace"), *given.items()])
    # Not `put`, which keeps no label but `app`.
    one = Item(key, ItemKind.NAMESPACE, cluster, "", name, (), labels)
    world.revision += 1
    world.items[key] = RevisionId(world.revision), one


def comes(world: Changing, digits: _Digits) -> None:
    cluster, name = digits.choose([EAST, EAST, CLUSTERS[1]]), digits.choose(["x1", "x2", "x3"])
    given = {LABEL_PREFIX + key: value for key, value in digits.choose(LABELS).items()}
    held, node = (digits.choose(ADDRESSES),), digits.choose(["n1", "n2"])
    one = item(ItemKind.POD, cluster, name, held, {**given, **digits.choose(LABELS)}, node)
    ports = [
        ContainerPort("web", TCP, 80), ContainerPort("web", TCP, 8080),
        ContainerPort("dns", UDP, 53), ContainerPort("web", TCP, 80),
    ]  # fmt: skip
    ports = [digits.choose(ports), digits.choose(ports)]
    space = SPACES[int(name[1]) % 2]  # a pod stays in its namespace for life
    world.put(replace(one, namespace=space, containers=tuple(ports)))


CHANGES: list[Callable[[Changing, _Digits], None]] = [
    said, said, said, said, unsaid, spaced, comes, comes, relabelled, moved, goes, backends, fronts,
]  # fmt: skip
steps = st.lists(
    st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 2**80)), min_size=1, max_size=5),
    min_size=4,
    max_size=9,
)


class Following:
    """What stands compiled of a world, held against a full compile after each change."""

    def __init__(self, world: Changing) -> None:
        self.world = world
        self._standing, self._known = Standing(SURROUNDINGS), dict[ItemKey, object]()

    def follow(self) -> None:
        items, judged_by = self.world.items, self.world.judged_by
        news: News = {
            key: items.get(key)
            for key in self._known.keys() | items.keys()
            if self._known.get(key) is not items.get(key)
        }
        self._known = dict(items)
        stands = self._standing.compile(judged_by, news, MOMENT)
        snapshot = Snapshot(items.values())
        layers = tuple(judged_by.kubernetes(snapshot))
        whole = compile_nodes(judged_by.ringfence(snapshot, MOMENT), SURROUNDINGS, layers)
        assert stands.warnings == whole.warnings
        assert stands.nodes == whole.nodes


@given(worlds(), steps)
def test_kept_policies_are_what_a_full_compile_gives(
    drawn: World, steps: list[list[tuple[Callable[[Changing, _Digits], None], int]]]
) -> None:
    judged_by = JudgedBy(ScopeTree(()), (), live=tuple(CLUSTERS[: 1 + len(steps) % 2]))
    following = Following(Changing({}, judged_by, MOMENT, 0))
    for one in drawn.items:
        following.world.put(one)
    for some in ([], *steps):
        for change, number in some:
            change(following.world, _Digits(number))
        following.follow()


def pod(name: str, address: Address, cluster: ClusterId = EAST) -> Item:
    return item(ItemKind.POD, cluster, name, (address,), {"app": name}, "n1")


def service(**given: Any) -> Item:
    spec = ServiceSpec(
        type=ServiceType.NODE_PORT,
        ports=(ServicePort("", TCP, 80, given.get("node_port", 0)),),
        backends=(Backend("", TCP, ADDRESSES[0], 8080, True, None),),
        external_addresses=(),
        external_traffic_policy=TrafficPolicy.CLUSTER,
    )
    one = item(ItemKind.SERVICE, EAST, "web", (parse_address("10.100.0.9"),), {})
    return replace(one, service=spec)


def of_all(**spec: Any) -> Item:
    said = PolicyManifest(
        "networking.k8s.io/v1", "NetworkPolicy", Metadata("p", "shop"), {"podSelector": {}, **spec}
    )
    key = item_key(EAST, "kubernetes-policy", "p")
    return Item(key, ItemKind.KUBERNETES_POLICY, EAST, "shop", "p", (), {}, manifest=str(said))


WEB_OUTSIDE = of_all(
    policyTypes=["Egress"], egress=[{"to": [{"ipBlock": BLOCKS[0]}], "ports": [{"port": "web"}]}]
)
TO_A = of_all(
    policyTypes=["Egress"], egress=[{"to": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]
)
DECLARING = replace(
    pod("b", ADDRESSES[1]), namespace="other", containers=(ContainerPort("web", TCP, 80),)
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            [WEB_OUTSIDE, pod("a", ADDRESSES[0]), DECLARING],
            replace(DECLARING, containers=(ContainerPort("web", TCP, 8080),)),
            id="a port of a pod that no policy selects, by its name",
        ),
        pytest.param(
            [of_all(ingress=[]), pod("a", ADDRESSES[0]), service(node_port=31095)],
            pod("b", ADDRESSES[0], CLUSTERS[1]),
            id="who holds the address at which a node port is served",
        ),
        pytest.param(
            [TO_A, pod("a", ADDRESSES[1]), pod("b", ADDRESSES[2]), service()],
            pod("a", ADDRESSES[0]),
            id="whether a backend of a Service is one of the peers",
        ),
    ],
)
def test_what_rules_depend_on_without_naming_it(before: list[Item], after: Item) -> None:
    judged_by = JudgedBy(ScopeTree(()), (), live=(EAST,))
    following = Following(Changing({}, judged_by, MOMENT, 0))
    for one in (item(ItemKind.NODE, EAST, "n1", (parse_address("192.168.0.1"),), {}), *before):
        following.world.put(one)
    following.follow()
    following.world.put(after)
    following.follow()
