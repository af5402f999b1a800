"""The answer to why names the fail-safes that the kernel has, at the ends where it has them."""

from dataclasses import replace
from typing import Any

import pytest

from ringfence.control.why import Question, Side, why
from ringfence.model.address import parse_address, parse_network
from ringfence.model.policy import Action, CatchAll, CidrEnd, FilterEnd, ServiceEnd
from ringfence.model.protocol import TCP
from ringfence.model.query import parse
from ringfence.model.verdict import EndRole
from ringfence.model.workload import TrafficPolicy
from ringfence.policy.compile import compile_policies
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.spared import FailSafes
from tests.golden import shop

NODE1 = shop.node("node1", "192.0.2.1")
NODE2 = shop.node("node2", "192.0.2.2")
WEB = shop.pod("web", "web", "node1", "10.244.1.10")
FRONT = shop.pod("front", "front", "node2", "10.244.2.20")
SERVICE = shop.service("web", "10.100.0.9", 80, [(WEB, 8080)], node_port=22)
ITEMS = (NODE1, NODE2, WEB, FRONT, SERVICE)
ACCESS = NodeAccess(ssh_from=(parse_network("0.0.0.0/0"),))
CONTROL_PLANE = (parse_address("192.0.2.1"), 7443)


@pytest.mark.parametrize(
    ("source", "destination", "port", "expected"),
    [
        (
            "sock-shop/front", "192.0.2.1", 7443,
            {EndRole.CONSUMER: "fail-safe/control-plane",
             EndRole.PROVIDER: "fail-safe/control-plane"},
        ),
        (
            "192.0.2.2", "192.0.2.1", 7443,
            {EndRole.CONSUMER: "fail-safe/control-plane",
             EndRole.PROVIDER: "fail-safe/control-plane"},
        ),
        (  # a node port is judged before DNAT, where no fail-safe of the node's own stands
            "sock-shop/front", "192.0.2.1", 22,
            {EndRole.CONSUMER: "", EndRole.PROVIDER: "", EndRole.NODE: ""},
        ),
        ("192.0.2.2", "192.0.2.1", 10250,
         {EndRole.CONSUMER: "fail-safe/kubelet", EndRole.PROVIDER: "fail-safe/kubelet"}),
        ("198.51.100.1", "192.0.2.2", 2222, {EndRole.PROVIDER: ""}),
    ],
)  # fmt: skip
def test_fail_safes_are_those_of_the_kernels_chains(
    source: str, destination: str, port: int, expected: dict[EndRole, str]
) -> None:
    policy_set = shop.policy_set(items=ITEMS)
    compiled = compile_policies(policy_set, (CONTROL_PLANE,), ACCESS)
    question = Question(source, destination, TCP, port)
    (connection,) = why(Side(policy_set, (), compiled), question).connections
    assert {end.verdict.role: end.fail_safe for end in connection.ends} == expected
    assert connection.allowed is all(expected.values())


@pytest.mark.parametrize(
    ("source", "dialled", "port", "allowed", "decides"),
    [
        ("203.0.113.9", "198.51.100.7", 80, True, "web"),
        ("203.0.114.9", "198.51.100.7", 80, False, None),
        # Source ranges hold for the load balancer alone.
        ("203.0.114.9", "192.0.2.77", 80, True, "web"),
        ("203.0.114.9", "192.0.2.2", 22, True, "web"),
    ],
)
def test_source_ranges_keep_out_whomever_policies_allow(
    source: str, dialled: str, port: int, allowed: bool, decides: str | None
) -> None:
    assert SERVICE.service
    ingress, external = parse_address("198.51.100.7"), parse_address("192.0.2.77")
    spec = replace(
        SERVICE.service,
        external_addresses=(external, ingress),
        external_traffic_policy=TrafficPolicy.LOCAL,
        balancer_addresses=(ingress,),
        source_ranges=(parse_network("203.0.113.0/24"), parse_network("::/0")),
    )
    anyone = CidrEnd((parse_network("0.0.0.0/0"),))
    policy_set = shop.policy_set(
        shop.allow("web", anyone, ServiceEnd("sock-shop", "web"), 80),
        items=(*ITEMS[:-1], replace(SERVICE, service=spec)),
    )
    compiled = compile_policies(policy_set, (CONTROL_PLANE,), ACCESS)
    asked = Question(source, dialled, TCP, port)
    (one,) = why(Side(policy_set, (), compiled), asked).connections
    assert one.allowed is allowed
    assert bool(one.kept_out) is not allowed
    (node,) = (end.verdict.deciding for end in one.ends if end.verdict.role is EndRole.NODE)
    assert node
    assert node.policy == decides
    policies = {end.verdict.deciding.policy for end in one.ends if end.verdict.deciding}
    assert policies == {"web", decides}


def test_a_denial_tells_where_the_kernel_is_wider() -> None:
    """Who comes in by a node port has a node's address by then, and that a policy may admit."""
    policy_set = shop.policy_set(
        shop.allow("web", shop.app("front"), shop.app("web"), 8080), items=ITEMS
    )
    compiled = compile_policies(policy_set, (CONTROL_PLANE,), ACCESS)
    ungoverned_port = Question("198.51.100.1", "192.0.2.2", TCP, 22)
    denied, direct = (
        why(Side(policy_set, (), compiled), asked)
        for asked in (ungoverned_port, Question("198.51.100.1", "10.244.1.10", TCP, 8080))
    )
    (note,) = denied.notes
    assert note.startswith("the kernel lets it through at sock-shop/web: sock-shop/web@p3 ")
    assert not denied.allowed
    assert not direct.allowed
    assert not direct.notes


def test_a_node_s_own_port_is_explained_by_who_answers() -> None:
    other = shop.pod("other", "other", "node2", "10.244.2.21")
    service = shop.service("both", "10.100.0.8", 80, [(WEB, 8080), (other, 8080)], node_port=31001)
    policy = shop.allow("out", FilterEnd(parse('name = "node1"')), shop.app("web"), 8080)
    policy_set = shop.policy_set(
        policy,
        items=(NODE1, NODE2, WEB, other, service),
        catch_all=CatchAll(inbound=Action.ALLOW, outbound=Action.DENY),
    )
    compiled = compile_policies(policy_set, (CONTROL_PLANE,), ACCESS)
    asked = Question("192.0.2.1", "192.0.2.1", TCP, 31001)
    answer = why(Side(policy_set, (), compiled), asked)
    told = {
        one.text.partition(" TCP")[0].rpartition(" (")[2]: (one.ends[0].fail_safe, one.allowed)
        for one in answer.connections
    }
    assert told == {"10.244.1.10)": ("fail-safe/itself", True), "10.244.2.21)": ("", False)}
    assert all(one.ends[0].asked is None for one in answer.connections), "no rule of its own"


def test_fail_safes_are_made_once_for_all_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as the inventory is large."""
    pods = [shop.pod(f"web{n}", "web", "node1", f"10.244.1.{n}") for n in range(1, 21)]
    service = shop.service("many", "10.100.0.7", 80, [(one, 8080) for one in pods])
    policy_set = shop.policy_set(items=(NODE1, NODE2, FRONT, *pods, service))
    side = Side(policy_set, (), compile_policies(policy_set, (CONTROL_PLANE,), ACCESS))
    made = []

    class Counted(FailSafes):
        def __init__(self, *held: Any) -> None:
            super().__init__(*held)
            made.append(self)

    monkeypatch.setattr("ringfence.control.why.FailSafes", Counted)
    answer = why(side, Question("sock-shop/front", "sock-shop/many", TCP, 80))
    assert len(answer.connections) == len(pods)
    assert len(made) == 1
