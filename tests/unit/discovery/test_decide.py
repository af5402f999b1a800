"""What becomes of the edges of simulated applications, from the files to the policies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.discovery.files import write
from bench.discovery.graph import Graph
from bench.discovery.judge import Judge, universe
from bench.discovery.proposed import ALL, TREE, discovered
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import Discovery, Wanted, discover
from ringfence.control.discovered import coverage_of
from ringfence.discovery.behaviour import SLOT_NS
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.changes import ChangeKind, changes
from ringfence.discovery.ends import LONGEST_NAME, joined_name
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.reasons import Outcome, Reason
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import WorkspaceName
from ringfence.model.keys import parse_filter
from tests.unit.discovery.test_simulation import shop


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    graph: Graph = shop()
    return simulate(graph, 3, style("plain"))


@pytest.fixture(scope="module")
def files(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(simulation, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def seen(files: tuple[Path, Path]) -> tuple[Records, Timeline]:
    timeline = recorded_inventory(files[0]).timeline
    return recorded_flows(files[1], timeline), timeline


def found(seen: tuple[Records, Timeline], wanted: Wanted | None = None) -> Discovery:
    return discover(*seen, TREE, ALL, WorkspaceName(ALL), wanted or Wanted())


def test_every_edge_ends_somewhere_and_for_a_reason(seen: tuple[Records, Timeline]) -> None:
    told = found(seen)
    assert set(told.decisions.outcome.tolist()) <= {*map(str, Outcome)}
    assert all(next(iter(told.decisions.reasons(edge))) for edge in range(len(told.observed)))


def test_a_coarser_step_allows_all_that_the_finer_ones_do(
    simulation: Simulation, seen: tuple[Records, Timeline]
) -> None:
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)
    before = np.zeros(len(whole.told.port), dtype=bool)
    for boundary in Boundary:
        workspace = found(seen, Wanted(Granularity(boundary))).workspace
        allowed = judge.allowed(workspace, whole.told)
        assert not (before & ~allowed).any(), boundary
        before = allowed
    assert before.any()


def test_compression_allows_the_same_in_fewer_policies(
    simulation: Simulation, seen: tuple[Records, Timeline]
) -> None:
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)
    told = [found(seen, Wanted(Granularity(compress=level))).workspace for level in (1, 2, 3, 4, 5)]
    first = judge.allowed(told[0], whole.told)
    assert all((judge.allowed(one, whole.told) == first).all() for one in told)
    counts = [len(one.policies) for one in told]
    assert counts == sorted(counts, reverse=True)


def test_excluded_workloads_are_proposed_nothing(seen: tuple[Records, Timeline]) -> None:
    carts = parse_filter('kubernetes.label.app = "carts"')
    told = found(seen, Wanted(exclude=carts))
    assert told.decisions.of(Reason.EXCLUDED).any()
    assert not any("carts" in policy.id.split("-to-") for policy in told.workspace.policies)


def test_a_second_run_differs_by_what_is_new(seen: tuple[Records, Timeline]) -> None:
    approved = found(seen).workspace
    assert list(changes(approved, found(seen, Wanted(approved=approved)).workspace)) == []
    policies = approved.policies
    (gone, *rest) = (one for one in policies if one.ports and not one.review)
    less = replace(approved, policies=tuple(rest))
    (added,) = changes(less, replace(approved, policies=(gone, *rest)))
    assert (added.kind, added.policy.id) == (ChangeKind.ADDED, gone.id)
    (unused,) = changes(replace(approved, policies=(gone, *rest)), less)
    assert (unused.kind, unused.policy.id) == (ChangeKind.UNUSED, gone.id)


def test_the_report_tells_of_every_route(files: tuple[Path, Path]) -> None:
    told = discovered(*files).told
    assert {one["outcome"] for one in told["proposals"]} <= {*map(str, Outcome)}
    assert all(one["reasons"] for one in told["proposals"])
    allowed = [one for one in told["proposals"] if one["outcome"] == Outcome.ALLOW]
    ids = {policy["id"] for policy in told["workspace"]["policies"]}
    assert {one["policy"] for one in allowed if one["policy"]} <= ids
    assert told["coverage"]["workloads"] > 0


def test_a_short_time_gives_no_estimate_of_what_was_not_seen(
    seen: tuple[Records, Timeline],
) -> None:
    records, timeline = seen
    first = records.column("first_ns")
    brief = records.take(np.flatnonzero(first < first.min() + 2 * SLOT_NS))
    assert len(brief)
    told = coverage_of(found((brief, timeline)))
    assert told["unseen_edges"] is None
    (said,) = (one for one in found((brief, timeline)).coverage.sentences() if "seen yet" in one)
    assert said.startswith("the time is too short")
    assert 0 <= coverage_of(found(seen))["unseen_edges"] < 1


@pytest.mark.parametrize("boundary", [Boundary.FINE, Boundary.COARSE, Boundary.NAMESPACE])
def test_evidence_says_why_ends_and_ports_are_as_broad(
    seen: tuple[Records, Timeline], boundary: Boundary
) -> None:
    policies = found(seen, Wanted(Granularity(boundary))).workspace.policies
    told = [one.evidence.why for one in policies if one.evidence and not one.review]
    assert told
    assert all(told)
    step = any(f"{boundary}: " in why for why in told)
    assert step == (boundary is not Boundary.FINE)
    if boundary is Boundary.FINE:
        assert any("consumers that need the same are joined" in why for why in told)
        assert any("any host outside" in why for why in told)


def test_joined_ends_are_named_by_all_of_them_where_that_is_short(
    seen: tuple[Records, Timeline],
) -> None:
    assert joined_name(["orders", "carts", "orders"]) == "carts-and-orders"
    assert len(joined_name(["a" * 17, "b" * 18])) == LONGEST_NAME
    assert joined_name(["a" * 18, "b" * 18]) == "several"
    ids = [one.id for one in found(seen).workspace.policies]
    assert any("-and-" in one for one in ids)
    assert len({*ids}) == len(ids)
    assert ids == [one.id for one in found(seen).workspace.policies]
