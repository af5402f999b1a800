"""What a denied connection meets, silence or an answer, on real packets between pods."""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from ringfence.kernel import conntrack, nft
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
)
from ringfence.policy.proof.prove import prove
from tests.kernel.netns import Namespace, Node, Pod, node_with_pods
from tests.kernel.test_nftables import drops, load
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

BACKEND = Nftables()
IN, OUT = ProgramId("in"), ProgramId("out")
ADMIT = Rule("default/shop/p1/web", Action.ALLOW, TCP, (PortRange(80, 80),), None)
SILENT = Rule("catch-all/shop/p1", Action.DENY, None, (), None)
ANSWERS = replace(SILENT, rejects=True)
MANY = tuple(
    replace(
        ADMIT,
        handle=f"default/shop/p1/{port}-{protocol}",
        action=Action.DENY,
        protocol=protocol,
        ports=(PortRange(port, port),),
        rejects=True,
    )
    for port in range(81, 91)
    for protocol in (TCP, UDP)
)
"""So many rules are asked in one lookup."""
SILENCE, REFUSED = "nothing came", errno.ECONNREFUSED
PROHIBITED = {4: errno.EHOSTUNREACH, 6: errno.EACCES}
"""What Linux makes of the code of either ICMP."""


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def policy_of(
    pod: Pod, inbound: tuple[Rule, ...], outbound: tuple[Rule, ...]
) -> tuple[NodePolicy, PodBinding]:
    bound_in, bound_out = (
        (name,) if rules else () for name, rules in ((IN, inbound), (OUT, outbound))
    )
    own = tuple(map(parse_address, (pod.address, pod.address6)))
    binding = PodBinding("uid", "shop", pod.name, own, bound_in, bound_out)
    programs = {name: Program(some) for name, some in ((IN, inbound), (OUT, outbound)) if some}
    nothing = NodeBinding((), None, None, None)
    return (
        NodePolicy(ClusterId("c1"), NodeName("n1"), {}, programs, (binding,), nothing, ()),
        binding,
    )


def enforce(pod: Pod, inbound: tuple[Rule, ...] = (), outbound: tuple[Rule, ...] = ()) -> Ruleset:
    """Load the rules, and prove them."""
    policy, binding = policy_of(pod, inbound, outbound)
    loaded = BACKEND.render_pod(policy, binding)
    load(pod, loaded)
    assert not (proof := prove(policy, binding, nft.list_table(pod.path) or ())).differing, proof
    return loaded


def meets(where: Namespace, address: str, port: int, protocol: int) -> int | str:
    """The error that a client gets within half a second."""
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    with open_socket(where, address, kind) as client:
        client.settimeout(0.5)
        try:
            client.connect((address, port))
            with suppress(PermissionError):  # of what does not leave; an answer comes besides
                client.send(b"x")
            client.recv(1)
        except TimeoutError:
            return SILENCE
        except OSError as error:
            return error.errno or 0
    raise AssertionError("the connection passed")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("rules", [(ADMIT, ANSWERS), (ADMIT, *MANY, SILENT)])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("way", ["in", "out"])
def test_who_is_denied_hears_of_it(
    node: Node, family: int, rules: tuple[Rule, ...], closed: bool, way: str
) -> None:
    """Also by a pod that may not send anything by itself, and in one that nothing may reach."""
    client, server = node.pods
    address, peer = ((p.address, p.address6)[family == 6] for p in (server, client))
    other = (SILENT,) if closed else ()
    judging, inbound, outbound = (server, rules, other) if way == "in" else (client, other, rules)
    loaded = enforce(judging, inbound, outbound)
    with tcp_echo(server, address, 80):
        tcp_exchange(client, address, 80, b"hello")
        assert meets(client, address, 81, TCP) == REFUSED
        assert meets(client, address, 81, UDP) == PROHIBITED[family]
    assert drops(judging, loaded) == {
        (peer, address, TCP, 81): 1,
        (peer, address, UDP, 81): 1,
    }


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", ["in", "out"])
def test_silence_is_silence(node: Node, family: int, way: str) -> None:
    client, server = node.pods
    address = (server.address, server.address6)[family == 6]
    if way == "in":
        enforce(server, (ADMIT, SILENT))
    else:
        enforce(client, (), (ADMIT, SILENT))
    assert meets(client, address, 81, TCP) == SILENCE
    assert meets(client, address, 81, UDP) == SILENCE


def test_a_packet_that_opens_nothing_gets_no_answer(node: Node) -> None:
    """Else a connection that was cut, and is tracked no more, would tell of itself by a reset."""
    client, server = node.pods
    loaded = enforce(server, (ADMIT, ANSWERS))
    with (
        tcp_echo(server, server.address, 80),
        open_socket(client, server.address, socket.SOCK_STREAM) as held,
    ):
        held.connect((server.address, 80))
        conntrack.delete(server.path, conntrack.entries(server.path))
        held.settimeout(0.5)
        held.send(b"x")
        with pytest.raises(TimeoutError):
            held.recv(1)
    assert set(drops(server, loaded)) >= {(client.address, server.address, TCP, 80)}


@pytest.mark.parametrize("family", [4, 6])
def test_a_node_that_receives_for_services_answers_before_translation(
    node: Node, family: int
) -> None:
    client, _ = node.pods
    gateway = (client.gateway, client.gateway6)[family == 6]
    program = Program((ANSWERS,))
    exposures = tuple(Exposure(p, (PortRange(31095, 31095),), None) for p in (TCP, UDP))
    own = tuple(map(parse_address, (client.gateway, client.gateway6)))
    binding = NodeBinding(own, None, OUT, IN, exposures)
    programs = {IN: program, OUT: Program((SILENT,))}
    policy = NodePolicy(ClusterId("c1"), NodeName("n1"), {}, programs, (), binding, ())
    loaded = BACKEND.render_node(policy)
    load(node, loaded)
    assert not (proof := prove(policy, binding, nft.list_table(node.path) or ())).differing, proof
    assert meets(client, gateway, 31095, TCP) == REFUSED
    assert meets(client, gateway, 31095, UDP) == PROHIBITED[family]
