"""Every kind of end and of port means the same to evaluator, oracle and rules.

The worlds are those of `test_evaluate`, with an API server in each Kubernetes cluster and with
containers that name their ports, not all of them alike.
"""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_address
from ringfence.model.address_set import parse_range
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import (
    FilterName,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    SPOKEN,
    SPOKEN_BY_POLICIES,
    AddressSetEnd,
    ApiServerEnd,
    CatchAll,
    CidrEnd,
    Cluster,
    End,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    Workspace,
)
from ringfence.model.protocol import ICMP, TCP, UDP, Port, PortName, PortRange
from ringfence.model.ranges import union
from ringfence.model.scope import InventoryFilter, ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.moment import Moment
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import Enforced, PolicySet
from tests.property.policy_world import (
    CLUSTERS,
    EMPTY,
    LISTED,
    OUTSIDE,
    PORTS,
    QUERIES,
    connections,
    consumer_ends,
    pods_and_nodes,
    provider_ends,
    services,
    trees,
)
from tests.property.test_compile import hold_against_rules

PING, ANY_ERROR = IcmpType(8, 0), IcmpType(3)
MESSAGES = [8 << 8, 3 << 8, 3 << 8 | 4, 11 << 8]
ELSEWHERE = [parse_address(text) for text in ("169.254.169.254", "224.0.0.1", "fe80::7")]
ASKED = 8
NAMES = [PortName("p80"), PortName("p443"), PortName("metrics")]


@st.composite
def worlds(draw: st.DrawFn) -> list[Item]:
    workloads = draw(pods_and_nodes())
    named = [
        replace(
            one,
            containers=tuple(
                ContainerPort(draw(st.sampled_from(NAMES)), draw(protocols), draw(ports))
                for _ in range(draw(st.integers(0, 2)))
            ),
        )
        for one in workloads
    ]
    pods = [one for one in named if one.kind is ItemKind.POD]
    return named + draw(services(pods)) + draw(api_services(workloads))


protocols = st.sampled_from([TCP, TCP, UDP])
ports = st.sampled_from(PORTS)


@st.composite
def api_services(draw: st.DrawFn, workloads: list[Item]) -> list[Item]:
    """In some clusters, answered by a node or by a host that nobody knows."""
    found = []
    for number, cluster in enumerate(CLUSTERS):
        if draw(st.integers(0, 3)) == 0:
            continue
        nodes = [one for one in workloads if (one.kind, one.cluster) == (ItemKind.NODE, cluster)]
        answers = draw(st.sampled_from([nodes[0].addresses[0], parse_address("192.0.2.6")]))
        spec = ServiceSpec(
            ServiceType.CLUSTER_IP,
            (ServicePort("p443", TCP, 443),),
            (Backend("p443", TCP, answers, 6443, True, None),),
        )
        held = (parse_address(f"10.100.{number}.1"),)
        labels = make_labels([("kind", "service")])
        key = item_key(cluster, "service", "kubernetes")
        found.append(
            Item(
                key, ItemKind.SERVICE, cluster, "default", "kubernetes", held, labels, service=spec
            )
        )
    return found


special = st.one_of(
    st.builds(ApiServerEnd, st.sampled_from(["", "", "west"])),
    st.builds(OutsideEnd),
    st.builds(NamedFilterEnd, st.sampled_from([FilterName("free"), FilterName("held")])),
    st.builds(FqdnEnd, st.sampled_from(["api.example.org", "*.example.org"])),
    st.builds(AddressSetEnd, st.just(LISTED)),
)
LISTS = ["0.0.0.0-10.1.1.2", "10.1.1.3-10.1.2.255", "203.0.113.9", "fd00::/9", "192.0.2.6"]
NAMED = ["api.example.org", "www.example.org", "a.b.example.org", "example.org"]
NOW_NS = 10


@st.composite
def moments(draw: st.DrawFn, items: list[Item]) -> Moment:
    """Names with addresses outside, and some that no answer may speak of."""
    held = [address for one in items for address in one.addresses]
    addresses = st.frozensets(st.sampled_from([*OUTSIDE, *OUTSIDE, *ELSEWHERE, *held]), max_size=3)
    names = draw(st.dictionaries(st.sampled_from(NAMED), addresses))
    listed = draw(st.lists(st.sampled_from(LISTS), max_size=3))
    return Moment(NOW_NS, names, {LISTED: union(map(parse_range, listed)), EMPTY: ()})


@st.composite
def filters(draw: st.DrawFn, scopes: list[ScopeName]) -> list[InventoryFilter]:
    """One that is restricted to its scope, one that is not."""
    return [
        InventoryFilter(
            FilterName(name), draw(st.sampled_from(scopes)), draw(st.sampled_from(QUERIES)), held
        )
        for name, held in (("free", False), ("held", True))
    ]


@st.composite
def policies(draw: st.DrawFn, tree: ScopeTree, number: int) -> Policy:
    consumer = draw(special | consumer_ends(tree))
    provider: End = draw(special | provider_ends(tree))
    protocol = draw(st.sampled_from([None, TCP, TCP, TCP, UDP, ICMP]))
    numbers = st.builds(lambda first: PortRange(first, first), ports)
    named: st.SearchStrategy[Port] = st.sampled_from(NAMES)
    choices: list[st.SearchStrategy[Port]] = [numbers]
    if not isinstance(provider, CidrEnd | AddressSetEnd | FqdnEnd | OwnNodeEnd | OutsideEnd):
        choices.append(named)
    given_ports = draw(st.lists(st.one_of(choices), max_size=2)) if protocol in (TCP, UDP) else ()
    types = draw(st.lists(st.sampled_from([PING, ANY_ERROR]), max_size=2))
    return Policy(
        PolicyId(f"p{number}"),
        consumer,
        provider,
        protocol,
        tuple(given_ports),
        draw(st.sampled_from(SPOKEN_BY_POLICIES)),
        draw(st.sampled_from(Rank)),
        draw(st.integers(1, 3)),
        icmp=tuple(types) if protocol == ICMP else (),
        expires_ns=draw(st.sampled_from([None, None, NOW_NS, NOW_NS + 1])),
        review=draw(st.sampled_from(["", "", "", "seen lately"])),
    )


@st.composite
def enforced(draw: st.DrawFn, tree: ScopeTree) -> list[Enforced]:
    actions = st.sampled_from(SPOKEN)
    return [
        (
            Workspace(
                WorkspaceName(f"w{number}"),
                draw(st.sampled_from(tree.preorder())).name,
                False,
                CatchAll(draw(actions), draw(actions)),
                tuple(Cluster(f"c{n}", draw(st.sampled_from(QUERIES))) for n in range(2)),
                tuple(draw(policies(tree, n)) for n in range(draw(st.integers(2, 5)))),
            ),
            Version(1),
        )
        for number in range(2)
    ]


@st.composite
def asked_of(draw: st.DrawFn, items: list[Item]) -> Connection:
    """A connection of any kind; ICMP as messages, and some to and from where no hosts are."""
    found = draw(connections(items))
    strange = st.sampled_from(ELSEWHERE)
    if draw(st.integers(0, 9)) == 0:
        found = replace(found, consumer=draw(strange))
    if draw(st.integers(0, 9)) == 0:
        there = draw(strange)
        found = replace(found, provider=there, dialled=there, dialled_port=found.provider_port)
    if found.protocol == ICMP:
        message = draw(st.sampled_from(MESSAGES))
        found = replace(found, provider_port=message, dialled_port=message)
    return found


@given(st.data())
def test_all_who_judge_agree(data: st.DataObject) -> None:
    items = data.draw(worlds())
    scopes = data.draw(trees()).preorder()
    tree = ScopeTree(scopes, data.draw(filters([scope.name for scope in scopes])))
    bound = data.draw(enforced(tree))
    moment = data.draw(moments(items))
    asked = data.draw(st.lists(asked_of(items), min_size=ASKED, max_size=ASKED))
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    policy_set = PolicySet(snapshot, tree, bound, moment)
    columns = tabulate(snapshot, asked)
    verdicts, explanations = evaluate(policy_set, columns), explain([policy_set], columns)
    oracle = Oracle(items, tree, bound, moment)
    for row, connection in enumerate(asked):
        expected = oracle.judge(connection)
        assert explanations[row] == expected
        assert bool(verdicts.allowed[row]) is expected.allowed
        deciding = {end.role: end.deciding for end in expected.ends}
        for role in EndRole:
            place = int(verdicts.deciding(role)[row])
            rule = policy_set.rules[place].decision if place >= 0 else None
            assert rule == deciding.get(role)
    hold_against_rules(policy_set, items, asked)
