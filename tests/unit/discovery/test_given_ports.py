"""Ports that pods give out to whoever uses their Service stand in the one policy for both."""

from pathlib import Path

import pytest

from bench.discovery.files import write
from bench.discovery.proposed import ALL, TREE
from bench.discovery.score import score_workspace
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import Wanted, discover
from ringfence.discovery.granularity import Granularity
from ringfence.model.ids import WorkspaceName
from ringfence.model.policy import ClusterEnd
from ringfence.model.protocol import PortRange
from tests.unit.discovery.test_simulation import shop

PASSIVE = 7
"""With this seed the front end dials the carts through their Service, and ports they give it."""


@pytest.mark.parametrize("level", [2, 3, 5])
def test_a_service_and_the_ports_its_pods_give_out_are_one_policy(
    level: int, tmp_path: Path
) -> None:
    simulation = simulate(shop(), PASSIVE, style("bare"))
    inventory, flows = write(simulation, tmp_path)
    timeline = recorded_inventory(inventory).timeline
    seen = recorded_flows(flows, timeline)

    def proposed(compress: int) -> tuple[list[str], object]:
        how = Wanted(Granularity(compress=compress))
        workspace = discover(seen, timeline, TREE, ALL, WorkspaceName(ALL), how).workspace
        mine = [one for one in workspace.policies if one.id.startswith("front-to-carts")]
        if compress > 1:
            (one,) = mine
            assert one.provider == ClusterEnd("carts")
            assert one.ports == (PortRange(8080, 8080), PortRange(50_500, 50_699))
            assert one.evidence
            assert "through its Service" in one.evidence.why
        scores, _ = score_workspace(simulation, workspace)
        return [one.id for one in mine], (scores.blocked, scores.needless, scores.found)

    apart, told = proposed(1)
    assert len(apart) > 1
    joined, same = proposed(level)
    assert len(joined) == 1
    assert same == told, "they allow what they did"
