"""Half-closed, pushing and idle connections, and datagrams, as policy comes to one end or both."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import Program, Rule
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_cut import (
    CATCH_ALL,
    CLUSTER_IP,
    WEB,
    Conversation,
    Talk,
    enforce,
    policy_of,
    ports,
)
from tests.kernel.traffic import open_socket


@pytest.fixture
def talk() -> Iterator[Talk]:
    with contextlib.ExitStack() as resources:
        yield Talk(resources)


END = ["server", "client", "both"]
PUSHES = 3
ANYTHING = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))


def only(protocol: int, *wanted: int) -> Program:
    """Nothing passes but by one protocol to some ports, or nothing at all where none is named."""
    allow = Rule("default/shop/p2/some", Action.ALLOW, protocol, ports(*wanted), None)
    return Program((allow, CATCH_ALL) if wanted else (CATCH_ALL,))


def govern(
    node: Node, dialler: Pod, dialled: Pod, governed: str, *, tracked: bool
) -> Callable[[Program, Program], None]:
    """What brings an outbound and an inbound program into force at one end or both."""
    ends = {"client": [dialler], "server": [dialled], "both": [dialler, dialled]}[governed]
    enforcers = [(Enforcer(Nftables()), end) for end in ends]

    def bring(outbound: Program, inbound: Program) -> None:
        for enforcer, end in enforcers:
            enforce(enforcer, policy_of(end, inbound, outbound), node=node, uid=end)

    if tracked:
        bring(ANYTHING, ANYTHING)
    return bring


def told(sender: socket.socket, receiver: socket.socket, data: bytes) -> bool:
    """Whether data arrives within half a second; a reset and silence are none."""
    receiver.settimeout(0.5)
    with contextlib.suppress(OSError):
        sender.send(data)
        return receiver.recv(100) == data
    return False


@contextlib.contextmanager
def service(protocol: str) -> Iterator[tuple[Node, Pod, Pod]]:
    """A node with a client and a server behind CLUSTER_IP, dialled at port 80, led to WEB."""
    with node_with_pods(2) as node:
        client, server = node.pods
        node.nft(
            f"table ip balancer {{ chain pre {{ type nat hook prerouting priority dstnat;\n"
            f"ip daddr {CLUSTER_IP} {protocol} dport 80 dnat to {server.address}:{WEB}\n"
            f"}}; }}"
        )
        yield node, client, server


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "older"])
@pytest.mark.parametrize("governed", END)
@pytest.mark.parametrize("dialled", [CLUSTER_IP, "direct"])
def test_connections_of_every_kind_are_cut_where_they_are_denied_and_live_on_where_not(
    talk: Talk, dialled: str, governed: str, *, tracked: bool
) -> None:
    with service("tcp") as (node, client, server):
        bring = govern(node, client, server, governed, tracked=tracked)

        def dial() -> Conversation:
            at, port = (dialled, 80) if dialled == CLUSTER_IP else (server.address, WEB)
            return talk.tcp(client, at, port, server, (server.address, WEB))

        pushing, closed, shut, idle = dial(), dial(), dial(), dial()
        closed.dialler.shutdown(socket.SHUT_WR)
        shut.dialled.shutdown(socket.SHUT_WR)
        assert (closed.dialled.recv(1), shut.dialler.recv(1)) == (b"", b"")

        bring(only(TCP, 80, WEB), only(TCP, WEB))
        assert all(told(pushing.dialled, pushing.dialler, b"push") for _ in range(PUSHES))
        assert all(told(closed.dialled, closed.dialler, b"late") for _ in range(PUSHES))
        assert all(told(shut.dialler, shut.dialled, b"late") for _ in range(PUSHES))

        bring(only(TCP), only(TCP))
        near = "dialler" if governed == "client" else "dialled"
        for one in (pushing, idle):  # it learns at once, though nobody says a word
            end: socket.socket = getattr(one, near)
            end.settimeout(0.5)
            with pytest.raises((ConnectionAbortedError, ConnectionResetError)):
                end.recv(1)
        assert not told(closed.dialled, closed.dialler, b"denied")
        assert not told(shut.dialler, shut.dialled, b"denied")


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "older"])
@pytest.mark.parametrize("governed", END)
@pytest.mark.parametrize("masquerade", [False, True], ids=["plain", "masqueraded"])
def test_a_datagram_server_without_a_peer_goes_on_pushing_where_policy_allows_it(
    talk: Talk, governed: str, *, masquerade: bool, tracked: bool
) -> None:
    with service("udp") as (node, client, server):
        if masquerade:
            node.nft(
                "table ip pretence { chain post { type nat hook postrouting priority srcnat;\n"
                f"udp dport {WEB} masquerade random\n}}; }}"
            )
        bring = govern(node, client, server, governed, tracked=tracked)
        asks, pushes = (open_socket(one, one.address, socket.SOCK_DGRAM) for one in node.pods)
        talk.resources.callback(asks.close)
        talk.resources.callback(pushes.close)
        pushes.bind((server.address, WEB))
        asks.connect((CLUSTER_IP, 80))
        asks.send(b"question")
        _, at = pushes.recvfrom(100)
        assert at[0] == (server.gateway if masquerade else client.address)

        def push() -> bool:
            asks.settimeout(0.5)
            with contextlib.suppress(OSError):
                pushes.sendto(b"push", at)
                return asks.recv(100) == b"push"
            return False

        assert push()
        bring(only(UDP, 80), only(UDP, WEB))
        assert all(push() for _ in range(PUSHES))
        assert told(asks, pushes, b"question")

        bring(only(UDP), only(UDP))
        assert not push()
        assert not told(asks, pushes, b"denied")


def test_a_client_that_connects_no_datagram_socket_goes_on_hearing_answers(talk: Talk) -> None:
    with service("udp") as (node, client, server):
        asks, answers = (open_socket(one, one.address, socket.SOCK_DGRAM) for one in node.pods)
        talk.resources.callback(asks.close)
        talk.resources.callback(answers.close)
        answers.bind((server.address, WEB))
        asks.sendto(b"question", (CLUSTER_IP, 80))
        _, at = answers.recvfrom(100)
        govern(node, client, server, "both", tracked=False)(only(UDP, 80), only(UDP, WEB))
        answers.sendto(b"answer", at)
        assert asks.recvfrom(100) == (b"answer", (CLUSTER_IP, 80))
