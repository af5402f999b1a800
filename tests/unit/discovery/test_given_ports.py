"""Ports that pods give out to whoever uses their Service stand in the one policy for both."""

import json
from pathlib import Path

import pytest

from bench.discovery.files import write
from bench.discovery.proposed import ALL, TREE
from bench.discovery.score import score_workspace
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import Wanted, discover
from ringfence.discovery.granularity import Granularity
from ringfence.model.ids import WorkspaceName
from ringfence.model.policy import ClusterEnd, Policy, ServiceEnd, Workspace
from ringfence.model.protocol import PortRange
from tests.unit.discovery.test_simulation import shop

PASSIVE = 7
"""With this seed the front end dials the carts through their Service, and ports they give it."""


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(shop(), PASSIVE, style("bare"))


@pytest.fixture(scope="module")
def files(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(simulation, tmp_path_factory.mktemp("files"))


def proposed(files: tuple[Path, Path], level: int) -> Workspace:
    timeline = recorded_inventory(files[0]).timeline
    seen = recorded_flows(files[1], timeline)
    how = Wanted(Granularity(compress=level))
    return discover(seen, timeline, TREE, ALL, WorkspaceName(ALL), how).workspace


def to_carts(workspace: Workspace) -> list[Policy]:
    return [one for one in workspace.policies if one.id.startswith("front-to-carts")]


@pytest.mark.parametrize("level", [2, 3, 5])
def test_a_service_and_the_ports_its_pods_give_out_are_one_policy(
    simulation: Simulation, files: tuple[Path, Path], level: int
) -> None:
    apart, joined = proposed(files, 1), proposed(files, level)
    assert len(to_carts(apart)) > 1
    (one,) = to_carts(joined)
    assert one.provider == ClusterEnd("carts")
    assert one.ports == (PortRange(8080, 8080), PortRange(50_500, 50_699))
    assert one.evidence
    assert "through its Service" in one.evidence.why
    fine, coarse = (score_workspace(simulation, workspace)[0] for workspace in (apart, joined))
    assert (fine.blocked, fine.needless) == (coarse.blocked, coarse.needless)


def test_a_service_that_leads_to_others_too_stays(files: tuple[Path, Path]) -> None:
    told = json.loads(files[0].read_text())
    another = next(one for one in told["items"] if one.get("workload_name") == "orders")
    for one in told["items"]:
        if (one["kind"], one["name"]) == ("service", "carts"):
            backends = one["service"]["backends"]
            to_another = {"address": another["addresses"][0], "key": another["key"]}
            backends += [{**backend, **to_another} for backend in backends[:1]]
    inventory = files[0].with_name("shared.json")
    inventory.write_text(json.dumps(told))
    ends = [one.provider for one in to_carts(proposed((inventory, files[1]), 2))]
    assert {type(one) for one in ends} == {ServiceEnd, ClusterEnd}
