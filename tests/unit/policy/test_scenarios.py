"""The verdicts that the definition of policy gives as examples, asked of evaluator and oracle.

The world: Kubernetes cluster `east` with one node, and namespaces `a` and `b` with a pod each;
`b` has a NodePort Service, and `host-agent` shares the node's addresses. `outside` is no item.

Scenarios of the definition that are not here belong to other rooms: that a reply or an ICMP error
about an allowed connection passes is the back ends' doing, a refused enforcement and the analysis
of a version beside the enforced set are the control plane's.
"""

from dataclasses import dataclass, replace

import pytest

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import (
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    End,
    FilterEnd,
    FqdnEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import ICMP, TCP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.verdict import EndRole, Verdict
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import Enforced, PolicySet

ALLOW, DENY = Action.ALLOW, Action.DENY
EAST = ClusterId("east")
A, B, NODE = parse_address("10.1.0.2"), parse_address("10.1.0.3"), parse_address("192.168.0.1")
CLUSTER_IP, OUTSIDE = parse_address("10.100.0.7"), parse_address("203.0.113.9")


def item(kind: ItemKind, namespace: str, name: str, *addresses: str) -> Item:
    labels = make_labels([("kind", kind), ("namespace", namespace), ("name", name)])
    held = tuple(map(parse_address, addresses))
    node = "node1" if kind is ItemKind.POD else ""
    return Item(item_key(EAST, kind, name), kind, EAST, namespace, name, held, labels, node)


POD_B = item(ItemKind.POD, "b", "pod-b", "10.1.0.3")
SERVICE = replace(
    item(ItemKind.SERVICE, "b", "front", "10.100.0.7"),
    service=ServiceSpec(
        ServiceType.NODE_PORT,
        (ServicePort("http", TCP, 80, 31095),),
        (Backend("http", TCP, B, 8079, True, POD_B.key),),
    ),
)
ITEMS = [
    item(ItemKind.NODE, "", "node1", "192.168.0.1", "10.1.0.1"),
    item(ItemKind.POD, "a", "pod-a", "10.1.0.2"),
    POD_B,
    replace(item(ItemKind.POD, "a", "host-agent", "192.168.0.1"), host_network=True),
    SERVICE,
]
SNAPSHOT = Snapshot((RevisionId(number), one) for number, one in enumerate(ITEMS, 1))

# root ─┬─ a ─── deep      pod-a
#       ├─ b               pod-b
#       ├─ both            pod-a and pod-b
#       └─ nodes
TREE = ScopeTree(
    Scope(ScopeName(name), ScopeName(parent) if parent else None, parse(query), order)
    for order, (name, parent, query) in enumerate(
        [
            ("root", "", "everything"),
            ("a", "root", 'namespace = "a"'),
            ("deep", "a", 'name = "pod-a" or name = "host-agent"'),
            ("b", "root", 'namespace = "b"'),
            ("both", "root", 'kind = "pod"'),
            ("nodes", "root", 'kind = "node"'),
        ]
    )
)
POD_A, FRONT = FilterEnd(parse('name = "pod-a"')), ServiceEnd("b", "front")
JUST_B = (parse_network("10.1.0.3"),)
ANY = CidrEnd((parse_network("0.0.0.0/0"),))


def policy(
    action: Action, consumer: End, provider: End, port: int = 0, rank: Rank = Rank.DEFAULT
) -> Policy:
    ports = (PortRange(port, port),) if port else ()
    name = PolicyId(f"{action} {port}")
    return Policy(name, consumer, provider, TCP if port else None, ports, action, rank)


def workspace(scope: str, catch_all: Action, *policies: Policy) -> Enforced:
    name, both = WorkspaceName(f"w-{scope}"), CatchAll(catch_all, catch_all)
    return Workspace(name, ScopeName(scope), True, both, (), policies), Version(3)


def direct(consumer: Address, provider: Address, port: int, protocol: int = TCP) -> Connection:
    return Connection(protocol, consumer, provider, port, provider, port)


def dialled(
    consumer: Address, address: Address, port: int, node: Address | None = None
) -> Connection:
    return Connection(TCP, consumer, B, 8079, address, port, node)


@dataclass
class Scenario:
    """`deciding` names, for each end that decides, its scope and stage."""

    says: str
    enforced: list[Enforced]
    connection: Connection
    allowed: bool
    deciding: dict[str, str]


A_TO_B = direct(A, B, 5432)
SCENARIOS = [
    Scenario(
        "root catch-all DENY, leaf catch-all ALLOW, no policy matches",
        [workspace("root", DENY), workspace("a", ALLOW), workspace("b", ALLOW)],
        A_TO_B,
        True,
        {"consumer": "a catch-all", "provider": "b catch-all"},
    ),
    Scenario(
        "leaf not enforced, root enforced with catch-all DENY",
        [workspace("root", DENY)],
        A_TO_B,
        False,
        {"consumer": "root catch-all", "provider": "root catch-all"},
    ),
    Scenario(
        "default policies of a/deep and of the later sibling conflict: the sibling's",
        [
            workspace("deep", DENY, policy(DENY, POD_A, ANY)),
            workspace("both", ALLOW, policy(ALLOW, POD_A, ANY)),
        ],
        A_TO_B,
        True,
        {"consumer": "both default", "provider": "both default"},
    ),
    Scenario(
        "had they been absolute, a/deep's",
        [
            workspace("deep", DENY, policy(DENY, POD_A, ANY, rank=Rank.ABSOLUTE)),
            workspace("both", ALLOW, policy(ALLOW, POD_A, ANY, rank=Rank.ABSOLUTE)),
        ],
        A_TO_B,
        False,
        {"consumer": "deep absolute", "provider": "both absolute"},
    ),
    Scenario(
        "provider not governed, consumer allows",
        [workspace("a", DENY, policy(ALLOW, POD_A, ANY, 5432))],
        A_TO_B,
        True,
        {"consumer": "a default"},
    ),
    Scenario(
        "policy in b's workspace, consumer outside b: decides inbound only",
        [workspace("b", DENY, policy(ALLOW, POD_A, ScopeEnd(ScopeName("b"))))],
        A_TO_B,
        True,
        {"provider": "b default"},
    ),
    Scenario(
        "DENY at the consumer, ALLOW at the provider",
        [workspace("a", DENY), workspace("b", ALLOW)],
        A_TO_B,
        False,
        {"consumer": "a catch-all", "provider": "b catch-all"},
    ),
    Scenario(
        "ALLOW to a Service, its pod is dialled directly: allowed on the target port",
        [workspace("both", DENY, policy(ALLOW, POD_A, FRONT, 80))],
        direct(A, B, 8079),
        True,
        {"consumer": "both default", "provider": "both default"},
    ),
    Scenario(
        "and on no other port, the Service's own included",
        [workspace("both", DENY, policy(ALLOW, POD_A, FRONT, 80))],
        direct(A, B, 80),
        False,
        {"consumer": "both catch-all", "provider": "both catch-all"},
    ),
    Scenario(
        "ALLOW to a Service, dialled at its ClusterIP",
        [workspace("both", DENY, policy(ALLOW, POD_A, FRONT, 80))],
        dialled(A, CLUSTER_IP, 80),
        True,
        {"consumer": "both default", "provider": "both default"},
    ),
    Scenario(
        "a filter on the pods behind a Service names the provider after translation",
        [workspace("both", DENY, policy(ALLOW, POD_A, ScopeEnd(ScopeName("b")), 8079))],
        dialled(A, CLUSTER_IP, 80),
        True,
        {"consumer": "both default", "provider": "both default"},
    ),
    Scenario(
        "child scope allows its NodePort Service, the nodes' scope denies",
        [workspace("b", DENY, policy(ALLOW, ANY, FRONT, 80)), workspace("nodes", DENY)],
        dialled(OUTSIDE, NODE, 31095, NODE),
        False,
        {"provider": "b default", "node": "nodes catch-all"},
    ),
    Scenario(
        "the nodes' scope allows the Service too",
        [
            workspace("b", DENY, policy(ALLOW, ANY, FRONT, 80)),
            workspace("nodes", DENY, policy(ALLOW, ANY, FRONT, 80)),
        ],
        dialled(OUTSIDE, NODE, 31095, NODE),
        True,
        {"provider": "b default", "node": "nodes default"},
    ),
    Scenario(
        "the receiving node decides on the Service, not on what stands behind it",
        [workspace("nodes", DENY, policy(ALLOW, ANY, ScopeEnd(ScopeName("b"))))],
        dialled(OUTSIDE, NODE, 31095, NODE),
        False,
        {"node": "nodes catch-all"},
    ),
    Scenario(
        "kubelet probe, no policy, catch-all DENY",
        [workspace("b", DENY)],
        direct(NODE, B, 8079),
        False,
        {"provider": "b catch-all"},
    ),
    Scenario(
        "kubelet probe, allowed from the pod's own node",
        [workspace("b", DENY, policy(ALLOW, OwnNodeEnd(), ScopeEnd(ScopeName("b")), 8079))],
        direct(NODE, B, 8079),
        True,
        {"provider": "b default"},
    ),
    Scenario(
        "TCP with no ports given: all ports",
        [workspace("b", DENY, replace(policy(ALLOW, POD_A, ANY), protocol=TCP))],
        direct(A, B, 65535),
        True,
        {"provider": "b default"},
    ),
    Scenario(
        "and no other protocol",
        [workspace("b", DENY, replace(policy(ALLOW, POD_A, ANY), protocol=TCP))],
        direct(A, B, 0, ICMP),
        False,
        {"provider": "b catch-all"},
    ),
    Scenario(
        "provider filter that hits a host-network pod only: no match",
        [workspace("a", DENY, policy(ALLOW, POD_A, FilterEnd(parse('name = "host-agent"'))))],
        direct(A, NODE, 9100),
        False,
        {"consumer": "a catch-all"},
    ),
    Scenario(
        "ALLOW to a name that nothing is known of matches nothing",
        [workspace("a", DENY, policy(ALLOW, POD_A, FqdnEnd("example.org")))],
        direct(A, OUTSIDE, 443),
        False,
        {"consumer": "a catch-all"},
    ),
    Scenario(
        "DENY to a Service that is none matches everyone",
        [workspace("a", ALLOW, policy(DENY, POD_A, ServiceEnd("b", "gone")))],
        direct(A, OUTSIDE, 443),
        False,
        {"consumer": "a default"},
    ),
    Scenario(
        "a block of one address holds an address inside the cluster",
        [workspace("a", DENY, policy(ALLOW, POD_A, CidrEnd(JUST_B)))],
        A_TO_B,
        True,
        {"consumer": "a default"},
    ),
    Scenario(
        "and not what is excepted",
        [workspace("a", DENY, policy(ALLOW, POD_A, replace(ANY, exceptions=JUST_B)))],
        A_TO_B,
        False,
        {"consumer": "a catch-all"},
    ),
    Scenario(
        "an IPv6 block holds no IPv4 address",
        [workspace("a", DENY, policy(ALLOW, POD_A, CidrEnd((parse_network("::/0"),))))],
        direct(A, OUTSIDE, 443),
        False,
        {"consumer": "a catch-all"},
    ),
    Scenario(
        "nothing enforced, nobody decides",
        [],
        A_TO_B,
        True,
        {},
    ),
]


def told(verdict: Verdict) -> dict[str, str]:
    return {
        str(end.role): f"{end.deciding.scope} {end.deciding.stage}"
        for end in verdict.ends
        if end.deciding
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.says)
def test_scenario(scenario: Scenario) -> None:
    policy_set = PolicySet(SNAPSHOT, TREE, scenario.enforced)
    columns = tabulate(SNAPSHOT, [scenario.connection])
    verdict = explain([policy_set], columns)[0]
    assert verdict == Oracle(ITEMS, TREE, scenario.enforced).judge(scenario.connection)
    assert told(verdict) == scenario.deciding
    assert verdict.allowed is scenario.allowed
    verdicts = evaluate(policy_set, columns)
    assert verdicts.allowed.tolist() == [scenario.allowed]
    for role in EndRole:
        place = int(verdicts.deciding(role)[0])
        rule = policy_set.rules[place].decision if place >= 0 else None
        assert (rule and f"{rule.scope} {rule.stage}") == scenario.deciding.get(role)


def test_every_matching_rule_is_told_in_order() -> None:
    first = replace(policy(DENY, POD_A, ANY, 443), priority=1)
    bound = workspace("a", ALLOW, policy(ALLOW, POD_A, ANY), first)
    policy_set = PolicySet(SNAPSHOT, TREE, [bound, workspace("root", DENY)])
    (end,) = explain([policy_set], tabulate(SNAPSHOT, [direct(A, OUTSIDE, 443)]))[0].ends
    assert [(one.policy, one.scope) for one in end.matching] == [
        ("DENY 443", "a"),
        ("ALLOW 0", "a"),
        (None, "a"),
        (None, "root"),
    ]
    assert [one.place for one in end.matching] == sorted(one.place for one in end.matching)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="given twice"):
        PolicySet(SNAPSHOT, TREE, [workspace("a", DENY), workspace("a", DENY)])
    with pytest.raises(InputError, match="no scope 'gone'"):
        PolicySet(SNAPSHOT, TREE, [workspace("gone", DENY)])
    with pytest.raises(InputError, match="opens no connections"):
        policy(ALLOW, FRONT, ANY)
