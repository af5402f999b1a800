"""The five examples of policies, from intent to programs and to nftables rules."""

from dataclasses import replace

import pytest

from ringfence.model.address import parse_address, parse_network
from ringfence.model.policy import Action, CidrEnd, OwnNodeEnd, ServiceEnd
from ringfence.model.protocol import format_protocol
from ringfence.model.workload import ItemKind, ServiceType, TrafficPolicy
from ringfence.policy.backends.interface import Backend
from ringfence.policy.backends.iptables import Iptables
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.program import (
    Gate,
    NodeBinding,
    NodePolicy,
    Passage,
    ProgramId,
    Rule,
    SetId,
)
from tests.golden import shop
from tests.golden.conftest import Golden
from tests.golden.shop import CARTS, ITEMS, allow, app, policy_set

ANYONE = CidrEnd((parse_network("0.0.0.0/0"), parse_network("::/0")))
EXAMPLES = {
    "pod-to-pod": allow("payment-to-user-db", app("payment"), app("user-db"), 27017),
    "pod-to-service": allow(
        "front-end-to-carts", app("front-end"), ServiceEnd("sock-shop", "carts"), 80
    ),
    "probes": allow("probes", OwnNodeEnd(), app("front-end"), 80),
    "node-port": allow("shoppers", ANYONE, ServiceEnd("sock-shop", "front-end"), 80),
    "external": allow(
        "front-end-to-partner", app("front-end"), CidrEnd((parse_network("203.0.113.9"),)), 666
    ),
}
CONTROL_PLANE = ((parse_address("172.30.0.1"), 7443),)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, golden: Golden) -> None:
    compiled = compile_policies(policy_set(EXAMPLES[name]), CONTROL_PLANE)
    golden(f"{name}.txt", describe(compiled))


@pytest.mark.parametrize("policy", TrafficPolicy)
def test_load_balancers(golden: Golden, policy: TrafficPolicy) -> None:
    """A balanced Service with source ranges and an external address, for which they do not hold."""
    *others, front_end = ITEMS
    assert front_end.service
    ingress, external = parse_address("198.51.100.7"), parse_address("192.0.2.7")
    spec = replace(
        front_end.service,
        type=ServiceType.LOAD_BALANCER,
        external_addresses=(external, ingress),
        external_traffic_policy=policy,
        balancer_addresses=(ingress,),
        source_ranges=(parse_network("203.0.113.0/24"),),
    )
    partners = CidrEnd((parse_network("203.0.112.0/23"),))
    service = ServiceEnd("sock-shop", "front-end")
    rules = policy_set(
        replace(allow("banned", CidrEnd((parse_network("203.0.113.9"),)), service, 80),
                action=Action.DENY),
        allow("partners", partners, service, 80),
        items=(*others, replace(front_end, service=spec)),
    )  # fmt: skip
    golden(f"load-balancer-{policy.lower()}.txt", describe(compile_policies(rules, CONTROL_PLANE)))


@pytest.mark.parametrize(
    ("name", "backend"), [("node1.nft", Nftables()), ("node1.iptables", Iptables())]
)
def test_rules(golden: Golden, name: str, backend: Backend) -> None:
    """All five together, as they stand in the kernel; both variants of iptables read one text."""
    compiled = compile_policies(policy_set(*EXAMPLES.values()), CONTROL_PLANE)
    (policy,) = (p for p in compiled.policies.values() if p.node == "node1")
    parts = {"node": backend.render_node(policy)}
    parts |= {pod.name: backend.render_pod(policy, pod) for pod in policy.pods}
    text = "".join(f"# {where}\n{backend.text(rules)}\n" for where, rules in parts.items())
    golden(name, text)


def test_a_service_of_which_some_backends_are_denied(golden: Golden) -> None:
    """Programs, and the node's table: by its forward and input hooks backends are known."""
    beside = shop.pod("carts-canary", "canary", "node1", "10.244.1.50", "fd00:244:1::32")
    items = [item for item in ITEMS if item.name != "carts" or item.kind is not ItemKind.SERVICE]
    carts = shop.service(
        "carts", "10.100.135.136", 80, [(CARTS, 8081), (beside, 8081)], node_port=31080
    )
    policies = (
        allow("front-end-to-carts", app("front-end"), app("carts"), 8081),
        replace(
            allow("payment-not-to-canary", app("payment"), app("canary"), 8081),
            action=Action.DENY,
        ),
        allow("payment-to-carts", app("payment"), ServiceEnd("sock-shop", "carts"), 80),
    )
    compiled = compile_policies(policy_set(*policies, items=[*items, beside, carts]), CONTROL_PLANE)
    (policy,) = (p for p in compiled.policies.values() if p.node == "node1")
    backend = Nftables()
    alone = replace(policy, binding=NodeBinding(policy.binding.addresses, None, None, None))
    told = {"node": backend.render_node(alone), "front-end": backend.render_pod(alone, next(
        pod for pod in alone.pods if pod.name == "front-end"
    ))}  # fmt: skip
    golden("partly-denied.txt", describe(compiled))
    text = "".join(f"# {name}\n{backend.transaction(one, None)}\n" for name, one in told.items())
    golden("partly-denied.nft", text)


def test_the_gate_before_new_pods(golden: Golden) -> None:
    compiled = compile_policies(policy_set(), CONTROL_PLANE)
    (policy,) = (p for p in compiled.policies.values() if p.node == "node1")
    networks = (parse_network("10.244.1.0/24"), parse_network("fd00:244:1::/64"))
    alone = replace(
        policy,
        binding=NodeBinding(policy.binding.addresses, None, None, None),
        gate=Gate(networks, ("sock-shop",), ()),
    )
    released = [
        Passage("veth3f2a", parse_address(text)) for text in ("10.244.1.10", "fd00:244:1::a")
    ]
    backend = Nftables()
    golden("gate.nft", backend.text(backend.render_node(alone, released)))


def describe(compiled: Compiled) -> str:
    """The programs of every workload, its sets spelled out, and the widenings."""
    lines = []
    for policy in compiled.policies.values():
        lines += _program(f"{policy.node} inbound", policy, policy.binding.inbound)
        lines += _program(f"{policy.node} outbound", policy, policy.binding.outbound)
        for pod in policy.pods:
            for name, bound in (("inbound", pod.inbound), ("outbound", pod.outbound)):
                for program in bound or (None,):
                    lines += _program(f"{pod.name} {name}", policy, program)
        lines += _program(f"{policy.node} received", policy, policy.binding.received)
    lines += [
        f"widening: {widening.workload}: {widening.decision.policy} {widening.text}"
        for widening in compiled.widenings
    ]
    return "\n".join(lines) + "\n"


def _program(title: str, policy: NodePolicy, program: ProgramId | None) -> list[str]:
    if program is None:
        return [f"{title}: not governed"]
    return [f"{title}:", *(f"  {_rule(policy, rule)}" for rule in policy.programs[program].rules)]


def _rule(policy: NodePolicy, rule: Rule) -> str:
    ports = ",".join(map(str, rule.ports))
    words = [rule.action, format_protocol(rule.protocol), ports]
    words += [f"peers {_set(policy, rule.peers)}"] if rule.peers else []
    words += [f"local {_set(policy, rule.local)}"] if rule.local else []
    if rule.behind:
        answering = rule.behind.peers
        words += ["behind", *([_set(policy, answering)] if answering else [])]
        words += [",".join(map(str, rule.behind.ports))]
    return " ".join([*filter(None, words), f"({rule.handle})"])


def _set(policy: NodePolicy, name: SetId) -> str:
    networks = policy.sets[name]
    return "{" + ", ".join(map(str, networks)) + "}"
