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
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.ports import LEVELS
from ringfence.discovery.reasons import Outcome, Reason
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import PolicyId, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import Action, CatchAll, FilterEnd, OutsideEnd, Policy, Workspace
from ringfence.model.protocol import ICMP, TCP, PortRange
from ringfence.model.query import Everything
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


def test_a_coarser_step_allows_all_that_the_finer_ones_do_in_no_more_policies(
    simulation: Simulation, seen: tuple[Records, Timeline]
) -> None:
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)
    before, counts = np.zeros(len(whole.told.port), dtype=bool), list[int]()
    for boundary in Boundary:
        workspace = found(seen, Wanted(Granularity(boundary))).workspace
        allowed = judge.allowed(workspace, whole.told)
        assert not (before & ~allowed).any(), boundary
        before = allowed
        counts.append(len(workspace.policies))
    assert counts == sorted(counts, reverse=True)
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


def test_ports_that_a_server_gives_out_are_a_range(tmp_path: Path) -> None:
    told = simulate(shop(), 3, replace(style("plain"), passive=1.0))
    ((edge, ports),) = told.world.given.items()
    inventory, flows = write(told, tmp_path)
    timeline = recorded_inventory(inventory).timeline
    one = found((recorded_flows(flows, timeline), timeline))
    assert one.decisions.of(Reason.GIVEN_OUT).sum() > LEVELS[2]
    (policy,) = (
        policy
        for policy in one.workspace.policies
        for port in policy.ports
        if isinstance(port, PortRange) and port == PortRange(ports.start, ports.stop - 1)
    )
    assert not policy.review
    assert edge.provider.rpartition("/")[2] in policy.id


def test_excluded_workloads_are_proposed_nothing(seen: tuple[Records, Timeline]) -> None:
    carts = parse_filter('kubernetes.label.app = "carts"')
    told = found(seen, Wanted(exclude=carts))
    assert told.decisions.of(Reason.EXCLUDED).any()
    assert not any("carts" in policy.id.split("-to-") for policy in told.workspace.policies)


NOW = 1_900_000_000 * 10**9


def differing(approved: Workspace, proposed: Workspace) -> list[tuple[ChangeKind, str]]:
    return [(one.kind, one.policy.id) for one in changes(approved, proposed, NOW)]


def test_a_second_run_differs_by_what_is_new(seen: tuple[Records, Timeline]) -> None:
    approved = found(seen).workspace
    assert differing(approved, found(seen, Wanted(approved=approved)).workspace) == []
    policies = approved.policies
    (gone, *rest) = (one for one in policies if one.ports and not one.review)
    less, more = (replace(approved, policies=one) for one in (tuple(rest), (gone, *rest)))
    assert differing(less, more) == [(ChangeKind.ADDED, gone.id)]
    assert differing(more, less) == [(ChangeKind.UNUSED, gone.id)]


def workspace(*policies: Policy) -> Workspace:
    catch_all = CatchAll(Action.DENY, Action.DENY)
    return Workspace(WorkspaceName(ALL), ALL, True, catch_all, (), policies)


def test_agreed_is_what_an_allow_policy_lets_pass_now() -> None:
    ends = FilterEnd(Everything()), OutsideEnd()
    ports = PortRange(80, 80), PortRange(443, 443)
    both = Policy(PolicyId("both"), *ends, TCP, ports, Action.ALLOW)
    one, other = (replace(both, id=PolicyId(f"only-{port}"), ports=(port,)) for port in ports)
    added, wider = [(ChangeKind.ADDED, "both")], [(ChangeKind.GENERALISED, "both")]
    for no in ({"review": "look"}, {"action": Action.DENY}, {"expires_ns": NOW}):
        assert differing(workspace(replace(both, **no)), workspace(both)) == added, no
    assert differing(workspace(replace(both, expires_ns=NOW + 1)), workspace(both)) == []
    assert differing(workspace(one, other), workspace(both)) == []
    assert differing(workspace(other, one), workspace(both)) == []
    assert differing(workspace(both), workspace(one, other)) == []
    assert differing(workspace(one), workspace(both)) == wider
    assert differing(workspace(both), workspace(replace(both, ports=()))) == wider
    assert differing(workspace(replace(one, ports=()), other), workspace(both)) == []
    ping = Policy(PolicyId("ping"), *ends, ICMP, (), Action.ALLOW, icmp=(IcmpType(8, None),))
    every = replace(ping, id=PolicyId("every"), icmp=())
    assert set(differing(workspace(ping), workspace(every))) == {
        (ChangeKind.ADDED, "every"), (ChangeKind.UNUSED, "ping"),
    }  # fmt: skip


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
        assert any("consumers that need the same" in why for why in told)
        assert any("any host outside" in why for why in told)


def test_no_two_policies_share_a_name(seen: tuple[Records, Timeline]) -> None:
    ids = [one.id for one in found(seen).workspace.policies]
    assert any("-and-" in one for one in ids)
    assert len({*ids}) == len(ids)
    assert ids == [one.id for one in found(seen).workspace.policies]


def test_probes_are_named_after_whom_they_lead_to(seen: tuple[Records, Timeline]) -> None:
    told = {one.id: one for one in found(seen).workspace.policies if one.id.startswith("probes")}
    assert set(told) == {"probes-to-metrics-server", "probes-tcp-8080"}
    assert told[PolicyId("probes-tcp-8080")].ports == (PortRange(8080, 8080),)


def test_dns_over_tcp_has_no_evidence_but_its_own(seen: tuple[Records, Timeline]) -> None:
    records, timeline = seen
    over_udp = records.take(np.flatnonzero(records.column("protocol") != TCP))
    for some, evidence in ((records, True), (over_udp, False)):
        told = {one.id: one for one in found((some, timeline)).workspace.policies}
        plain, long = told[PolicyId("dns")], told[PolicyId("dns-tcp")]
        assert plain.evidence is not None
        assert (long.evidence is not None) == evidence
        assert "RFC 7766" in long.description
        assert not plain.description
    asked = records.column("provider_port") == 53
    over_tcp = asked & (records.column("protocol") == TCP)
    (long,) = (one for one in found(seen).workspace.policies if one.id == "dns-tcp")
    assert long.evidence is not None
    assert long.evidence.conversations == int(records.column("opened")[over_tcp].sum())
