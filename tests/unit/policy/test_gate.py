"""Which pods wait for their rules, and what a node is told of it."""

from dataclasses import replace

import pytest

from ringfence.control.compilation import compile_nodes
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_network
from ringfence.model.ids import ItemKey, RevisionId, ScopeName, Version, WorkspaceName
from ringfence.model.labels import make_labels
from ringfence.model.policy import NewPods, Workspace
from ringfence.model.query import confined, parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.compile import compile_policies
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.nodes import Surroundings
from ringfence.policy.order import PolicySet
from ringfence.policy.program import Gate, decode, encode
from tests.golden.shop import CARTS, DENY_ALL, FRONT_END, NODE1, NODE2, PAYMENT

NETWORKS = (parse_network("10.244.1.0/24"),)
ROOMY = replace(NODE1, pod_networks=NETWORKS)
SHOP = 'kubernetes.namespace = "sock-shop" and '
BOOKS = replace(
    PAYMENT,
    namespace="books",
    labels={**PAYMENT.labels, **make_labels([("kubernetes.namespace", "books")])},
)


def given(query: str, new_pods: NewPods, *items: Item, cluster: str = "c1") -> PolicySet:
    """A workspace over all of a cluster, and one in it over what satisfies the query."""
    root, part = ScopeName("all"), ScopeName("part")
    tree = ScopeTree(
        [
            Scope(root, None, parse(f'kubernetes.cluster = "{cluster}"')),
            Scope(part, root, parse(query)),
        ]
    )
    workspaces = [
        (
            Workspace(WorkspaceName(scope), scope, True, DENY_ALL, (), (), new_pods=choice),
            Version(1),
        )
        for scope, choice in ((root, NewPods.OPEN), (part, new_pods))
    ]
    snapshot = Snapshot((RevisionId(at + 1), item) for at, item in enumerate(items))
    return PolicySet(snapshot, tree, workspaces)


def gate_of(policy_set: PolicySet) -> Gate | None:
    """Node 1's."""
    found = compile_policies(policy_set, ()).policies
    policy = next(policy for (_, name), policy in found.items() if name == "node1")
    assert decode(encode(policy)) == policy
    return policy.gate


@pytest.mark.parametrize(
    ("query", "namespaces", "free"),
    [
        ("everything", None, ()),
        ('kubernetes.namespace in ("sock-shop", "a")', ("a", "sock-shop"), ("payment",)),
        (SHOP + 'kubernetes.label.app = "carts"', ("sock-shop",), ("front-end", "payment")),
        (
            'kubernetes.namespace = "b" or kubernetes.label.app = "front-end"',
            None,
            ("payment",),
        ),
    ],
)
def test_known_pods_of_no_closed_scope_and_other_namespaces_need_not_wait(
    query: str, namespaces: tuple[str, ...] | None, free: tuple[str, ...]
) -> None:
    unaddressed = replace(CARTS, node="node1", addresses=())
    host = replace(CARTS, key=ItemKey("c1/pod/host"), node="node1", host_network=True)
    policy_set = given(query, NewPods.CLOSED, ROOMY, FRONT_END, BOOKS, unaddressed, host)
    assert gate_of(policy_set) == Gate(NETWORKS, namespaces, free)


def test_there_is_no_gate_where_no_scope_is_closed_or_none_of_the_cluster() -> None:
    assert gate_of(given("everything", NewPods.OPEN, ROOMY)) is None
    assert gate_of(given("everything", NewPods.CLOSED, ROOMY, cluster="c2")) is None


def _warnings(policy_set: PolicySet) -> tuple[str, ...]:
    return compile_nodes(policy_set, Surroundings((), NodeAccess())).warnings


def test_a_node_whose_pods_have_no_known_addresses_is_told_of() -> None:
    policy_set = given("everything", NewPods.CLOSED, ROOMY, NODE2)
    warnings = _warnings(policy_set)
    told, of_node = (one for one in warnings if "newPods" in one)
    assert told.startswith("newPods: closed of scope part holds back every new pod until")
    confined_to = given('kubernetes.namespace = "shop"', NewPods.CLOSED, ROOMY)
    assert not [one for one in _warnings(confined_to) if "newPods" in one]
    assert of_node == (
        "newPods: closed does not hold on node node2: its Node object has no podCIDRs, by which"
        " packets of its pods are known"
    )


def test_pods_that_may_change_their_own_rules_are_guarded_and_told_of() -> None:
    policy_set = given(
        "everything", NewPods.OPEN, ROOMY, FRONT_END, replace(PAYMENT, net_admin=True)
    )
    (policy,) = compile_policies(policy_set, ()).policies.values()
    assert {pod.name: pod.guarded for pod in policy.pods} == {"front-end": False, "payment": True}
    warnings = _warnings(policy_set)
    (told,) = (one for one in warnings if one.startswith("NET_ADMIN: "))
    assert told.endswith("(at sock-shop/payment)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('env = "a"', {"a"}),
        ('ENV in ("a", "b") and x = "1"', {"a", "b"}),
        ('env in ("a", "b") and env = "a"', {"a"}),
        ('env = "a" or env = "b" and x = "1"', {"a", "b"}),
        ('env = "a" or x = "1"', None),
        ('not env = "a"', None),
        ('env != "a"', None),
        ('env matches "a"', None),
        ("everything", None),
    ],
)
def test_a_query_confines_a_key_to_values(text: str, expected: set[str] | None) -> None:
    assert confined(parse(text), "env") == expected


def test_a_gate_spares_by_namespace_and_by_pod() -> None:
    gate = Gate(NETWORKS, ("shop",), ("u1",))
    assert [gate.spares(*who) for who in (("shop", "u1"), ("shop", "u2"), ("x", "u2"))] == [
        True, False, True,
    ]  # fmt: skip
    assert not replace(gate, namespaces=None).spares("x", "u2")
