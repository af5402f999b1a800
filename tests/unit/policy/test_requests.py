"""Which requests policies need, what granting them does, and which a rule may grant."""

from dataclasses import replace

import pytest

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import host_network, parse_address, parse_network
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import (
    AddressSetName,
    FilterName,
    PolicyId,
    RevisionId,
    ScopeName,
    WorkspaceName,
)
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    CatchAll,
    CidrEnd,
    Cluster,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import ICMP, TCP, PortRange
from ringfence.model.query import parse
from ringfence.model.ranges import spans
from ringfence.model.scope import InventoryFilter, Scope, ScopeTree
from ringfence.policy import requests
from ringfence.policy.approval import Approvals
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.policy.moment import Moment
from ringfence.policy.requests import Needed, Request, grant, needed
from tests.golden.shop import DENY_ALL, ITEMS, NAMESPACE, NODE1, allow, app

ALLOW_ALL = CatchAll(Action.ALLOW, Action.ALLOW)
TREE = ScopeTree(
    [
        Scope(ScopeName("all"), None, parse("everything")),
        Scope(ScopeName("front"), ScopeName("all"), parse('kubernetes.label.app = "front-end"')),
        Scope(ScopeName("carts"), ScopeName("all"), parse('kubernetes.label.app = "carts"')),
        Scope(ScopeName("nodes"), ScopeName("all"), parse('kind = "node"')),
    ]
)
SNAPSHOT = Snapshot((RevisionId(at), one) for at, one in enumerate(ITEMS, 1))
NETWORKS = [parse_network(text) for text in ("0.0.0.0/0", "::/0")]


def workspace(name: str, *policies: Policy, catch_all: CatchAll = DENY_ALL) -> Workspace:
    clusters = (Cluster("mine", parse("everything")),)
    return Workspace(WorkspaceName(name), ScopeName(name), True, catch_all, clusters, policies)


def ask(*workspaces: Workspace) -> Needed:
    return needed(SNAPSHOT, TREE, workspaces)


def to_carts(consumer: End | None = None, port: int = 8081) -> Policy:
    return allow("to-carts", consumer or ClusterEnd("mine"), app("carts"), port)


def test_a_catch_all_of_another_scope_raises_a_request() -> None:
    front, carts = workspace("front", to_carts()), workspace("carts")
    (request,) = ask(front, carts).requests
    assert (request.workspace, request.policy, request.provider_workspace) == (
        "front",
        "to-carts",
        "carts",
    )
    assert (request.denied_by, request.anybody) == ((), False)
    wanted = request.wanted
    assert wanted.consumer == app("front-end"), "the cluster, in words that mean it elsewhere"
    assert (wanted.provider, wanted.ports) == (app("carts"), (PortRange(8081, 8081),))
    assert (wanted.rank, wanted.action) == (Rank.DEFAULT, Action.ALLOW)
    granted = grant(carts, [request])
    assert granted.policies == (wanted,)
    assert grant(granted, [request]) == granted
    (read,) = parse_documents(format_documents(Documents(workspaces=(granted,))), "").workspaces
    assert read == granted, "as it is stored"
    assert ask(front, granted).requests == ()


def test_nothing_is_asked_where_nothing_stands_in_the_way() -> None:
    front = workspace("front", to_carts())
    assert ask(front).requests == (), "no workspace governs the provider"
    assert ask(front, workspace("carts", catch_all=ALLOW_ALL)).requests == ()
    refused = replace(to_carts(), action=Action.DENY)
    assert ask(workspace("front", refused), workspace("carts")).requests == ()
    secret = Policy(
        PolicyId("no"), ClusterEnd("mine"), app("carts"), None, (), Action.DENY, Rank.ABSOLUTE
    )
    assert ask(workspace("front", secret, to_carts()), workspace("carts")).requests == ()


def test_the_same_is_asked_under_the_same_name() -> None:
    front, carts = workspace("front", to_carts()), workspace("carts")
    (one,) = ask(front, carts).requests
    later = replace(carts, policies=(allow("x", app("payment"), app("carts"), 1),))
    moved = replace(front, policies=(replace(to_carts(), priority=7, description="other"),))
    (same,) = ask(moved, later).requests
    assert same == one
    (other,) = ask(workspace("front", to_carts(port=8082)), carts).requests
    assert other.id != one.id


@pytest.mark.parametrize("rank", Rank)
def test_what_a_policy_denies_is_granted_ahead_of_it(rank: Rank) -> None:
    said = Policy(
        PolicyId("no-front"), app("front-end"), app("carts"), TCP, (), Action.DENY, rank, 5
    )
    front, carts = workspace("front", to_carts()), workspace("carts", said, catch_all=ALLOW_ALL)
    (request,) = ask(front, carts).requests
    assert request.denied_by == ("no-front",)
    assert (request.wanted.rank, request.wanted.priority) == (rank, 5)
    granted = grant(carts, [request])
    assert granted.policies == (request.wanted, said)
    assert ask(front, granted).requests == ()


def test_a_node_port_asks_the_scope_of_the_nodes() -> None:
    """The child scope allows its NodePort Service, the nodes' scope denies."""
    everywhere = CidrEnd(tuple(NETWORKS))
    service = ServiceEnd(NAMESPACE, "front-end")
    front = workspace("front", allow("shoppers", everywhere, service, 80))
    nodes = workspace("nodes")
    (request,) = ask(front, nodes).requests
    assert (request.provider_workspace, request.anybody) == ("nodes", True)
    assert (request.wanted.consumer, request.wanted.provider) == (everywhere, service)
    assert ask(front, grant(nodes, [request])).requests == ()
    assert NODE1.addresses, "the nodes are there to deny"


def test_nobody_asks_for_those_whom_source_ranges_keep_out() -> None:
    *others, front_end = ITEMS
    assert front_end.service
    balancer = (parse_address("198.51.100.7"),)
    spec = replace(
        front_end.service,
        external_addresses=balancer,
        balancer_addresses=balancer,
        source_ranges=(parse_network("203.0.113.0/24"),),
    )
    items = enumerate((*others, replace(front_end, service=spec)), 1)
    snapshot = Snapshot((RevisionId(at), one) for at, one in items)
    shoppers = allow("shoppers", CidrEnd(tuple(NETWORKS)), ServiceEnd(NAMESPACE, "front-end"), 80)
    front, nodes = workspace("front", shoppers), workspace("nodes")
    (request,) = needed(snapshot, TREE, [front, nodes]).requests
    assert needed(snapshot, TREE, [front, grant(nodes, [request])]).requests == ()


def test_a_cidr_is_asked_for_within_the_asking_scope_alone() -> None:
    front = workspace("front", to_carts(CidrEnd(tuple(NETWORKS[:1]))))
    (request,) = ask(front, workspace("carts")).requests
    within = 'kubernetes.label.app = "front-end" and address subnet "0.0.0.0/0"'
    assert request.wanted.consumer == FilterEnd(parse(within))


def test_no_more_is_asked_for_than_the_policy_says() -> None:
    lent = replace(
        to_carts(), protocol=ICMP, ports=(), icmp=(IcmpType(8),), expires_ns=10**18, owner="me"
    )
    front, carts = workspace("front", lent), workspace("carts")
    (request,) = ask(front, carts).requests
    assert (request.wanted.icmp, request.wanted.expires_ns) == (lent.icmp, lent.expires_ns)
    assert ask(front, grant(carts, [request])).requests == ()
    (longer,) = ask(workspace("front", replace(lent, expires_ns=None)), carts).requests
    assert longer.id != request.id
    assert needed(SNAPSHOT, TREE, [front, carts], Moment(10**18)).requests == ()


def test_a_named_filter_is_asked_for_as_it_is_now_and_within_the_scope() -> None:
    pods = InventoryFilter(FilterName("pods"), ScopeName("all"), parse('kind = "pod"'))
    tree = ScopeTree(TREE.preorder(), [pods])
    front = workspace("front", to_carts(NamedFilterEnd(pods.name)))
    (request,) = needed(SNAPSHOT, tree, [front, workspace("carts")]).requests
    within = 'kubernetes.label.app = "front-end" and kind = "pod"'
    assert (request.wanted.consumer, request.anybody) == (FilterEnd(parse(within)), False)


def test_consumers_that_no_filter_cuts_down_are_asked_for_as_anybody() -> None:
    nodes = workspace("nodes", to_carts(OwnNodeEnd()))
    (request,) = ask(nodes, workspace("carts")).requests
    assert (request.wanted.consumer, request.anybody) == (OwnNodeEnd(), True)
    assert decide(request, RULE) == "raised"


def test_what_is_asked_under_an_id_stays_the_same() -> None:
    """Who saw a request and answers it later answers what was seen."""
    front, carts = workspace("front", to_carts()), workspace("carts")
    (shown,) = ask(front, carts).requests
    never = Policy(
        PolicyId("never"), app("front-end"), app("carts"), TCP, (), Action.DENY, Rank.ABSOLUTE, 1
    )
    (other,) = ask(front, replace(carts, policies=(never,))).requests
    assert other.wanted.rank is Rank.ABSOLUTE
    assert other.id != shown.id


def test_a_grant_leaves_what_the_owner_made_of_it() -> None:
    front, carts = workspace("front", to_carts()), workspace("carts")
    (request,) = ask(front, carts).requests
    edited = replace(request.wanted, ports=(PortRange(1, 1),))
    carts = replace(carts, policies=(edited,))
    assert ask(front, carts).requests == (request,)
    granted = grant(carts, [request])
    assert granted.policies[0] == edited
    assert granted.policies[1:] == (replace(request.wanted, id=PolicyId(f"{edited.id}-1")),)
    assert ask(front, granted).requests == ()


def test_a_grant_that_stands_too_low_is_moved() -> None:
    never = Policy(PolicyId("never"), app("front-end"), app("carts"), TCP, (), Action.DENY)
    front, carts = workspace("front", to_carts()), workspace("carts", never)
    (request,) = ask(front, carts).requests
    own = replace(request.wanted, id=PolicyId("mine"), owner="carts")
    low = replace(carts, policies=(never, own))
    assert grant(low, [request]).policies == (own, never)


def test_a_rule_grants_nothing_that_could_not_be_read_again() -> None:
    """Each filter is allowed, and both together are too long."""
    own = 'kubernetes.label.app = "front-end"'
    long = " or ".join(f'name = "{number:030}"' for number in range(1000))
    scope = Scope(ScopeName("front"), ScopeName("all"), parse(f"{own} or {long}"))
    tree = ScopeTree([one for one in TREE.preorder() if one.name != "front"] + [scope])
    front = workspace("front", to_carts(FilterEnd(parse(f'{own} or {long[:-2]}x"'))))
    (request,) = needed(SNAPSHOT, tree, [front, workspace("carts")]).requests
    assert decide(request, RULE) == "raised"


@pytest.mark.parametrize("number", [0, 8])
def test_every_type_of_icmp_is_looked_at(number: int) -> None:
    ping = replace(to_carts(), protocol=ICMP, ports=(), icmp=(IcmpType(number),))
    denied = replace(ping, id=PolicyId("no"), consumer=app("front-end"), action=Action.DENY)
    all_types = replace(ping, icmp=())
    for asking in (ping, all_types):
        carts = workspace("carts", denied, catch_all=ALLOW_ALL)
        (request,) = ask(workspace("front", asking), carts).requests
        assert request.denied_by == ("no",)


def test_more_than_can_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_CONNECTIONS", 1)
    front = workspace("front", to_carts(), to_carts_again())
    found = ask(front, workspace("carts"))
    assert (len(found.requests), found.whole) == (1, False)


def to_carts_again() -> Policy:
    return replace(to_carts(port=8083), id=PolicyId("again"))


RULE = ApprovalRule(
    "r", WorkspaceName("carts"), ScopeName("all"), None, TCP, (PortRange(8000, 8100),), "me", 1
)


CARTS = AddressSetName("carts")
(CARTS_POD,) = (one for one in ITEMS if one.labels.get("kubernetes.label.app") == ("carts",))


def decide(request: Request, *rules: ApprovalRule, state: State | None = None) -> str:
    held = {request.id: state} if state else {}
    moment = Moment(sets={CARTS: spans([host_network(one) for one in CARTS_POD.addresses])})
    answers = Approvals(SNAPSHOT, TREE, rules, moment).decide(held, Needed((request,), True))
    if answers.granted:
        return "granted"
    return "raised" if answers.raised else ""


def test_a_rule_grants_what_it_covers_and_no_more() -> None:
    (request,) = ask(workspace("front", to_carts()), workspace("carts")).requests
    assert decide(request) == "raised"
    assert decide(request, RULE) == "granted"
    for narrower in (
        replace(RULE, scope=ScopeName("nodes")),
        replace(RULE, provider_workspace=WorkspaceName("nodes")),
        replace(RULE, protocol=17),
        replace(RULE, ports=(PortRange(80, 80),)),
        replace(RULE, provider=parse('kubernetes.label.app = "other"')),
    ):
        assert decide(request, narrower) == "raised", narrower
    assert decide(request, replace(RULE, provider=parse('kubernetes.label.app = "carts"'))) == (
        "granted"
    )
    assert decide(replace(request, denied_by=(PolicyId("no"),)), RULE) == "raised"
    assert decide(replace(request, anybody=True), RULE) == "raised"
    every_port = replace(request, wanted=replace(request.wanted, ports=()))
    assert decide(every_port, RULE) == "raised"


@pytest.mark.parametrize(
    ("provider", "label", "answer"),
    [
        (app("carts"), "carts", "granted"),
        (AddressSetEnd(CARTS), "carts", "granted"),
        (AddressSetEnd(CARTS), "other", "raised"),
        (AddressSetEnd(AddressSetName("gone")), "carts", "raised"),
        (FqdnEnd("carts.example.org"), "carts", "raised"),
        (CidrEnd(tuple(map(host_network, CARTS_POD.addresses))), "carts", "granted"),
        (ServiceEnd(NAMESPACE, "gone"), "carts", "raised"),
        (ScopeEnd(ScopeName("carts")), "carts", "granted"),
        (ScopeEnd(ScopeName("gone")), "carts", "raised"),
        (NamedFilterEnd(FilterName("gone")), "carts", "raised"),
        (OwnNodeEnd(), "carts", "raised"),
    ],
)
def test_a_rule_judges_whomever_a_request_would_open(
    provider: End, label: str, answer: str
) -> None:
    (request,) = ask(workspace("front", to_carts()), workspace("carts")).requests
    asked = replace(request, wanted=replace(request.wanted, provider=provider))
    rule = replace(RULE, provider=parse(f'kubernetes.label.app = "{label}"'))
    assert decide(asked, rule) == answer


def test_answers_are_remembered_and_requests_close() -> None:
    (request,) = ask(workspace("front", to_carts()), workspace("carts")).requests
    assert decide(request, state=State.PENDING) == ""
    assert decide(request, RULE, state=State.PENDING) == "granted"
    assert decide(request, RULE, state=State.REJECTED) == ""
    assert decide(request, state=State.APPROVED) == "raised", "its policy was taken out again"
    approvals = Approvals(SNAPSHOT, TREE, (), Moment())
    held = {"p": State.PENDING, "a": State.APPROVED, "r": State.REJECTED}
    assert approvals.decide(held, Needed((), True)).closed == ("p",)
    assert approvals.decide(held, Needed((), False)).closed == ()
