"""Two programs at one pod, of which each must allow, with real packets."""

import socket

import pytest

from ringfence.agent.mechanisms import Mechanism
from ringfence.model.address import host_network, parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, PortRange
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from tests.kernel.netns import Node
from tests.kernel.test_backends import drops, load, node, read_drops, refused
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

__all__ = ["node"]
BOTH, ONE = SetId("both"), SetId("one")
OURS, THEIRS = ProgramId("ours"), ProgramId("theirs")
LAST = {
    OURS: Rule("catch-all/shop/p1", Action.DENY, None, (), None),
    THEIRS: Rule("kubernetes/NetworkPolicy/shop/db/isolation", Action.DENY, None, (), None),
}
MANY = [PortRange(port, port) for port in range(7000, 7020)]


@pytest.mark.parametrize("family", ["address", "address6"])
@pytest.mark.parametrize("order", [(OURS, THEIRS), (THEIRS, OURS)])
def test_each_must_allow(
    mechanism: Mechanism, node: Node, family: str, order: tuple[ProgramId, ...]
) -> None:
    friend, other, server = node.pods
    address, of_friend, of_other = (getattr(pod, family) for pod in (server, friend, other))
    # So many rules are asked in one lookup, which passes on to the next program as a rule does.
    ours = [Rule("a", Action.ALLOW, TCP, (port,), BOTH) for port in (PortRange(80, 80), *MANY)]
    theirs = [Rule("b", Action.ALLOW, TCP, (port,), ONE) for port in (PortRange(80, 82), *MANY)]
    own = tuple(map(parse_address, (server.address, server.address6)))
    binding = PodBinding("uid", "shop", server.name, own, order, ())
    policy = NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {
            BOTH: tuple(host_network(parse_address(one)) for one in (of_friend, of_other)),
            ONE: (host_network(parse_address(of_friend)),),
        },
        {
            OURS: Program((*ours, LAST[OURS])),
            THEIRS: Program((*theirs, LAST[THEIRS])),
        },
        (binding,),
        NodeBinding((), None, None, None),
        (),
    )
    rules = mechanism.backend().render_pod(policy, binding)
    load(mechanism, server, rules)
    with tcp_echo(server, address, 80), tcp_echo(server, address, 81):
        tcp_exchange(friend, address, 80, b"both allow")
        assert refused(other, address, 80)
        assert refused(friend, address, 81)
        with open_socket(friend, address, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"neither allows", (address, 53))
    told = {
        (source, port): rules.denials[mark].handle
        for (source, _, _, port), mark in zip(
            drops(mechanism, server, rules),
            read_drops(mechanism, server, rules).mark.tolist(),
            strict=True,
        )
    }
    assert told == {
        (of_other, 80): LAST[THEIRS].handle,
        (of_friend, 81): LAST[OURS].handle,
        (of_friend, 53): LAST[order[0]].handle,
    }
