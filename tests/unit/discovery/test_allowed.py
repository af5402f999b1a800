"""What ends as ALLOW passes: of every such edge each conversation, by the evaluator."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.discovery.files import write
from bench.discovery.proposed import ALL, TREE
from bench.discovery.score import score_workspace
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_history, recorded_inventory
from ringfence.control.analysis import judge
from ringfence.control.discover import discover
from ringfence.control.discovered import report
from ringfence.control.judged import JudgedBy
from ringfence.discovery.observed import Observed, observe
from ringfence.discovery.reasons import Outcome
from ringfence.flows.connections import ServiceSockets
from ringfence.model.ids import Version, WorkspaceName
from ringfence.policy.document import Documents
from tests.unit.discovery.test_simulation import shop

SEEDS = range(1, 6)
NODES_THAT_SCAN = 10
"""Of this simulation several nodes are sources, and come to the same ends."""


@pytest.mark.parametrize("how", ["plain", "bare", "coarse"])
def test_an_allowed_edge_is_covered_by_policies(how: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        inventory, flows = write(simulate(shop(), seed, style(how)), tmp_path)
        timeline = recorded_inventory(inventory).timeline
        seen = recorded_flows(flows, timeline)
        found = discover(seen, timeline, TREE, ALL, WorkspaceName(ALL))
        told = report(found)["proposals"]
        assert all(one["policy"] for one in told if one["outcome"] != Outcome.NOISE)
        judged = asyncio.run(
            judge(
                seen,
                recorded_history(Documents(workspaces=(found.workspace,)), timeline, seen),
                found.observed.until_ns + 1,
                JudgedBy(TREE, ((found.workspace, Version(1)),)),
                WorkspaceName(ALL),
            )
        )
        peers = found.observed.peers
        blocked = observe(seen.take(~judged.allowed), peers, ServiceSockets(peers.snapshot))
        allowed = found.decisions.outcome == Outcome.ALLOW
        assert allowed.any()
        worked = keys(blocked, blocked.seen.conversations > 0)
        assert not keys(found.observed, allowed) & worked, seed


def keys(observed: Observed, chosen: np.ndarray) -> set[tuple[int, ...]]:
    columns = observed.consumer, observed.provider, observed.protocol, observed.port
    return set(zip(*(column[chosen].tolist() for column in columns), strict=True))


@pytest.mark.parametrize("seed", [NODES_THAT_SCAN, *SEEDS])
def test_what_intruders_and_scanners_do_is_not_allowed(seed: int, tmp_path: Path) -> None:
    simulation = simulate(shop(), seed, style("plain"))
    inventory, flows = write(simulation, tmp_path)
    timeline = recorded_inventory(inventory).timeline
    found = discover(recorded_flows(flows, timeline), timeline, TREE, ALL, WorkspaceName(ALL))
    scores, notes = score_workspace(simulation, found.workspace)
    assert not scores.intruders, notes
