"""Pods that may change their own rules: their node judges what they send and are sent as well."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.pods import Pod as Seen
from ringfence.kernel import conntrack, nft
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.model.address import parse_address
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP
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
from ringfence.wire import batch
from tests.kernel.gating import enforce, seen
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_cut import CATCH_ALL, FRIENDS, IN, OUT, policy_of, ports
from tests.kernel.traffic import open_socket, ping, tcp_echo, tcp_exchange

ADMIT = Program((Rule("default/shop/p1/in", Action.ALLOW, TCP, ports(80), FRIENDS), CATCH_ALL))
DIAL = Program((Rule("default/shop/p1/out", Action.ALLOW, TCP, ports(80), FRIENDS), CATCH_ALL))

SERVICE = "198.51.100.7"


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


def here(pod: Pod) -> Seen:
    return replace(seen(pod, "uid"), alone=frozenset({pod.host_device}))


def guarded(pod: Pod, inbound: Program, outbound: Program, *friends: Pod) -> NodePolicy:
    own = parse_address(pod.address), parse_address(pod.address6)
    binding = PodBinding("uid", "shop", pod.name, own, (IN,), (OUT,), guarded=True)
    return replace(policy_of(pod, inbound, outbound, *friends), pods=(binding,))


def passes(where: Pod | Node, address: str, port: int) -> bool:
    with open_socket(where, address, socket.SOCK_STREAM) as client:
        client.settimeout(0.5)
        try:
            client.connect((address, port))
        except TimeoutError:
            return False
    return True


def test_a_pod_that_flushes_its_own_rules_gains_nothing(node: Node) -> None:
    friend, stranger, pod = node.pods
    before = node.run("nft", "-s", "list", "ruleset")
    enforcer, policy = Enforcer(Nftables()), guarded(pod, ADMIT, DIAL, friend)
    enforce(enforcer, policy, node, here(pod))
    pod.nft("delete table inet ringfence")
    with tcp_echo(friend, friend.address, 80), tcp_echo(stranger, stranger.address, 80):
        tcp_exchange(pod, friend.address, 80, b"hello")
        assert not passes(pod, stranger.address, 80)
    with tcp_echo(node, "0.0.0.0", 80), tcp_echo(pod, pod.address, 80):
        assert not passes(pod, pod.gateway, 80)  # its own node
        assert not passes(node, pod.address, 80)
        assert not passes(stranger, pod.address, 80)
        tcp_exchange(friend, pod.address, 80, b"hello")
    assert not ping(pod, stranger.address6)
    assert not ping(stranger, pod.address6)
    pod.run("ip", "addr", "add", "192.0.2.7/32", "dev", "eth0")
    with open_socket(stranger, stranger.address, socket.SOCK_DGRAM) as sink:
        sink.bind((stranger.address, 53))
        sink.settimeout(0.3)
        with open_socket(pod, pod.address, socket.SOCK_DGRAM) as forged:
            forged.bind(("192.0.2.7", 0))
            forged.sendto(b"x", (stranger.address, 53))
        with pytest.raises(TimeoutError):
            sink.recv(10)
    enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
    reports = [batch.decode(batch.DROPS, drops).to_pylist() for drops, _ in enforcer.ledger.take()]
    told = {(row["rule"], row["direction"], row["pod"]) for rows in reports for row in rows}
    assert told == {("catch-all/shop/p1", way, "") for way in ("inbound", "outbound")}
    enforce(enforcer, replace(policy, pods=()), node, here(pod))
    assert node.run("nft", "-s", "list", "ruleset") == before


def test_what_a_service_translates_is_judged_as_it_was_dialled(node: Node) -> None:
    """The pod may dial the Service, whose backend it may not dial; sources are the true ones."""
    friend, backend, pod = node.pods
    node.nft(
        "table ip services { chain nat { type nat hook prerouting priority -100;"
        f" ip daddr {friend.address} dnat to {backend.address}; }};"
        " chain sources { type nat hook postrouting priority 100; masquerade; }; }"
    )
    enforce(Enforcer(Nftables()), guarded(pod, ADMIT, DIAL, friend), node, here(pod))
    pod.nft("delete table inet ringfence")
    with tcp_echo(backend, backend.address, 80), tcp_echo(pod, pod.address, 80):
        tcp_exchange(pod, friend.address, 80, b"hello")
        assert not passes(pod, backend.address, 80)
        tcp_exchange(friend, pod.address, 80, b"hello")
        assert not passes(backend, pod.address, 80)


def test_an_open_connection_that_is_denied_is_cut_at_the_node(node: Node) -> None:
    friend, _, pod = node.pods
    enforcer = Enforcer(Nftables())
    enforce(enforcer, guarded(pod, ADMIT, DIAL, friend), node, here(pod))
    with (
        tcp_echo(friend, friend.address, 80),
        open_socket(pod, friend.address, socket.SOCK_STREAM) as client,
    ):
        client.connect((friend.address, 80))
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert _tracked(node, friend.address)
        enforce(enforcer, guarded(pod, ADMIT, Program((CATCH_ALL,)), friend), node, here(pod))
        assert not _tracked(node, friend.address)


def test_what_comes_by_a_service_is_cut_too(node: Node) -> None:
    friend, _, pod = node.pods
    node.nft(
        "table ip services { chain nat { type nat hook prerouting priority -100;"
        f" ip daddr {SERVICE} dnat to {pod.address}; }}; }}"
    )
    enforcer = Enforcer(Nftables())
    enforce(enforcer, guarded(pod, ADMIT, DIAL, friend), node, here(pod))
    with (
        tcp_echo(pod, pod.address, 80),
        open_socket(friend, friend.address, socket.SOCK_STREAM) as client,
    ):
        client.connect((SERVICE, 80))
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        enforce(enforcer, guarded(pod, ADMIT, Program((CATCH_ALL,)), friend), node, here(pod))
        assert _tracked(node, SERVICE), "it is allowed still"
        enforce(enforcer, guarded(pod, Program((CATCH_ALL,)), DIAL, friend), node, here(pod))
        assert not _tracked(node, SERVICE)


def _tracked(node: Node, dialled: str) -> bool:
    address = parse_address(dialled)
    return any(entry.destination == address for entry in conntrack.entries(node.path))


def test_the_guard_drops_what_policies_reject(node: Node) -> None:
    friend, stranger, pod = node.pods
    reject = Program((*ADMIT.rules[:1], replace(CATCH_ALL, rejects=True)))
    enforce(Enforcer(Nftables()), guarded(pod, reject, reject, friend), node, here(pod))
    pod.nft("delete table inet ringfence")
    with tcp_echo(pod, pod.address, 80):
        tcp_exchange(friend, pod.address, 80, b"hello")
        assert not passes(stranger, pod.address, 80)


def test_the_guard_at_a_node_whose_ports_reject_is_proved(node: Node) -> None:
    friend, _, pod = node.pods
    policy = guarded(pod, ADMIT, DIAL, friend)
    ports_of_node = ProgramId("received")
    rejects = Program((replace(CATCH_ALL, rejects=True),))
    exposed = (Exposure(TCP, ports(31000), None),)
    binding = NodeBinding((parse_address(pod.gateway),), None, None, ports_of_node, exposed)
    programs = {**policy.programs, ports_of_node: rejects}
    policy = replace(policy, programs=programs, binding=binding)
    enforce(Enforcer(Nftables()), policy, node, here(pod))


@pytest.mark.parametrize(
    "script",
    [
        "insert rule inet ringfence rf_guard_outbound_0 tcp dport 81 accept",
        "insert rule inet ringfence rf_guard_inbound accept",
        "flush chain inet ringfence rf_guard_inbound_0_4",
        "delete table inet ringfence",
    ],
)
def test_the_guard_is_proved(node: Node, script: str) -> None:
    friend, _, pod = node.pods
    policy = guarded(pod, ADMIT, DIAL, friend)
    enforce(Enforcer(Nftables()), policy, node, here(pod))
    at = {"uid": here(pod).alone}
    for tampered in (False, True):
        if tampered:
            node.nft(script)
        listed = nft.list_table(node.path) or []
        told = str(prove(policy, policy.binding, listed, guarded=at))
        assert bool(told) is tampered
