"""Ports that pods give out to whoever uses their Service stand in the one policy for both."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.discovery.files import write
from bench.discovery.proposed import ALL, TREE
from bench.discovery.score import score_workspace
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import Discovery, Wanted, discover
from ringfence.discovery.drafts import Draft, Drafting, evidence_of
from ringfence.discovery.given_ports import with_given
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.reasons import Reason
from ringfence.model.ids import WorkspaceName
from ringfence.model.policy import ClusterEnd, Policy, ServiceEnd, Workspace
from ringfence.model.protocol import PortRange
from tests.unit.discovery.days import DAY, REPLICAS, SLOT, Day
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


def test_a_service_and_the_ports_its_pods_give_out_are_one_policy(
    simulation: Simulation, files: tuple[Path, Path]
) -> None:
    apart, joined = proposed(files, 1), proposed(files, 2)
    assert {one.ports for one in to_carts(apart)} == {
        (PortRange(80, 80),),
        (PortRange(50_500, 50_699),),
    }
    assert len(to_carts(apart)) == 2, "what makes a range is one policy"
    (one,) = to_carts(joined)
    assert one.provider == ClusterEnd("carts")
    assert one.ports == (PortRange(8080, 8080), PortRange(50_500, 50_699))
    assert one.evidence
    assert "through its Service" in one.evidence.why
    fine, coarse = (score_workspace(simulation, workspace)[0] for workspace in (apart, joined))
    assert (fine.blocked, fine.needless) == (coarse.blocked, coarse.needless)


@pytest.mark.parametrize("level", [3, 5])
def test_consumers_that_need_the_same_of_a_service_are_joined_first(
    simulation: Simulation, files: tuple[Path, Path], level: int
) -> None:
    apart, joined = proposed(files, 1), proposed(files, level)
    service, given = (one for one in joined.policies if one.id.endswith("-to-carts"))
    assert service.id == "front-and-orders-to-carts"
    assert isinstance(service.provider, ServiceEnd)
    assert (given.id, given.provider) == ("front-to-carts", ClusterEnd("carts"))
    assert given.ports == (PortRange(50_500, 50_699),)
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


FRONT = "10.96.0.1"


class Passive(Day):
    """The front end uses a Service of the carts, which give ports out besides."""

    def __init__(self, *, through: bool) -> None:
        super().__init__()
        self.dialled(0, *range(0, DAY, SLOT))
        for number in range(20):
            consumer, provider = self.of("front", 0), self.of("carts", 0)
            self.saw(consumer, provider, 50_000 + number, 1000 * number)
            if through:
                self.rows[-1] |= {"dialled_address": FRONT, "dialled_port": 21}

    def dialled(self, pod: int, *times: int, name: str = "carts") -> None:
        for at in times:
            self.saw(self.of("front", 0), self.of(name, pod), 21, at)
            self.rows[-1] |= {"dialled_address": FRONT, "dialled_port": 21}

    def _items(self) -> Iterator[dict[str, Any]]:
        yield from super()._items()
        port = {"name": "main", "protocol": "TCP", "port": 21}
        backend = {"service_port": "main", "protocol": "TCP", "address": self.of("carts", 0)}
        yield {
            "kind": "service", "kubernetes_cluster": "lab", "namespace": "shop", "name": "ftp",
            "addresses": [FRONT], "service": {"ports": [port], "backends": [backend | {"port": 21}],
                                              "type": "ClusterIP"},
        }  # fmt: skip


def drafts_of(found: Discovery) -> list[Draft]:
    """Those of the front end to the Service, and to what the carts give out."""
    every = Drafting(found.observed, found.ends).drafts(found.decisions)
    service = {one for one in every if one.provider.end == ServiceEnd("shop", "ftp")}
    straight = {one for one in every if {50_000} & one.ports}
    return [one for one in every if one in service | straight]


def together(drafts: Sequence[Draft], found: Discovery) -> list[Draft]:
    return with_given(drafts, found.observed, found.decisions.of(Reason.GIVEN_OUT))


def test_ports_that_are_given_through_the_service_itself_are_its_own() -> None:
    found = Passive(through=True).found()
    drafts = drafts_of(found)
    assert [one.provider.end for one in drafts] == [ServiceEnd("shop", "ftp")]
    assert together(drafts, found) == drafts


def test_a_service_is_joined_once() -> None:
    found = Passive(through=False).found()
    service, given = sorted(drafts_of(found), key=lambda one: len(one.ports))
    (one,) = together([service, given], found)
    assert (one.provider.end, one.ports) == (ClusterEnd("carts"), given.ports | {21})
    assert one.edges == service.edges | given.edges
    assert together([given, service], found) == [one]
    assert together([given, service, given], found)[0] == one


def test_what_awaits_review_is_joined_with_nothing() -> None:
    found = Passive(through=False).found()
    drafts = [
        replace(one, review="why not") if isinstance(one.provider.end, ServiceEnd) else one
        for one in drafts_of(found)
    ]
    assert len(drafts) > 1
    assert together(drafts, found) == drafts


def test_a_service_that_led_to_others_before_stays() -> None:
    day = Passive(through=False)
    day.dialled(0, *range(0, DAY, SLOT), name="orders")
    found = day.found()
    drafts = drafts_of(found)
    assert len(drafts) > 1
    assert together(drafts, found) == drafts


def test_a_source_of_several_edges_counts_once() -> None:
    found = Passive(through=False).found()
    (given,) = (one for one in drafts_of(found) if len(one.edges) > 1)
    told = evidence_of(found.observed, given)
    assert told is not None
    assert (len(given.edges), told.sources) == (21, REPLICAS)
