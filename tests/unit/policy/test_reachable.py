"""Reach told in names: namespaces, owners, blocks, ports.

Namespace `a` has two replicas of carts and one of db, `b` one pod; all run on one node.
"""

from collections.abc import Sequence
from dataclasses import replace

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import PolicyId, RevisionId, ScopeName
from ringfence.model.policy import Action, CatchAll, CidrEnd, FilterEnd, OwnNodeEnd, Policy
from ringfence.model.protocol import UDP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import ItemKind
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.reach import Survey
from ringfence.policy.reachable import gained, inbound, outbound
from tests.unit.policy.test_scenarios import item, policy, workspace

ALLOW, DENY = Action.ALLOW, Action.DENY
ITEMS = [
    item(ItemKind.NODE, "", "node1", "192.168.0.1"),
    replace(item(ItemKind.POD, "a", "carts-1", "10.1.0.2"), workload_name="carts"),
    replace(item(ItemKind.POD, "a", "carts-2", "10.1.0.3"), workload_name="carts"),
    replace(item(ItemKind.POD, "a", "db-1", "10.1.0.4"), workload_name="db"),
    replace(item(ItemKind.POD, "b", "web-1", "10.1.0.5"), workload_name="web"),
]
SNAPSHOT = Snapshot((RevisionId(number), one) for number, one in enumerate(ITEMS, 1))
TREE = ScopeTree([Scope(ScopeName("root"), None, parse('kind = "pod"'))])
DB, WEB = (FilterEnd(parse(f'name = "{name}"')) for name in ("db-1", "web-1"))
IN_A = FilterEnd(parse('namespace = "a"'))


def enforced(*policies: Policy) -> PolicySet:
    """Anything may leave; what comes in needs a policy."""
    ((bound, version),) = [workspace("root", DENY, *policies)]
    bound = replace(bound, catch_all=CatchAll(inbound=DENY, outbound=ALLOW))
    both: Sequence[Enforced] = [(bound, version)]
    return PolicySet(SNAPSHOT, TREE, both)


def position(name: str) -> int:
    return next(at for at, one in enumerate(SNAPSHOT.items) if one.name == name)


def told(name: str, *policies: Policy) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    reach = Survey([enforced(*policies)]).judge(0)
    return {
        "outbound": [(one.names, one.connections) for one in outbound(reach, position(name))],
        "inbound": [(one.names, one.connections) for one in inbound(reach, position(name))],
    }


def test_rules_may_name_every_protocol() -> None:
    every = [
        replace(policy(ALLOW, WEB, DB), id=PolicyId(f"p{number}"), protocol=number)
        for number in range(256)
    ]
    ((names, connections),) = told("db-1", *every)["inbound"]
    assert names == ("b/*",)
    assert "other protocols" not in connections


def test_peers_have_the_shortest_names_and_ports_are_ranges() -> None:
    dns = replace(policy(ALLOW, WEB, DB), protocol=UDP, ports=(PortRange(53, 53),))
    some = CidrEnd((parse_network("10.1.0.0/30"),), (parse_network("10.1.0.3"),))
    reach = told(
        "db-1",
        policy(ALLOW, IN_A, DB, 80),
        replace(policy(ALLOW, IN_A, DB, 81), ports=(PortRange(81, 99), PortRange(443, 443))),
        dns,
        policy(ALLOW, some, DB, 5432),
    )
    assert reach["inbound"] == [
        (("10.1.0.0/31", "10.1.0.2/32"), "TCP 5432"),
        (("a/carts-1",), "TCP 80-99, 443, 5432"),
        (("a/carts-2",), "TCP 80-99, 443"),
        (("b/*",), "UDP 53"),
    ]
    blocks = "10.1.0.0/31", "10.1.0.2/32"
    assert reach["outbound"] == [(("nodes", *blocks, "other addresses"), "any")]
    everyone = told("web-1", replace(policy(ALLOW, IN_A, WEB), id=dns.id))
    assert everyone["inbound"] == [(("a/*",), "any")]


def test_a_pods_own_node_is_told_apart() -> None:
    assert told("db-1", policy(ALLOW, OwnNodeEnd(), DB, 80))["inbound"] == [(("nodes",), "TCP 80")]
    survey = Survey([enforced(), enforced(policy(ALLOW, OwnNodeEnd(), DB, 80))])
    old, new = survey.judge(0), survey.judge(1)
    (only,) = gained(old, new)
    assert (only.consumers, only.providers, only.connections) == (
        ("its own node",),
        ("a/db",),
        "TCP 80",
    )
    assert not gained(new, old)


def test_a_pod_with_two_addresses_reaches_its_own_node_by_either() -> None:
    dual = [
        replace(one, addresses=(one.addresses[0], parse_address(f"fd00::{number}")))
        for number, one in enumerate(ITEMS, 1)
    ]
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(dual, 1))
    for block in ("10.1.0.4/32", "fd00::4/128"):
        rule = policy(ALLOW, OwnNodeEnd(), CidrEnd((parse_network(block),)), 80)
        layer = PolicySet(snapshot, TREE, enforced(rule).enforced)
        reach = Survey([layer]).judge(0)
        (only,) = inbound(reach, position("db-1"))
        assert (only.names, only.connections) == (("nodes",), "TCP 80")
        mutual = [(one.names, one.connections) for one in outbound(reach, position("node1"))]
        assert (("a/db",), "TCP 80") in mutual


def test_the_rest_of_a_workloads_own_namespace_is_told_as_one() -> None:
    assert told("carts-1", policy(ALLOW, IN_A, IN_A, 80))["inbound"] == [(("a/*",), "TCP 80")]


def test_what_changes_for_many_is_told_once() -> None:
    survey = Survey([enforced(), enforced(policy(ALLOW, IN_A, WEB, 443))])
    (only,) = gained(survey.judge(0), survey.judge(1))
    assert (only.consumers, only.providers) == (("a/*",), ("b/*",))
