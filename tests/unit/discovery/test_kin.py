"""Workloads that declare nothing: grouped by what they were seen to do."""

from typing import Any

import pytest

from ringfence.discovery.behaviour import SLOT_NS
from ringfence.discovery.roles import Roles
from ringfence.model.address import parse_address
from ringfence.model.protocol import UDP
from tests.unit.discovery.world import APPGRAPHS, SLOTS, START, World, graphs, rand_index

needs_corpus = pytest.mark.skipif(not APPGRAPHS.exists(), reason=f"no corpus at {APPGRAPHS}")


def index(graph: dict[str, Any], direct: float, seed: int = 1) -> float:
    world = World(graph, seed=seed, withheld=True, direct=direct)
    found, truth = world.roles(), world.truth()
    keys = [item.key for item in world.snapshot.items]
    return rand_index([truth[key] for key in keys], found.numbers.tolist())


@needs_corpus
def test_roles_are_found_by_behaviour_alone() -> None:
    """A tenth of the edges have five conversations a day: where these tell, chance does too."""
    found = [index(graph, direct=0) for graph in graphs()]
    assert sum(found) / len(found) >= 0.95


def graph(edges: list[tuple[str, str, int]]) -> dict[str, Any]:
    names = dict.fromkeys(end for edge in edges for end in edge[:2])
    return {
        "name": "made",
        "workloads": [
            {"id": name, "namespace": "made", "kind": "Deployment", "labels": {}} for name in names
        ],
        "edges": [
            {"consumer": consumer, "provider": provider, "protocol": "TCP", "port": port}
            for consumer, provider, port in edges
        ],
    }


BRANCHES = graph(
    [
        ("front", "carts", 80),
        ("front", "orders", 80),
        ("carts", "carts-db", 27017),
        ("orders", "orders-db", 27017),
    ]
)
TWINS = graph(
    [
        ("front", "one", 80),
        ("front", "other", 80),
        ("one", "db", 27017),
        ("other", "db", 27017),
        ("front", "third", 81),
    ]
)


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(("direct", "least"), [(0, 1), (1, 0.85)], ids=["services", "direct"])
def test_branches_that_look_alike_are_told_apart(direct: float, least: float, seed: int) -> None:
    """Each through its own database: the versions of a role are one, two branches are not."""
    world = World(BRANCHES, seed=seed, withheld=True, direct=direct, rare=0)
    assert rand_index(*told(world)) >= least


@pytest.mark.parametrize("seed", range(1, 5))
def test_workloads_with_the_same_neighbours_are_one(seed: int) -> None:
    world = World(TWINS, seed=seed, withheld=True, direct=0, rare=0)
    assert rand_index(*told(world)) == 1


def test_replicas_are_not_yet_all_that_do_the_same() -> None:
    world = World(TWINS, withheld=True, direct=0, rare=0)
    numbers, of = world.roles(judged=False).numbers, world.snapshot.position
    one, other = (
        {int(numbers[of(pod.item.key)]) for pod in world.of(name)} for name in ("one", "other")
    )
    assert not one & other


@pytest.mark.parametrize("every", [2, 24])
@pytest.mark.parametrize("seed", range(1, 5))
def test_runs_of_a_job_are_no_replicas_of_who_asks_the_same_provider(seed: int, every: int) -> None:
    """A run alone might be a replica that was seen shortly; all of them together might not."""
    asks = graph([("front", "carts", 80), ("front", "orders", 80), ("cleanup", "carts", 80)])
    for workload in asks["workloads"]:
        workload["kind"] = "CronJob" if workload["id"] == "cleanup" else "Deployment"
        workload["every"] = every
    world = World(asks, seed=seed, withheld=True, direct=0, rare=0)
    busy = {row[0] for row in world.rows} | {row[1] for row in world.rows}
    numbers, of = world.roles().numbers, world.snapshot.position
    pairs = [(pod.workload, int(numbers[of(pod.item.key)])) for pod in world.pods if pod.at in busy]
    assert rand_index(*zip(*pairs, strict=True)) == 1


def test_who_asks_for_names_all_day_was_there_all_day() -> None:
    """So what it was not seen to do in that time it does not do."""
    asks = graph([("front", "carts", 80), ("front", "orders", 80), ("seldom", "carts", 80)])
    world = World(asks, withheld=True, direct=0, rare=0)
    seldom = {pod.at for pod in world.of("seldom")}
    resolver = world.address()
    first = {at: min((row[6] for row in world.rows if row[0] == at), default=0) for at in seldom}
    world.rows = [row for row in world.rows if first.get(row[0], row[6]) == row[6]]
    world.rows += [
        (pod.at, resolver, resolver, 53, UDP, 53, START + slot * SLOT_NS + 1, 1)
        for pod in world.of("seldom")
        for slot in range(pod.begin, pod.end)
    ]
    numbers, of = world.roles().numbers, world.snapshot.position
    front, other = (
        {int(numbers[of(pod.item.key)]) for pod in world.of(name)} for name in ("front", "seldom")
    )
    assert not front & other


@pytest.mark.parametrize("seed", range(1, 5))
def test_what_an_intruder_does_parts_nobody(seed: int) -> None:
    """Neither the replica that it holds, nor whoever answered it."""
    world = World(BRANCHES, seed=seed, withheld=True, direct=0, rare=0)
    pod = next(pod for pod in world.of("carts") if pod.end - pod.begin > SLOTS // 4)
    for at, (other, port) in enumerate(
        [("front", 22), ("front", 9000), ("orders", 80), ("orders-db", 27017), ("carts-db", 22)]
    ):
        there = next(one for one in world.of(other) if one.begin <= pod.begin < one.end)
        slots = range(pod.begin + 9 * at, pod.begin + 9 * at + 6, 2)
        world.dial(pod, there, port, *slots)
    assert rand_index(*told(world, world.judged())) == 1


@pytest.mark.parametrize("seed", range(1, 5))
def test_an_edge_of_a_few_conversations_parts_workloads(seed: int) -> None:
    """Those behind different Services are no replicas, so that chance may not have made it."""
    world = World(TWINS, seed=seed, withheld=True, direct=0, rare=0)
    (db, *_), pods = world.of("db"), [pod for pod in world.of("one") if pod.end == SLOTS]
    for at, pod in enumerate(pods[:2]):
        world.dial(pod, db, 27018, pod.end - 3 - at, pod.end - 9 - at)
    numbers, of = world.judged().numbers, world.snapshot.position
    one, other = (
        {int(numbers[of(pod.item.key)]) for pod in world.of(name)} for name in ("one", "other")
    )
    assert len(one) == len(other) == 1
    assert one != other


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("port", [5672, 25672], ids=["as others", "of their own"])
def test_members_that_talk_among_themselves_are_one(seed: int, port: int) -> None:
    """Each has other neighbours than the rest; the first is never called, the last never calls."""
    world = World(graph([("front", "broker", 5672)]), seed=seed, withheld=True, direct=0, rare=0)
    pods = world.of("broker")
    for at, one in enumerate(pods):
        for other in pods[at + 1 :]:
            both = range(max(one.begin, other.begin), min(one.end, other.end))
            world.dial(one, other, port, *both)
    assert rand_index(*told(world)) == 1


@pytest.mark.parametrize("seed", range(1, 5))
def test_who_dials_past_a_service_has_the_neighbour_behind_it(seed: int) -> None:
    world = World(TWINS, seed=seed, withheld=True, direct=0, rare=0)
    past = {pod.at for pod in world.of("other")}
    world.rows = [
        (first, provider, provider, port, protocol, port, *rest) if first in past else row
        for row in world.rows
        for first, provider, _, _, protocol, port, *rest in [row]
    ]
    assert rand_index(*told(world)) == 1


@pytest.mark.parametrize("seed", range(1, 5))
def test_who_dials_another_service_before_the_same_pods_is_another_role(seed: int) -> None:
    world = World(TWINS, seed=seed, withheld=True, direct=0, rare=0)
    past, replica = {pod.at for pod in world.of("other")}, parse_address("10.96.1.4")
    world.rows = [
        (row[0], row[1], replica, *row[3:]) if row[0] in past and row[5] == 27017 else row
        for row in world.rows
    ]
    numbers, of = world.roles().numbers, world.snapshot.position
    one, other = (
        {int(numbers[of(pod.item.key)]) for pod in world.of(name)} for name in ("one", "other")
    )
    assert not one & other


@pytest.mark.parametrize(
    ("dialler", "parted"),
    [({"reader": "java", "writer": "node"}, True), ({"reader": "java"}, False), ({}, False)],
    ids=["two", "one is not known", "none is known"],
)
def test_processes_tell_replicas_but_not_roles(dialler: dict[str, str], parted: bool) -> None:
    """Where the load is alike, what dials is all that tells two consumers apart."""
    both = graph([("reader", "db", 5432), ("writer", "db", 5432)])
    world = World(both, seed=2, withheld=True, rare=0, dialler=dialler)
    of = world.snapshot.position
    for judged in (False, True):
        numbers = world.roles(judged=judged).numbers
        reader, writer = (
            {int(numbers[of(pod.item.key)]) for pod in world.of(name)}
            for name in ("reader", "writer")
        )
        assert bool(reader & writer) is (judged or not parted)


def told(world: World, found: Roles | None = None) -> tuple[list[Any], list[int]]:
    truth = world.truth()
    keys = [item.key for item in world.snapshot.items]
    return [truth[key] for key in keys], (found or world.roles()).numbers.tolist()


def test_a_group_is_told_by_names_or_addresses() -> None:
    for role in World(BRANCHES, withheld=True, rare=0).roles():
        assert role.candidates[0].exact


def test_what_comes_and_what_was_seen_does_not_depend_on_order() -> None:
    world = World(BRANCHES, withheld=True, rare=0)
    before = [(role.cluster, role.members) for role in world.roles()]
    world.rows.reverse()
    assert [(role.cluster, role.members) for role in world.roles()] == before
