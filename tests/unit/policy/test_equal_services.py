"""Clusters with equal networks: policies on the one's Services leave the other's pods alone.

Here and in the far cluster nodes and pods have equal addresses. One pod and one node of the far
one's are elsewhere, where routes lead from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from ringfence.model.address import format_address, parse_address, parse_network
from ringfence.model.ids import ClusterId, PolicyId, item_key
from ringfence.model.policy import (
    Action,
    ApiServerEnd,
    CidrEnd,
    End,
    Policy,
    ServiceEnd,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind, ServiceType
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, Connections, tabulate
from ringfence.policy.evaluate import UNGOVERNED, evaluate
from ringfence.policy.listed import listed
from ringfence.policy.order import PolicySet
from ringfence.policy.spared import FailSafes
from tests.golden.shop import (
    CARTS,
    CLUSTER,
    FRONT_END,
    ITEMS,
    NAMESPACE,
    NODE1,
    USER_DB,
    app,
    policy_set,
    service,
)
from tests.unit.policy.test_equal_networks import FAR, FAR_NODE, FAR_PODS, far

POD_NETWORK = (parse_network("10.244.0.0/16"),)
FAR_FRONT, FAR_CARTS = FAR_PODS
FAR_DB = far("far-db", USER_DB, CARTS)
ROUTED = replace(far("routed", CARTS, CARTS), addresses=(parse_address("10.8.0.5"),))
ROUTED_NODE = replace(
    FAR_NODE,
    key=item_key(FAR, ItemKind.NODE, "routed-node"),
    name="routed-node",
    addresses=(parse_address("192.0.2.30"),),
)
HOST = replace(
    FRONT_END, key=item_key(ClusterId(""), ItemKind.HOST, "h1"), kind=ItemKind.HOST,
    cluster=ClusterId(""), namespace="", name="h1", node="",
    addresses=(parse_address("203.0.113.5"),),
)  # fmt: skip
BALANCER = parse_address("198.51.100.80")


def of_far(one: Item, *, balancer: bool = False) -> Item:
    """A Service as the far cluster's."""
    spec = one.service
    if balancer and spec:
        spec = replace(spec, type=ServiceType.LOAD_BALANCER, external_addresses=(BALANCER,),
                       balancer_addresses=(BALANCER,))  # fmt: skip
    key = item_key(FAR, ItemKind.SERVICE, f"{one.namespace}-{one.name}")
    return replace(one, key=key, cluster=FAR, service=spec)


def api_server(*nodes: Item) -> Item:
    found = service("kubernetes", "10.100.0.1", 443, [(one, 6443) for one in nodes])
    return replace(found, namespace="default")


WORLD = (
    *(replace(one, pod_networks=POD_NETWORK) if one.kind is ItemKind.NODE else one
      for one in ITEMS),
    FAR_NODE, ROUTED_NODE, FAR_FRONT, FAR_CARTS, FAR_DB, ROUTED, HOST,
    of_far(service("carts", "10.100.135.136", 80, [(FAR_CARTS, 8081), (ROUTED, 8081)], 31080),
           balancer=True),
    api_server(NODE1),
)  # fmt: skip
OWN_SERVICE, FARS_SERVICE = ServiceEnd(NAMESPACE, "carts"), ServiceEnd(NAMESPACE, "carts", FAR)


NAME = PolicyId("p")
BOTH, NEITHER = [NAME, NAME], [None, None]
"""Who decides at two ends: the policy, or catch-alls."""


@dataclass(frozen=True)
class World:
    """Policies over both clusters, as they are judged and as nodes have them."""

    held: PolicySet
    compiled: Compiled

    def rules(self, workload: Item, hook: str) -> list[tuple[str, ...]]:
        """What policies say at a workload: to which ports, and of which peers."""
        at = self.held.snapshot.position(workload.key)
        listing = listed(self.held.snapshot, self.compiled, at)
        sets = self.compiled.policies[workload.cluster, listing.node].sets
        return [
            (_text(one.rule.ports), _text(sets[one.rule.peers]))
            for one in listing.rules
            if one.hook == hook and one.program and one.rule.peers
        ]

    def judge(self, consumer: str, *to: tuple[str, int], home: ClusterId = CLUSTER) -> list[object]:
        """What decides at the governed ends of a connection as `asked` has it, None a catch-all."""
        verdicts = evaluate(self.held, asked(self.held, consumer, *to, home=home))
        places = [int(verdicts.deciding(role)[0]) for role in EndRole]
        return [self.held.rules[at].decision.policy for at in places if at != UNGOVERNED]


def asked(held: PolicySet, consumer: str, *to: tuple[str, int], home: ClusterId) -> Connections:
    """A connection as seen in a cluster: to where it is dialled and, if elsewhere, answered."""
    (dialled, port), (provider, reached) = to[0], to[-1]
    source, there, named = map(parse_address, (consumer, provider, dialled))
    return tabulate(
        held.snapshot, [Connection(TCP, source, there, reached, named, port, home=home)]
    )


def _text(parts: Iterable[object]) -> str:
    return " ".join(str(one).removesuffix("/32") for one in parts)


def world(
    consumer: End,
    provider: End,
    *ports: int,
    action: Action = Action.ALLOW,
    items: Iterable[Item] = (),
) -> World:
    """One policy; `items` there are besides."""
    policy = Policy(NAME, consumer, provider, TCP, tuple(PortRange(n, n) for n in ports), action)
    held = policy_set(policy, items=(*WORLD, *items))
    return World(held, compile_policies(held, ()))


def cidr(*networks: str) -> CidrEnd:
    return CidrEnd(tuple(map(parse_network, networks)))


@pytest.mark.parametrize(
    ("workload", "home", "fronts", "nodes", "backends"),
    [
        (FRONT_END, CLUSTER, "198.51.100.80", "192.0.2.30", "10.8.0.5"),
        (HOST, ClusterId(""), "10.100.135.136 198.51.100.80", "192.0.2.30", "10.8.0.5"),
        (FAR_FRONT, FAR, "10.100.135.136 198.51.100.80", "10.244.1.1 172.30.0.11 192.0.2.30",
         "10.8.0.5 10.244.1.10"),
    ],
)  # fmt: skip
def test_another_s_service_is_dialled_where_routes_lead(
    workload: Item, home: ClusterId, fronts: str, nodes: str, backends: str
) -> None:
    """Its balancer, its node port and its backends; not at addresses that are own ones here."""
    found = world(app("front-end"), FARS_SERVICE, 80)
    told = [("80", fronts), ("31080", nodes), ("8081", backends)]
    assert found.rules(workload, "output") == told
    source, routed = format_address(workload.addresses[0]), ("10.8.0.5", 8081)
    for dialled in (("198.51.100.80", 80), ("192.0.2.30", 31080), routed):
        assert found.judge(source, dialled, routed, home=home) == BOTH
    assert found.judge(source, ("10.8.0.5", 8082), home=home) == NEITHER


def test_another_s_service_opens_its_own_backends() -> None:
    found = world(app("front-end"), FARS_SERVICE, 80)
    for backend in (FAR_CARTS, ROUTED):
        assert found.rules(backend, "input") == [
            ("8081", "10.244.1.1 172.30.0.11 192.0.2.30"),
            ("8081", "10.244.1.30 203.0.113.5"),
        ]
    assert found.rules(CARTS, "input") == []
    assert found.rules(NODE1, "prerouting") == []
    assert found.judge("10.244.1.30", ("10.244.1.10", 8081), home=FAR) == BOTH
    assert found.judge("10.244.1.10", ("10.244.2.20", 8081)) == NEITHER


def test_another_s_service_opens_no_pod_at_its_backend_s_address() -> None:
    found = world(app("payment"), FARS_SERVICE, 80)
    assert found.rules(FRONT_END, "input") == []
    assert [port for port, _ in found.rules(FAR_CARTS, "input")] == ["8081"]
    assert found.judge("10.244.1.30", ("198.51.100.80", 80), ("10.8.0.5", 8081)) == BOTH
    assert found.judge("10.244.1.30", ("10.244.1.10", 8079)) == NEITHER


def test_a_pod_at_another_s_backend_s_address_admits_none_of_its_nodes() -> None:
    found = world(app("payment"), app("front-end"), 8081)
    assert found.rules(FRONT_END, "input") == [("8081", "10.244.1.30")]
    assert found.judge("10.244.1.30", ("10.244.1.10", 8081)) == BOTH
    assert found.judge("192.0.2.30", ("10.244.1.10", 8081)) == NEITHER


def test_the_own_service_has_consumers_at_others_addresses() -> None:
    found = world(app("front-end"), OWN_SERVICE, 80)
    assert found.rules(CARTS, "input") == [("8081", "10.244.1.10 203.0.113.5")]
    assert found.rules(FRONT_END, "output") == [("80", "10.100.135.136"), ("8081", "10.244.2.20")]
    carts, far_carts = ("10.244.2.20", 8081), ("10.244.1.10", 8081)
    assert found.judge("10.244.1.10", ("10.100.135.136", 80), carts) == BOTH
    assert found.judge("10.244.1.30", ("10.100.135.136", 80), far_carts, home=FAR) == BOTH
    assert found.judge("10.244.1.30", ("10.100.135.136", 80), carts) == NEITHER


SOME = cidr("10.8.0.4/31", "10.244.1.10/31")
OWN_NODES = "10.244.1.1 10.244.2.1 172.30.0.11 172.30.0.12"


@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY])
def test_of_a_cidr_the_own_service_s_cluster_s_count(action: Action) -> None:
    """That is all but the other's pod over a routed network."""
    found = world(SOME, ServiceEnd(NAMESPACE, "front-end"), 80, action=action)
    meant, admitting = "10.8.0.4 10.244.1.10/31", action is Action.ALLOW
    by_nodes = [("8079", OWN_NODES)] if admitting else []
    assert found.rules(FRONT_END, "input") == [*by_nodes, ("8079", meant)]
    by_nodes = [("31095", OWN_NODES)] if admitting else []
    assert found.rules(NODE1, "prerouting") == [("31095", meant), *by_nodes]
    dialled, served = ("10.100.7.7", 80), ("10.244.1.10", 8079)
    assert found.judge("10.244.1.11", dialled, served) == [NAME]
    assert found.judge("10.244.1.10", dialled, served) == BOTH
    assert found.judge("10.8.0.5", dialled, served) == NEITHER


def test_a_cidr_opens_no_other_s_service_in_front_of_its_addresses() -> None:
    found = world(app("front-end"), cidr("10.244.0.0/16"), 8081)
    meant = ("8081", "10.244.0.0/16")
    assert found.rules(FRONT_END, "output") == [meant, ("80", "10.100.135.136")]
    assert found.rules(FAR_FRONT, "output") == [
        meant,
        ("80", "10.100.135.136 198.51.100.80"),
        ("31080", "10.244.1.1 172.30.0.11 192.0.2.30"),
    ]
    assert found.rules(HOST, "output") == [meant]
    carts, routed = ("10.244.2.20", 8081), ("10.8.0.5", 8081)
    assert found.judge("10.244.1.10", ("10.100.135.136", 80), carts) == BOTH
    assert found.judge("10.244.1.10", ("198.51.100.80", 80), routed) == NEITHER


@pytest.mark.parametrize(
    ("workload", "port", "other"), [(FRONT_END, 31095, 31080), (FAR_FRONT, 31080, 31095)]
)
def test_denied_nodes_keep_their_own_node_ports_alone(
    workload: Item, port: int, other: int
) -> None:
    found = world(app("front-end"), cidr("172.30.0.10/31"), action=Action.DENY)
    ports = f"0-{port - 1} {port + 1}-65535"
    rules = [one for one in found.rules(workload, "output") if "172.30." in one[1]]
    assert rules == [(ports, "172.30.0.11"), ("", "172.30.0.10")]
    source, home = format_address(workload.addresses[0]), workload.cluster
    node, behind = "172.30.0.11", ("10.244.1.10", 8079)
    assert found.judge(source, (node, other), home=home)[0] == NAME
    assert found.judge(source, (node, port), behind, home=home)[0] is None


HERE, THERE = "10.244.1.1 172.30.0.11", "192.0.2.30"


@pytest.mark.parametrize(
    ("named", "server", "at_carts", "at_far_carts"),
    [
        ("", FAR_NODE, HERE, HERE),
        ("", ROUTED_NODE, HERE, THERE),
        (FAR, FAR_NODE, "", HERE),
        (FAR, ROUTED_NODE, THERE, THERE),
    ],
)
def test_an_api_server_is_its_own_cluster_s_node(
    named: str, server: Item, at_carts: str, at_far_carts: str
) -> None:
    items = [of_far(api_server(server))]
    found = world(ApiServerEnd(named), app("carts"), 8443, items=items)
    assert found.rules(CARTS, "input") == [("8443", at_carts)]
    assert found.rules(FAR_CARTS, "input") == [("8443", at_far_carts)]
    for source in (*HERE.split(), THERE):
        for provider, home, admitted in (
            ("10.244.2.20", CLUSTER, at_carts),
            ("10.244.1.10", FAR, at_far_carts),
        ):
            decided = found.judge(source, (provider, 8443), home=home)[1]
            assert decided == (NAME if source in admitted.split() else None)


@pytest.mark.parametrize("action", [Action.ALLOW, Action.DENY])
def test_of_nodes_that_lead_to_a_pod_here_those_count_that_can(action: Action) -> None:
    """Another's Service may have it as a backend, whose nodes masquerade what they receive."""
    pod = replace(
        USER_DB, key=item_key(CLUSTER, ItemKind.POD, "led"), name="led",
        addresses=(parse_address("10.9.0.7"),),
    )  # fmt: skip
    led = of_far(service("led", "10.100.9.9", 80, [(pod, 9000)], 31090))
    end = cidr("172.30.0.10/31", "192.0.2.30/31")
    found = world(end, ServiceEnd(NAMESPACE, "led", FAR), 80, action=action, items=[pod, led])
    assert found.rules(pod, "input") == (
        [("9000", "192.0.2.30"), ("9000", "172.30.0.10/31 192.0.2.30/31")]
        if action is Action.ALLOW
        else [("9000", "172.30.0.10/31 192.0.2.31")]
    )
    assert found.judge("172.30.0.11", ("10.9.0.7", 9000)) == BOTH
    assert found.judge("172.30.0.12", ("10.9.0.7", 9000)) == NEITHER


def test_one_rule_means_others_at_each_cluster_s_providers() -> None:
    """Also where no Service stands in front of them, so that they are alike but for that."""
    found = world(app("front-end"), app("user-db"), 5432)
    assert found.rules(USER_DB, "input") == [("5432", "10.244.1.10 203.0.113.5")]
    assert found.rules(FAR_DB, "input") == [("5432", "10.244.1.30 203.0.113.5")]
    for home, source, other in (
        (CLUSTER, "10.244.1.10", "10.244.1.30"),
        (FAR, "10.244.1.30", "10.244.1.10"),
    ):
        provider = USER_DB if home == CLUSTER else FAR_DB
        to = format_address(provider.addresses[0]), 5432
        assert found.judge(source, to, home=home) == BOTH
        assert found.judge(other, to, home=home) == NEITHER


@pytest.mark.parametrize("pod", [FRONT_END, FAR_CARTS, HOST])
def test_whoever_dials_itself_at_another_s_address_is_let(pod: Item) -> None:
    found = world(app("front-end"), OWN_SERVICE, 80)
    own = format_address(pod.addresses[0])
    given = asked(found.held, own, (own, 9000), home=pod.cluster)
    safes = FailSafes(found.held.snapshot, found.compiled.surroundings)
    for role in (EndRole.CONSUMER, EndRole.PROVIDER):
        assert [handle for handle, _ in safes.at(given, role)] == ["fail-safe/itself"]
    assert found.judge(own, (own, 9000), home=pod.cluster) == NEITHER
