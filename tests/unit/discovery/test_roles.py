"""Roles by what workloads declare: owners and labels, over versions that come and go."""

from dataclasses import replace
from typing import Any

import pytest

from ringfence.discovery.behaviour import SLOT_NS
from ringfence.discovery.roles import Role, Roles
from ringfence.model import labels
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.policy import Cluster
from ringfence.model.protocol import UDP
from ringfence.model.query import parse
from tests.unit.discovery.world import APPGRAPHS, START, World, graphs, rand_index

SHOP = {
    "name": "shop",
    "workloads": [
        {"id": name, "namespace": "shop", "kind": "Deployment", "labels": own}
        for name, own in (
            ("front-end", {"app": "front-end"}),
            ("carts", {"app": "carts", "tier": "backend"}),
            ("carts-canary", {"app": "carts", "track": "canary"}),
            ("orders", {"role": "orders", "tier": "backend"}),
        )
    ],
    "edges": [
        {"consumer": "front-end", "provider": name, "protocol": "TCP", "port": 80}
        for name in ("carts", "carts-canary", "orders")
    ],
}


def called(found: Roles, name: str) -> Role:
    (role,) = (role for role in found if role.cluster.name == name)
    return role


@pytest.mark.skipif(not APPGRAPHS.exists(), reason=f"no corpus at {APPGRAPHS}")
@pytest.mark.parametrize("graph", graphs(), ids=lambda graph: graph["name"])
def test_every_workload_of_an_application_is_a_role(graph: dict[str, Any]) -> None:
    world = World(graph)
    found, truth = world.roles(), world.truth()
    keys = [item.key for item in world.snapshot.items]
    numbers = [found.numbers[at] for at in range(len(keys))]
    assert rand_index([truth[key] for key in keys], numbers) == 1
    for role in found:
        assert world.snapshot.select(role.cluster.query) & world.snapshot.workloads == role.members
        assert " in (" not in str(role.cluster.query)


def test_queries_say_what_lasts() -> None:
    queries = {role.cluster.name: str(role.cluster.query) for role in World(SHOP).roles()}
    assert queries == {
        name: f'kubernetes.namespace = "shop" and kubernetes.{told}'
        for name, told in (
            ("front-end", 'label.app = "front-end"'),
            ("carts", 'label.app = "carts" and kubernetes.label.tier = "backend"'),
            ("carts-canary", 'label.app = "carts" and kubernetes.label.track = "canary"'),
            ("orders", 'label.role = "orders"'),
        )
    }


def test_candidates_are_offered_with_their_fit() -> None:
    role = called(World(SHOP).roles(), "carts")
    first, *others = role.candidates
    assert first.exact
    assert first.query == role.cluster.query
    (shared,) = (one for one in others if str(one.query).endswith('label.app = "carts"'))
    assert shared.recall == 1
    assert 0 < shared.precision < 1


def test_approved_clusters_stay() -> None:
    approved = Cluster("the-carts", parse('kubernetes.label.app = "carts"'))
    found = World(SHOP).roles([approved])
    assert {role.cluster.name for role in found} == {"the-carts", "front-end", "orders"}
    kept = called(found, "the-carts")
    assert kept.cluster == approved
    assert kept.approved
    assert all(found[found.numbers[position]] is kept for position in kept.members)


def test_the_same_application_in_two_clusters() -> None:
    world = World(SHOP)
    for pod in list(world.pods):
        there = {**pod.item.labels, labels.CLUSTER: ("other",)}
        key = ItemKey(f"other/{pod.item.key}")
        copy = replace(pod.item, key=key, cluster=ClusterId("other"), labels=there)
        world.history.observe(START + pod.begin * SLOT_NS, copy)
    found = world.roles()
    assert len(found) == 8
    role = called(found, "other-shop-orders")
    assert str(role.cluster.query).startswith('kubernetes.cluster = "other" and ')
    assert role.candidates[0].exact


def test_runs_of_a_job_are_one_role() -> None:
    graph = {
        "name": "jobs",
        "edges": SHOP["edges"],
        "workloads": [
            *SHOP["workloads"],
            *(
                {"id": f"backup-2839{run}", "namespace": "shop", "kind": "Job", "labels": {}}
                for run in range(100, 104)
            ),
        ],
    }
    role = called(World(graph).roles(), "backup")
    assert {role.candidates[0].precision, role.candidates[0].recall} == {1}
    assert str(role.cluster.query).endswith('kubernetes.owner.name matches "backup[-.]?[0-9]+"')


def test_members_are_surer_of_their_role_than_of_the_next() -> None:
    found = World(SHOP).roles()
    for role in found:
        assert all(0.5 < found.confidence(position) <= 1 for position in role.members)


@pytest.mark.parametrize("withheld", [True, False])
def test_of_who_did_nothing_but_what_anybody_does_declarations_alone_tell(withheld: bool) -> None:
    idle = {"id": "idle", "namespace": "shop", "kind": "Deployment", "labels": {"app": "idle"}}
    world = World(SHOP | {"workloads": [*SHOP["workloads"], idle]}, withheld=withheld)
    busy = {end for row in world.rows for end in row[:2]}
    resolver = parse_address("10.96.0.250")
    world.rows += [
        (pod.at, resolver, resolver, 53, UDP, 53, START + pod.begin * SLOT_NS + 1, 1)
        for pod in world.of("idle")
    ]
    found = world.roles()
    for pod in world.pods:
        at = world.snapshot.position(pod.item.key)
        assert found.silent(at) == (pod.at not in busy)
        told = pod.at in busy or not withheld
        assert found.confidence(at) == (pytest.approx(0.75, abs=0.25) if told else 0)
