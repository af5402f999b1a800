"""The simulator that discovery is measured by: what it claims to make, it makes."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml

from bench.discovery.files import inventory, write
from bench.discovery.graph import Edge, Graph, Workload, classes
from bench.discovery.score import adjusted_rand
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import DAY, STYLES
from bench.discovery.traffic import ANSWERED, ATTACK, TRUE
from ringfence.flows.exported import EXPORT
from ringfence.model.protocol import TCP

SEEDS = range(1, 6)


def workload(name: str, role: str, *ports: int, kind: str = "Deployment") -> Workload:
    namespace = "" if kind == "External" else "shop"
    labels = {"app": name} if namespace else {}
    listens = tuple((TCP, port) for port in ports)
    return Workload(name, namespace, kind, labels, int(bool(namespace)), role, listens)


def shop() -> Graph:
    workloads = (
        workload("front", "web", 8080),
        workload("carts", "service", 8080),
        workload("orders", "service", 8080, 9090),
        workload("carts-db", "database", 27017, kind="StatefulSet"),
        workload("load", "client"),
        workload("user", "external", kind="External"),
        workload("bank", "external", 443, kind="External"),
    )
    edges = (
        Edge("front", "carts", TCP, 8080),
        Edge("front", "orders", TCP, 8080),
        Edge("orders", "carts", TCP, 8080),
        Edge("carts", "carts-db", TCP, 27017),
        Edge("load", "front", TCP, 8080),
        Edge("user", "front", TCP, 8080),
        Edge("orders", "bank", TCP, 443),
    )
    return Graph("shop", {one.id: one for one in workloads}, edges)


@pytest.fixture(scope="module")
def simulations() -> list[Simulation]:
    return [simulate(shop(), seed, STYLES["plain"]) for seed in SEEDS]


def test_the_truth_is_the_graph_in_each_namespace(simulations: list[Simulation]) -> None:
    for one in simulations:
        assert len(one.edges) == len(shop().edges) * STYLES["plain"].copies
        said = {(edge.consumer.rpartition("/")[2], edge.provider.rpartition("/")[2])
                for edge in one.edges}  # fmt: skip
        assert said == {(edge.consumer, edge.provider) for edge in shop().edges}


def test_true_edges_are_in_the_rows(simulations: list[Simulation]) -> None:
    """All but the few whose one conversation was lost."""
    seen = [int((one.seen > 0).sum()) for one in simulations]
    assert sum(seen) >= 0.97 * sum(len(one.edges) for one in simulations)


def test_a_tenth_of_the_edges_is_rare_and_some_come_late(simulations: list[Simulation]) -> None:
    late = 0
    for one in simulations:
        told = one.told
        true = (told["why"] == TRUE) & (told["start"] < DAY) & (told["start"] >= 0)
        true &= told["outcome"] == ANSWERED
        count = np.bincount(told["edge"][true], minlength=len(one.edges))
        assert (count <= 5).sum() >= 0.1 * len(one.edges)
        first = np.full(len(one.edges), np.inf)
        np.minimum.at(first, told["edge"][true], told["start"][true])
        late += int(((first >= 0.8 * DAY) & (first < DAY)).sum())
    assert late


def test_addresses_are_held_by_one_pod_at_a_time_and_used_again(
    simulations: list[Simulation],
) -> None:
    again = 0
    for one in simulations:
        held = defaultdict(list)
        for life in one.world.by_life:
            held[life.address].append(life)
        for lives in held.values():
            lives.sort(key=lambda life: life.start)
            for before, after in pairwise(lives):
                assert before.end <= after.start
                again += before.party is not after.party
    assert again


def test_attackers_reach_what_the_application_never_does(simulations: list[Simulation]) -> None:
    for one in simulations:
        assert not {*one.attacks.edges} & one.world.truth
        told = one.told
        assert (told["outcome"][told["why"] == ATTACK] == ANSWERED).any()
    assert len({source.style for one in simulations for source in one.attacks.sources}) > 2
    through = [one.told for one in simulations]
    assert any(
        ((told["why"] == ATTACK) & (told["dialled"] != told["provider"])).any() for told in through
    )


def test_some_attacks_are_as_rare_as_rare_edges(simulations: list[Simulation]) -> None:
    counts = [
        count
        for one in simulations
        for count in np.bincount(one.told["edge"][one.told["why"] == ATTACK]).tolist()
    ]
    assert {2, 3, 4, 5} & {*counts}


def test_captures_lack_syns_and_turn_some_round(simulations: list[Simulation]) -> None:
    rows = simulations[0].rows
    passed = rows["reverse_packets"] > 0
    assert (passed & (rows["opened"] == 0)).any()
    assert (rows["refused"] > 0).any()
    assert any((one.rows["turned"] > 0).any() for one in simulations)


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    texts = []
    for at, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(at)
        folder.mkdir()
        files = write(simulate(shop(), seed, STYLES["plain"]), folder)
        texts.append(tuple(file.read_bytes() for file in files))
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("style", STYLES)
def test_files_have_the_documented_columns(style: str, tmp_path: Path) -> None:
    inventory_file, flows_file = write(simulate(shop(), 1, STYLES[style]), tmp_path)
    table = pyarrow.parquet.read_table(flows_file)
    for field in table.schema:
        assert field.type == EXPORT.field(field.name).type
    assert table["first"].null_count == 0
    document = yaml.load(inventory_file.read_text(), Loader=yaml.CSafeLoader)
    assert {one["kind"] for one in document["items"]} >= {"pod", "node", "service", "namespace"}


def test_lives_of_an_item_do_not_overlap() -> None:
    world = simulate(shop(), 2, STYLES["plain"]).world
    lives = defaultdict(list)
    for item in inventory(world)["items"]:
        lives[item["key"]].append((item.get("from", ""), item.get("to", "9")))
    assert any(len(spans) > 1 for spans in lives.values())
    for spans in lives.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_what_is_withheld_is_not_told() -> None:
    document = inventory(simulate(shop(), 1, STYLES["withheld"]).world)
    told = [one for one in document["items"] if one["namespace"].startswith("shop")]
    text = json.dumps([one | {"namespace": "", "labels": [*one["labels"]]} for one in told])
    for word in ("front", "carts", "orders", "load", "app", "8080/"):
        assert word not in text
    assert not any(one["containers"] for one in told)


def test_roles_are_workloads_that_nobody_tells_apart() -> None:
    edges = [Edge("a", "c", TCP, 1), Edge("b", "c", TCP, 1), Edge("c", "d", TCP, 2)]
    found = classes("abcd", edges)
    assert found["a"] == found["b"]
    assert len({*found.values()}) == 3


def test_adjusted_rand_index() -> None:
    assert adjusted_rand([1, 1, 2, 2], [5, 5, 7, 7]) == 1
    # Hubert and Arabie's formula by hand: the contingency table is [[2, 1], [0, 2]].
    assert adjusted_rand([1, 1, 1, 2, 2], [1, 1, 2, 2, 2]) == pytest.approx((2 - 1.6) / (4 - 1.6))
    assert adjusted_rand([1, 1, 1, 1], [1, 2, 3, 4]) == 0
