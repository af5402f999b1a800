"""Clusters with equal networks: rules mean nobody by the address of another cluster's pod."""

from dataclasses import replace

import pytest

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import format_address, parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.protocol import TCP
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import compile_policies
from ringfence.policy.hypothetical import hypothetical
from ringfence.policy.listed import Listing, listed
from ringfence.policy.notes import overlaps
from tests.golden.shop import ITEMS, allow, app, policy_set

FAR = ClusterId("far")
TO_CARTS = allow("carts", app("front-end"), app("carts"), 8081)
BY_NAME = {one.name: one for one in ITEMS if one.kind is ItemKind.POD}


def far(name: str, like: Item, at: Item) -> Item:
    """A pod of the far cluster with the labels of one pod here, at another's addresses."""
    key = item_key(FAR, ItemKind.POD, name)
    return replace(like, key=key, cluster=FAR, name=name, addresses=at.addresses, node="far-node")


FAR_NODE = next(one for one in ITEMS if one.kind is ItemKind.NODE)
FAR_NODE = replace(
    FAR_NODE,
    key=item_key(FAR, ItemKind.NODE, "far-node"),
    cluster=FAR,
    name="far-node",
    pod_networks=(parse_network("10.244.0.0/16"),),
)
FAR_PODS = [
    far("far-front", BY_NAME["front-end"], BY_NAME["payment"]),
    far("far-carts", BY_NAME["carts"], BY_NAME["front-end"]),
]


def listing(name: str) -> Listing:
    held = policy_set(TO_CARTS, items=[*ITEMS, FAR_NODE, *FAR_PODS])
    (at,) = (at for at, one in enumerate(held.snapshot.items)
             if one.name == name and one.kind is ItemKind.POD)  # fmt: skip
    return listed(held.snapshot, compile_policies(held, ()), at)


@pytest.mark.parametrize(
    ("name", "hook", "peer"),
    [
        ("carts", "input", "sock-shop/front-end"),
        ("front-end", "output", "sock-shop/carts"),
        ("far-carts", "input", "sock-shop/far-front"),
        ("far-front", "output", "sock-shop/far-carts"),
    ],
)
def test_a_rule_names_those_who_are_there(name: str, hook: str, peer: str) -> None:
    peers = [one.peers for one in listing(name).rules if one.hook == hook and one.rule.ports]
    assert {names for one in peers if one for names in one.first} == {peer}


def test_clusters_with_pod_networks_in_common_are_told() -> None:
    blocks = {"east": "10.1.0.0/16", "west": "10.1.4.0/24", "far": "10.2.0.0/24"}
    nodes = [
        replace(FAR_NODE, cluster=ClusterId(name), pod_networks=(parse_network(block),))
        for name, block in blocks.items()
    ]
    (told,) = overlaps(nodes)
    assert told.startswith("Kubernetes clusters east and west have pod networks in common, such as")
    assert "10.1.4.0/24" in told
    assert not [*overlaps([nodes[0], nodes[0], nodes[2]])]


def test_an_address_that_two_clusters_hold_needs_a_name() -> None:
    items = [BY_NAME["payment"], BY_NAME["front-end"], *FAR_PODS]
    snapshot = Snapshot((RevisionId(n), one) for n, one in enumerate(items, 1))
    address, payment = (
        format_address(BY_NAME[name].addresses[0]) for name in ("front-end", "payment")
    )
    with pytest.raises(InputError, match="name the one that you mean"):
        hypothetical(snapshot, address, payment, TCP, 80)
    for name, home in (("sock-shop/payment", "payment"), ("sock-shop/far-front", "far-front")):
        found, _ = hypothetical(snapshot, name, address, TCP, 80)
        (consumer,), (provider,) = found.consumer_item.tolist(), found.provider_item.tolist()
        assert provider != NOWHERE
        assert snapshot.items[consumer].name == home
        assert snapshot.items[provider].cluster == snapshot.items[consumer].cluster


def sets_of(items: list[Item], node: str) -> set[str]:
    """The addresses in the sets of a node's rules."""
    policies = compile_policies(policy_set(TO_CARTS, items=items), ()).policies
    held = (block for key, one in policies.items() if key[1] == node for block in one.sets.values())
    return {str(block) for blocks in held for block in blocks}


def test_an_address_of_two_pods_of_another_cluster_is_theirs() -> None:
    """One has ended, and the news of that is still to come."""
    routed = replace(BY_NAME["carts"], addresses=(parse_address("10.8.0.5"),))
    pods = [far(name, BY_NAME["carts"], routed) for name in ("far-old", "far-new")]
    assert "10.8.0.5/32" in sets_of([*ITEMS, replace(FAR_NODE, pod_networks=()), *pods], "node1")


@pytest.mark.parametrize("others", [[], [FAR_NODE, *FAR_PODS]])
def test_a_host_in_the_own_pod_network_is_a_host(others: list[Item]) -> None:
    """Networks may be told that the pods' own plugin does without."""
    told = (parse_network("10.244.0.0/16"),)
    ours = [replace(one, pod_networks=told) if one.kind is ItemKind.NODE else one for one in ITEMS]
    host = replace(
        BY_NAME["carts"], key=item_key(ClusterId(""), ItemKind.HOST, "h1"), kind=ItemKind.HOST,
        cluster=ClusterId(""), namespace="", name="h1", node="",
        addresses=(parse_address("10.244.9.9"),),
    )  # fmt: skip
    assert "10.244.9.9/32" in sets_of([*ours, host, *others], "node1")
