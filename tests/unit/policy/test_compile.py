"""Compilation: what changes when the inventory does, what is dropped, what is refused."""

from dataclasses import replace

import pytest

from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import PolicyId, item_key
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    Denied,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ServiceEnd,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.workload import ItemKind, ServicePort
from ringfence.policy.backends.interface import UnsupportedError
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy, Program, Rule, SetId, decode, encode
from tests.golden.shop import CARTS, CLUSTER, ITEMS, allow, app, pod, policy_set, service

DIRECT = allow("carts", app("front-end"), app("carts"), 8081)
BACKEND = Nftables()


def node(name: str, *policies: object, **given: object) -> NodePolicy:
    compiled = compile_policies(policy_set(*policies, **given), ())  # type: ignore[arg-type]
    return next(policy for policy in compiled.policies.values() if policy.node == name)


def test_a_policy_survives_the_wire() -> None:
    policy = node("node1", DIRECT)
    assert decode(encode(policy)) == policy


def test_a_new_pod_changes_only_set_elements_elsewhere() -> None:
    more = (*ITEMS, pod("front-end-2", "front-end", "node1", "10.244.1.11"))
    before, after = node("node2", DIRECT), node("node2", DIRECT, items=more)
    assert before.programs == after.programs
    (carts,) = (pod for pod in before.pods if pod.name == "carts")
    commands = BACKEND.transaction(
        BACKEND.render_pod(after, carts), BACKEND.render_pod(before, carts)
    )
    verbs = {" ".join(line.split()[:2]) for line in commands.splitlines()}
    assert verbs == {"add element", "delete element"}  # .10 becomes .10/31
    assert "10.244.1.10/31" in commands


def test_rules_that_cannot_be_reached_are_dropped() -> None:
    again = replace(DIRECT, id=PolicyId("again"), action=Action.DENY)
    assert node("node1", DIRECT, again).programs == node("node1", DIRECT).programs
    # Nobody knows what the Service is, so denying it denies everyone.
    unknown = replace(
        DIRECT,
        id=PolicyId("unknown"),
        provider=ServiceEnd("sock-shop", "gone"),
        protocol=None,
        ports=(),
        action=Action.DENY,
        priority=1,
    )
    policy = node("node1", unknown, DIRECT)
    (front_end,) = (pod for pod in policy.pods if pod.name == "front-end")
    (program,) = front_end.outbound
    (rule,) = policy.programs[program].rules
    assert rule.handle == "default/sock-shop/p3/unknown"


@pytest.mark.parametrize("denied", Denied)
def test_what_a_workspace_denies_is_answered_where_it_says_so(denied: Denied) -> None:
    never = replace(DIRECT, id=PolicyId("never"), action=Action.DENY, ports=())
    (workspace, version), *_ = policy_set(DIRECT, never).enforced
    enforced = [(replace(workspace, denied=denied), version)]
    held = PolicySet(policy_set().snapshot, policy_set().tree, enforced)
    for policy in compile_policies(held, ()).policies.values():
        for program in policy.programs.values():
            for rule in program.rules:
                assert rule.rejects == (denied is Denied.REJECT and rule.action is Action.DENY)


def test_equal_programs_are_shared() -> None:
    assert len(node("node2").programs) == 1


def test_a_policy_on_some_backends_of_a_service_is_reported_as_wider() -> None:
    other = pod("carts-other", "other", "node1", "10.244.1.77")
    items = [item for item in ITEMS if item.name != "carts" or item.service is None]
    service = next(item for item in ITEMS if item.service and item.name == "carts")
    assert service.service
    backend = service.service.backends[0]
    both = (backend, replace(backend, address=other.addresses[0], item=other.key))
    mixed = replace(service, service=replace(service.service, backends=both))
    compiled = compile_policies(policy_set(DIRECT, items=[*items, other, mixed]), ())
    text = (
        "means only some backends of Service sock-shop/carts:80: kube-proxy may pick the others,"
        " which the consumer's node rejects if it has nftables"
    )
    told = [(widening.workload, widening.text) for widening in compiled.widenings]
    assert told == [("c1/pod/front-end", text)]


@pytest.mark.parametrize("kind", [ItemKind.NODE, ItemKind.HOST])
def test_what_a_machine_dials_partly_denied_to_it_is_judged_where_it_is_translated(
    kind: ItemKind,
) -> None:
    """Nobody translates what a host outside Kubernetes dials, so nobody sees who answers."""
    other = pod("carts-other", "other", "node1", "10.244.1.77")
    items = [item for item in ITEMS if item.name != "carts" or item.service is None]
    carts = service("carts", "10.100.135.136", 80, [(CARTS, 8081), (other, 8081)])
    node1 = next(item for item in ITEMS if item.name == "node1")
    vm1 = replace(node1, key=item_key(CLUSTER, kind, "vm1"), kind=kind, name="vm1",
                  addresses=(parse_address("192.0.2.77"),))  # fmt: skip
    said = allow("vm1", CidrEnd((parse_network("192.0.2.77"),)), app("carts"), 8081)
    compiled = compile_policies(policy_set(said, items=[*items, other, carts, vm1]), ())
    (told,) = {w.text for w in compiled.widenings if w.workload == vm1.key}
    judged = "which the consumer's node rejects if it has nftables" in told
    assert judged == (kind is ItemKind.NODE)
    (of_it,) = (policy for policy in compiled.policies.values() if policy.node == "vm1")
    assert bool(of_it.parting()) == judged


@pytest.mark.parametrize(("ports", "denies"), [((), True), ((PortRange(80, 80),), False)])
def test_a_service_of_which_two_ports_lead_to_one_is_denied_as_a_whole(
    ports: tuple[PortRange, ...], denies: bool
) -> None:
    """Its one target port is denied, unless a port leads there that the policy does not mean."""
    found = next(item for item in ITEMS if item.service and item.name == "carts")
    assert found.service
    (backend,) = found.service.backends
    twice = replace(
        found.service,
        ports=(*found.service.ports, ServicePort("more", TCP, 81)),
        backends=(backend, replace(backend, service_port="more")),
    )
    items = [replace(item, service=twice) if item is found else item for item in ITEMS]
    denied = replace(
        allow("no", app("front-end"), ServiceEnd("sock-shop", "carts"), 80),
        ports=ports,
        action=Action.DENY,
    )
    allowed = CatchAll(Action.ALLOW, Action.ALLOW)
    compiled = compile_policies(policy_set(denied, items=items, catch_all=allowed), ())
    policy = next(policy for policy in compiled.policies.values() if policy.node == "node2")
    (carts,) = (pod for pod in policy.pods if pod.name == "carts")
    (inbound,) = carts.inbound
    rules = policy.programs[inbound].rules
    assert any(rule.action is Action.DENY for rule in rules) is denies
    told = [one.text for one in compiled.widenings if "leads too" in one.text]
    assert bool(told) is not denies


def test_pods_behind_a_masquerading_node_port_admit_node_addresses_and_say_so() -> None:
    policy = allow("shop", app("payment"), ServiceEnd("sock-shop", "front-end"), 80)
    compiled = compile_policies(policy_set(policy), ())
    assert {w.workload for w in compiled.widenings} == {
        "c1/pod/front-end",
        "c1/node/node1",
        "c1/node/node2",
    }
    handles = {
        rule.handle
        for node_policy in compiled.policies.values()
        for program in node_policy.programs.values()
        for rule in program.rules
    }
    assert "default/sock-shop/p3/shop+widened" in handles


def test_a_denial_of_whom_a_node_masquerades_is_reported_as_not_whole() -> None:
    """Who dials a node port may come from any address, and reaches the pod from a node's."""
    carts = service("carts", "10.100.9.10", 8081, [(CARTS, 8081)], 31080)
    stranger = CidrEnd((parse_network("203.0.113.9"),))
    deny = replace(allow("deny", stranger, app("carts"), 8081), action=Action.DENY)
    for more, told in (((), False), ((carts,), True)):
        compiled = compile_policies(policy_set(deny, items=(*ITEMS, *more)), ())
        assert any("does not deny node addresses" in one.text for one in compiled.widenings) is told


def test_of_a_pod_that_its_node_is_denied_by_one_address_the_other_is_not_meant() -> None:
    both = tuple(map(parse_address, ("10.244.2.77", "fd00::77")))
    dual = replace(pod("dual", "dual", "node2", "10.244.2.77"), addresses=both)
    v4 = CidrEnd((parse_network("10.244.0.0/16"),))
    deny = Policy(PolicyId("deny"), v4, OwnNodeEnd(), None, (), Action.DENY, Rank.ABSOLUTE)
    policy = node("node2", deny, items=(*ITEMS, dual))
    assert policy.binding.inbound
    first = policy.programs[policy.binding.inbound].rules[0]
    assert (first.action, first.handle.split("/")[-1]) == (Action.DENY, "deny")
    assert first.peers
    meant = [any(one in block for block in policy.sets[first.peers]) for one in both]
    assert meant == [True, False]


def test_an_allow_of_nobody_admits_nobody() -> None:
    """Nor nodes, which masquerade for whom a policy names."""
    nobody = allow("nobody", app("nobody"), app("front-end"), 8079)
    compiled = compile_policies(policy_set(nobody), ())
    assert not compiled.widenings
    for policy in compiled.policies.values():
        rules = [rule for program in policy.programs.values() for rule in program.rules]
        sets = [policy.sets[r.peers] for r in rules if r.peers and r.handle.endswith("nobody")]
        assert not any(sets)


@pytest.mark.parametrize("consumer", [app("carts"), app("front-end")])
@pytest.mark.parametrize("provider", [ServiceEnd("sock-shop", "carts"), app("carts")])
def test_a_pod_that_may_dial_its_own_service_admits_its_own_node(
    consumer: FilterEnd, provider: End
) -> None:
    """Its node alone, on the target port alone; without such a policy, nobody's probes."""
    port = 80 if isinstance(provider, ServiceEnd) else 8081
    compiled = compile_policies(policy_set(allow("carts", consumer, provider, port)), ())
    (policy,) = (policy for policy in compiled.policies.values() if policy.node == "node2")
    (carts,) = (pod for pod in policy.pods if pod.name == "carts")
    (program,) = carts.inbound
    widened = [
        (rule.protocol, rule.ports, {str(network) for network in policy.sets[rule.peers]})
        for rule in policy.programs[program].rules
        if rule.peers and rule.handle.endswith("+widened")
    ]
    reported = [(widening.workload, widening.text) for widening in compiled.widenings]
    if consumer == app("carts"):
        assert widened == [(TCP, (PortRange(8081, 8081),), {"172.30.0.12/32", "10.244.2.1/32"})]
        why = "nodes masquerade what pods send themselves through Service sock-shop/carts"
        assert reported == [("c1/pod/carts", f"admits node addresses to port 8081: {why}")]
    else:
        assert not widened
        assert not reported


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule('x" drop', Action.ALLOW, None, (), None), "handle"),
        (Rule("x", Action.ALLOW, 47, (PortRange(80, 80),), None), "no ports for 47"),
        (Rule("x", Action.ALLOW, None, (), SetId("a }")), "not a name"),
    ],
)
def test_what_nftables_cannot_say_is_refused(rule: Rule, reason: str) -> None:
    policy = node("node2")
    (name,) = policy.programs
    last = Rule("catch-all/x/p1", Action.DENY, None, (), None)
    broken = replace(policy, programs={name: Program((rule, last))})
    with pytest.raises(UnsupportedError, match=reason):
        BACKEND.render_pod(broken, broken.pods[0])
