"""Which open connections a policy denies: one table of them, against one pod and one node."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ringfence.model.address import Address, host_network, parse_address, parse_network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.program import (
    Behind,
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from ringfence.policy.recheck import Opened, denied, denied_behind

POD, POD6, GATEWAY, NODE, BALANCER = map(
    parse_address, ("10.0.0.2", "fd00::2", "10.0.0.1", "192.0.2.1", "203.0.113.5")
)
FRIENDS, FRONT = SetId("friends"), SetId("front")
CATCH_ALL = Rule("all", Action.DENY, None, (), None)
SSH = Rule("ssh", Action.ALLOW, TCP, (PortRange(22, 22),), None)
POD_BINDING = PodBinding("u", "ns", "pod", (POD, POD6), (ProgramId("in"),), (ProgramId("out"),))
NODE_BINDING = NodeBinding(
    (NODE, GATEWAY),
    inbound=ProgramId("in"),
    outbound=ProgramId("out"),
    received=ProgramId("received"),
    exposures=(
        Exposure(TCP, (PortRange(30080, 30080),), None),
        Exposure(TCP, (PortRange(80, 80),), FRONT),
    ),
    fail_safes_in=(SSH,),
)
POLICY = NodePolicy(
    ClusterId("c"),
    NodeName("n"),
    {
        FRIENDS: (
            parse_network("10.1.0.0/16"),
            parse_network("10.3.0.0/16"),
            parse_network("fd01::/64"),
        ),
        FRONT: (host_network(BALANCER),),
    },
    {
        ProgramId("in"): Program(
            (
                Rule("deny", Action.DENY, TCP, (PortRange(8081, 8081),), FRIENDS),
                Rule("allow", Action.ALLOW, TCP, (PortRange(8080, 8090),), FRIENDS),
                CATCH_ALL,
            )
        ),
        ProgramId("out"): Program((Rule("dns", Action.ALLOW, UDP, (PortRange(53, 53),), None),
                                   CATCH_ALL)),
        ProgramId("received"): Program((Rule("friends", Action.ALLOW, TCP, (), FRIENDS),
                                        CATCH_ALL)),
    },
    (POD_BINDING,),
    NODE_BINDING,
    ((parse_address("198.51.100.9"), 8443),),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`TCP source destination port`, as it was opened."""

    text: str
    denied: bool
    translated: bool = False


AT_POD = (
    Case("6 10.1.0.0 10.0.0.2 8080", False),
    Case("6 10.1.255.255 10.0.0.2 8090", False),
    Case("6 10.2.0.0 10.0.0.2 8080", True),
    Case("6 10.3.0.9 10.0.0.2 8080", False),
    Case("6 fd01::1 fd00::2 8080", False),
    Case("6 fd01:0:0:1::1 fd00::2 8080", True),
    Case("6 10.1.0.0 10.0.0.2 8081", True),
    Case("6 10.1.0.0 10.0.0.2 8091", True),
    Case("17 10.1.0.0 10.0.0.2 8080", True),
    Case("1 10.1.0.0 10.0.0.2 2048", True),
    Case("17 10.0.0.2 10.9.0.1 53", False),
    Case("6 10.0.0.2 10.9.0.1 53", True),
    Case("6 10.0.0.2 198.51.100.9 8443", False),
    Case("6 10.0.0.2 198.51.100.9 8444", True),
    Case("6 10.0.0.2 10.0.0.2 9", False),
    Case("6 127.0.0.1 127.0.0.1 9", False),
)
AT_NODE = (
    Case("6 10.9.0.1 192.0.2.1 22", False),
    Case("6 10.9.0.1 10.0.0.1 8080", True),
    Case("6 10.9.0.1 192.0.2.1 4789", True),
    Case("6 10.9.0.1 192.0.2.1 4789", False, translated=True),
    Case("6 10.1.0.1 192.0.2.1 30080", False, translated=True),
    Case("6 10.9.0.1 192.0.2.1 30080", True, translated=True),
    Case("6 10.9.0.1 203.0.113.5 80", True, translated=True),
    Case("6 10.9.0.1 203.0.113.5 81", False, translated=True),
    Case("6 10.9.0.1 10.0.0.2 80", False),
    Case("6 192.0.2.1 10.0.0.2 80", True),
    Case("17 192.0.2.1 10.96.0.10 53", False, translated=True),
)


@pytest.mark.parametrize(("binding", "cases"), [(POD_BINDING, AT_POD), (NODE_BINDING, AT_NODE)])
def test_denied(binding: PodBinding | NodeBinding, cases: tuple[Case, ...]) -> None:
    found = denied(POLICY, binding, _opened(cases)).tolist()
    wrong = [case for case, cut in zip(cases, found, strict=True) if cut != case.denied]
    assert not wrong


def test_of_several_programs_each_must_allow() -> None:
    anyone = Program((replace(CATCH_ALL, action=Action.ALLOW),))
    policy = replace(POLICY, programs={**POLICY.programs, ProgramId("anyone"): anyone})
    for order in ((ProgramId("anyone"), ProgramId("in")), (ProgramId("in"), ProgramId("anyone"))):
        found = denied(policy, replace(POD_BINDING, inbound=order), _opened(AT_POD)).tolist()
        assert found == [case.denied for case in AT_POD]


def test_what_nothing_governs_is_not_denied() -> None:
    free = PodBinding("u", "ns", "pod", (POD, POD6), (), ())
    assert not denied(POLICY, free, _opened(AT_POD)).any()


def test_who_answers_behind_a_service_is_judged_at_the_node() -> None:
    dialled = (PortRange(80, 80),)
    behind = Behind(FRIENDS, (PortRange(8080, 8080),))
    some = Rule("some", Action.ALLOW, TCP, dialled, FRONT, behind=behind)
    programs = {**POLICY.programs, ProgramId("out"): Program((some, CATCH_ALL))}
    policy = replace(POLICY, programs=programs, control_plane=((POD6, 80),))
    cases = (
        ("6 10.0.0.2 203.0.113.5 80", "10.1.0.7", 8080, False),
        ("6 10.0.0.2 203.0.113.5 80", "10.1.0.7", 8081, True),
        ("6 10.0.0.2 203.0.113.5 80", "10.2.0.7", 8080, True),
        ("6 10.0.0.2 203.0.113.5 80", "10.0.0.2", 9, False),  # itself
        ("6 10.0.0.9 203.0.113.5 80", "10.2.0.7", 8080, False),  # of no pod
        ("6 10.0.0.2 203.0.113.6 80", "10.2.0.7", 8080, False),  # of no such Service
        ("6 10.0.0.2 203.0.113.5 81", "10.2.0.7", 8080, False),
        ("17 10.0.0.2 203.0.113.5 80", "10.2.0.7", 8080, False),
        ("6 10.0.0.2 203.0.113.5 80", "", 0, False),  # not translated here
    )
    opened = replace(
        _opened(tuple(Case(text, denied=no, translated=bool(to)) for text, to, _, no in cases)),
        reached=_octets([parse_address(to or "203.0.113.5") for _, to, _, _ in cases]),
        reached_port=np.array([port for _, _, port, _ in cases], dtype=np.uint16),
    )
    assert denied_behind(policy, opened).tolist() == [cut for *_, cut in cases]
    assert not denied(policy, POD_BINDING, opened)[:3].any()  # the pod does not see who answers
    to_control = replace(policy, control_plane=((BALANCER, 80),))
    assert not denied_behind(to_control, opened).any()


def _opened(cases: tuple[Case, ...]) -> Opened:
    rows = [case.text.split() for case in cases]
    return Opened(
        protocol=np.array([int(row[0]) for row in rows], dtype=np.uint8),
        source=_octets([parse_address(row[1]) for row in rows]),
        destination=_octets([parse_address(row[2]) for row in rows]),
        port=np.array([int(row[3]) for row in rows], dtype=np.uint16),
        translated=np.array([case.translated for case in cases]),
    )


def _octets(addresses: list[Address]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 16)
