"""What goes between scopes, and what all of them need, is placed in their ancestor's workspace."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from bench.discovery.files import write
from bench.discovery.judge import Judge, universe
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import style
from bench.discovery.traffic import Numbers
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.admitted import admitted
from ringfence.control.analysis import History
from ringfence.control.comparison import NOTHING
from ringfence.control.discover import Discovery, Wanted, discover, noise
from ringfence.control.discovered import answer, report
from ringfence.discovery.ancestors import Place
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.compress import Whole, compress
from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import NamedEnd, namespace_query
from ringfence.discovery.granularity import Granularity
from ringfence.flows.connections import Records
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.timeline import Timeline
from ringfence.model.evidence import Evidence
from ringfence.model.ids import ClusterId, PolicyId, ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import (
    Action,
    CatchAll,
    FilterEnd,
    OutsideEnd,
    Policy,
    Rank,
    ScopeEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import Everything, all_of
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.policy.ends import members
from ringfence.policy.requests import needed
from tests.unit.discovery.test_simulation import shop

TOP, MIDDLE, WEB, BACK = map(ScopeName, ("top", "middle", "web", "back"))
TREE = ScopeTree(
    [
        Scope(TOP, None, Everything()),
        Scope(MIDDLE, TOP, parse_filter('kubernetes.namespace = "shop"')),
        Scope(WEB, MIDDLE, parse_filter('kubernetes.label.app in ("front", "load")')),
        Scope(BACK, MIDDLE, parse_filter('not kubernetes.label.app in ("front", "load")')),
    ]
)
OPEN, CLOSED = CatchAll(Action.ALLOW, Action.ALLOW), CatchAll(Action.DENY, Action.DENY)
ACROSS = {"shop-front-to-carts", "shop-front-to-orders"}
CLUSTER = ClusterId("sim")
Seen = tuple[Records, Timeline]


def telnet(action: Action, rank: Rank = Rank.DEFAULT) -> Policy:
    anybody, port = FilterEnd(Everything()), (PortRange(23, 23),)
    return Policy(PolicyId("dns"), anybody, anybody, TCP, port, action, rank)


def held(scope: ScopeName, *policies: Policy) -> Workspace:
    return Workspace(WorkspaceName(f"the-{scope}"), scope, True, OPEN, (), policies)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(shop(), 3, style("plain"))


@pytest.fixture(scope="module")
def seen(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    inventory, flows = write(simulation, tmp_path_factory.mktemp("files"))
    timeline = recorded_inventory(inventory).timeline
    return recorded_flows(flows, timeline), timeline


def found(seen: Seen, scope: ScopeName, *above: Workspace, **how: object) -> Discovery:
    wanted = replace(Wanted(), **how)  # type: ignore[arg-type]
    return discover(*seen, TREE, scope, WorkspaceName(scope), replace(wanted, above=above))


def ids(workspace: Workspace) -> set[str]:
    return {str(one.id) for one in workspace.policies}


def rules(workspace: Workspace) -> list[Policy]:
    return [one.rule for one in workspace.policies]


def between(judge: Judge, told: object, *scopes: ScopeName) -> Numbers:
    """Whether both ends of the connections are workloads of these scopes together."""
    places = np.zeros(len(judge.snapshot.items) + 1, dtype=bool)
    for scope in scopes:
        places[list(members(TREE, judge.snapshot, scope))] = True
    return places[told.consumer_life] & places[told.provider_life]  # type: ignore[attr-defined]


def test_each_stands_where_it_decides_at_both_ends(simulation: Simulation, seen: Seen) -> None:
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)
    mine = telnet(Action.ALLOW)
    web = found(seen, WEB, held(MIDDLE, mine), held(TOP))
    middle, top = web.proposal.ancestors
    assert middle.policies[0] == mine, "what was there stays, and comes first"
    assert ids(middle) == {"dns", "dns-2", "dns-tcp", *ACROSS}
    assert ids(top) == {"outside-to-front"}, "nodes receive that"
    assert ids(web.workspace) == {"shop-load-to-front"}
    dns = next(one for one in middle.policies if one.id == "dns-2")
    assert dns.consumer == ScopeEnd(MIDDLE)

    back = found(seen, BACK, middle, top)
    (both,) = back.proposal.ancestors
    assert ids(both) - ids(middle) == {"probes-to-shop-carts-and-orders"}, "others were there"
    every = both, back.workspace, top, web.workspace
    read = parse_documents(format_documents(Documents(workspaces=every)), "f").workspaces
    assert {one.name: rules(one) for one in read} == {one.name: rules(one) for one in every}

    one_for_all = found(seen, TOP).workspace
    single = judge.allowed(one_for_all, whole.told, tree=TREE)
    several = judge.allowed(both, whole.told, *every[1:], tree=TREE)
    inside = between(judge, whole.told, WEB, BACK) & (whole.told.port != 23)
    across = inside & ~between(judge, whole.told, WEB) & ~between(judge, whole.told, BACK)
    assert (single & across).any()
    assert (single == several)[inside].all()


def test_a_second_run_adds_nothing(seen: Seen) -> None:
    first = found(seen, WEB, held(MIDDLE))
    again = found(seen, WEB, *first.proposal.ancestors)
    assert again.proposal.ancestors == ()
    assert again.workspace == first.workspace
    told = report(again)
    assert {one["workspace"] for one in told["proposals"]} == {None, "web", "the-middle"}
    (needs,) = (one for one in told["warnings"] if "ringfence enforce" in one)
    assert needs == "web needs the-middle: `ringfence enforce the-middle web`"


def test_only_what_is_new_is_added(seen: Seen) -> None:
    (middle,) = found(seen, WEB, held(MIDDLE)).proposal.ancestors
    kept = tuple(one for one in middle.policies if one.id != "shop-front-to-carts")
    (again,) = found(seen, WEB, replace(middle, policies=kept)).proposal.ancestors
    assert [one.id for one in again.policies[len(kept) :]] == ["shop-front-to-carts"]
    waiting = [replace(one, review="look") for one in middle.policies]
    again = found(seen, WEB, replace(middle, policies=tuple(waiting))).proposal.ancestors[0]
    assert len(again.policies) == 2 * len(waiting), "what awaits review allows nothing"


@pytest.mark.parametrize("now", [False, True])
def test_a_policy_says_what_suspicious_it_lets_pass_if_it_is_made_now(
    seen: Seen, now: bool
) -> None:
    """What stands there already is the ancestor's own, and stays as it was approved."""
    wide = replace(telnet(Action.ALLOW), ports=(), evidence=Evidence(1, 1, 1, 1, 0, 1, 0.5, "mine"))
    proposed = found(seen, WEB, held(MIDDLE, wide))
    if now:
        places = proposed.proposal.added | {Place(WorkspaceName("the-middle"), wide.id)}
        proposed = replace(proposed, proposal=replace(proposed.proposal, added=places))
    history = History(seen[1], Resolutions())
    told, let_pass = asyncio.run(admitted(proposed, seen[0], history, TREE))
    (middle,) = told.proposal.ancestors
    (mine,) = (one for one in middle.policies if one.id == wide.id)
    assert [one.policy for one in let_pass] == [("the-middle", "dns")]
    assert (mine == wide) is not now
    assert mine.evidence
    assert ("lets pass" in mine.evidence.why) is now


@pytest.mark.parametrize("denied", [False, True])
def test_what_stands_above_unchanged_decides_what_is_let_pass(seen: Seen, denied: bool) -> None:
    wide = replace(telnet(Action.ALLOW), id=PolicyId("wide"), ports=())
    absolute = replace(wide, id=PolicyId("block"), action=Action.DENY, rank=Rank.ABSOLUTE)
    (middle,) = found(seen, WEB, held(MIDDLE, wide)).proposal.ancestors
    if denied:
        middle = replace(middle, policies=(absolute, *middle.policies))
    again = found(seen, WEB, middle)
    assert again.proposal.ancestors == ()
    history = History(seen[1], Resolutions())
    _, let_pass = asyncio.run(admitted(again, seen[0], history, TREE, [middle]))
    told = [] if denied else [("the-middle", "wide")]
    assert [one.policy for one in let_pass] == told


def test_without_an_ancestors_workspace_it_is_requested(seen: Seen) -> None:
    plain = found(seen, WEB)
    assert plain.proposal.ancestors == ()
    assert found(seen, WEB, held(MIDDLE), own=True).workspace == plain.workspace
    assert ids(plain.workspace) > {"dns", *ACROSS}
    full = found(seen, WEB, held(MIDDLE)).proposal.ancestors
    assert ids(found(seen, WEB, *full, own=True).workspace) == {
        "outside-to-front",
        "shop-load-to-front",
    }, "the rest is allowed there"
    back = Workspace(WorkspaceName(BACK), BACK, True, CLOSED, (), ())
    asked = needed(seen[1].latest(), TREE, [plain.workspace, back]).requests
    assert {str(one.policy) for one in asked} == ACROSS


def test_what_denies_by_default_leaves_it_below(seen: Seen) -> None:
    plain = found(seen, WEB).workspace
    for above in (
        [held(MIDDLE, telnet(Action.DENY))],
        [held(MIDDLE, telnet(Action.DENY)), held(TOP)],
    ):
        told = found(seen, WEB, *above)
        assert (told.workspace, told.proposal.ancestors) == (plain, ())
    absolute = held(MIDDLE, telnet(Action.DENY, Rank.ABSOLUTE))
    assert found(seen, WEB, absolute).proposal.ancestors


def test_the_nearest_that_holds_both_ends(seen: Seen) -> None:
    (top,) = found(seen, WEB, held(TOP)).proposal.ancestors
    assert top.scope == TOP
    assert {"dns", "outside-to-front", *ACROSS} <= ids(top)
    (middle,) = found(seen, BACK, held(MIDDLE), held(TOP)).proposal.ancestors
    assert ids(middle) > {"dns", *ACROSS}


def test_a_coarser_step_allows_all_that_the_finer_ones_do(
    simulation: Simulation, seen: Seen
) -> None:
    judge, whole = Judge(simulation.world), universe(simulation.world, set(), [], 1)
    shut = Workspace(WorkspaceName(BACK), BACK, True, CLOSED, (), ())
    before = np.zeros(len(whole.told.port), dtype=bool)
    for boundary in Boundary:
        told = found(seen, WEB, held(MIDDLE), granularity=Granularity(boundary))
        above = told.proposal.ancestors
        allowed = judge.allowed(told.workspace, whole.told, *above, shut, tree=TREE)
        assert not (before & ~allowed).any(), boundary
        before = allowed
    assert (before & between(judge, whole.told, WEB, BACK)).any()


def test_ends_that_are_all_of_a_scope_are_named_as_it(seen: Seen) -> None:
    snapshot = found(seen, TOP).observed.peers.snapshot
    whole = Whole(snapshot, TREE)
    apps = {
        name: parse_filter(f'kubernetes.namespace = "shop" and kubernetes.label.app = "{name}"')
        for name in ("front", "load", "carts")
    }
    provider = NamedEnd("outside", OutsideEnd())
    drafts = [
        Draft(NamedEnd(name, FilterEnd(query)), provider, TCP, frozenset({443}), frozenset())
        for name, query in apps.items()
    ]
    (joined,) = compress(drafts[:2], (), whole, 3)
    assert isinstance(joined.consumer.end, FilterEnd)
    (joined,) = compress(drafts[:2], (), whole, 4)
    assert joined.consumer == NamedEnd("web", ScopeEnd(WEB))
    (joined,) = compress(drafts, (), whole, 4)
    assert isinstance(joined.consumer.end, FilterEnd), "of the others nothing was seen"

    everybody = (*apps.values(), parse_filter('kubernetes.label.app in ("carts-db", "orders")'))
    in_shop = [all_of(namespace_query(CLUSTER, "shop"), one) for one in everybody]
    assert whole.of(in_shop) == NamedEnd("middle", ScopeEnd(MIDDLE))
    alone = Whole(snapshot, ScopeTree(TREE.preorder()[:1]))
    assert alone.of(in_shop) == NamedEnd(
        "shop", FilterEnd(namespace_query(CLUSTER, "shop")), "shop"
    )
    assert alone.of(in_shop[1:]) is None
    assert alone.of([parse_filter('kubernetes.namespace = "none"')]) is None


def test_noise_and_edges_are_those_of_the_scope(seen: Seen) -> None:
    web, top = found(seen, WEB), found(seen, TOP)
    assert len(report(top)["proposals"]) == len(top.observed.route_edge), "there is nobody else"
    few, many = ({reason: count for reason, count, _ in noise(one)} for one in (web, top))
    assert few.keys() <= many.keys()
    assert 0 < sum(few.values()) < sum(many.values())
    for one in report(web)["proposals"]:
        assert {one["consumer"], one["provider"]} & {"shop-front", "shop-load"}
    documents = answer(web, (), NOTHING, every_edge=False)["documents"]
    assert documents.count("kind: Workspace") == 1
