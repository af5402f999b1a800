"""Real applications: a coarser step allows all that the finer do, in no more policies."""

from pathlib import Path

import numpy as np
import pytest

from bench.discovery.files import write
from bench.discovery.graph import FOLDER, load
from bench.discovery.judge import Judge, universe
from bench.discovery.proposed import ALL, TREE
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import discover
from ringfence.discovery.ancestors import Ancestors
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.compress import LEVELS
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.propose import propose
from ringfence.model.ids import WorkspaceName
from ringfence.model.policy import Workspace

GRAPHS = ("aks-store-demo", "bank-of-anthos", "bookinfo", "opentelemetry-demo", "robot-shop")


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no graphs at {FOLDER}: set RINGFENCE_CORPORA")
@pytest.mark.parametrize("written", ["plain", "bare"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_coarser_step_allows_more_in_no_more_policies(
    graph: str, written: str, tmp_path: Path
) -> None:
    simulation = simulate(load(graph), 1, style(written))
    inventory, flows = write(simulation, tmp_path)
    timeline = recorded_inventory(inventory).timeline
    found = discover(recorded_flows(flows, timeline), timeline, TREE, ALL, WorkspaceName(ALL))
    above = Ancestors(found.observed, found.ends, TREE, ALL, (), add=True)
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)

    def proposed(boundary: Boundary, level: int) -> Workspace:
        fineness = Granularity(boundary, compress=level)
        given = found.observed, found.decisions, found.ends, above, WorkspaceName(ALL), fineness
        return propose(*given).workspace

    for level in LEVELS[1:]:
        counts = [len(proposed(boundary, level).policies) for boundary in Boundary]
        assert counts == sorted(counts, reverse=True), level
    before = np.zeros(len(whole.told.port), dtype=bool)
    for boundary in Boundary:
        allowed = judge.allowed(proposed(boundary, LEVELS[2]), whole.told)
        assert not (before & ~allowed).any(), boundary
        before = allowed
