"""What a pod sends to itself in another's name: no way to make its packets pass for answers."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from ringfence.agent.mechanisms import Kind, enforcer
from ringfence.agent.plan import Order
from ringfence.model.policy import Action
from ringfence.policy.program import Program, Rule
from tests.kernel.gating import place
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_cut import CATCH_ALL, policy_of
from tests.kernel.test_packet_sockets import datagram

IPV6_FREEBIND = 78
"""linux/in6.h"""
OWN, FAR = 5555, 5300


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def deny_all(pod: Pod, kind: Kind) -> None:
    nothing = Program((CATCH_ALL,))
    order = Order(1, policy_of(pod, nothing, nothing))
    with contextlib.closing(enforcer(kind)) as enforcing:
        assert not enforcing.apply(order, [place(pod, "uid")]).problem


def bound(pod: Pod, address: str, port: int, *, free: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = pod.call(partial(socket.socket, family, socket.SOCK_DGRAM))
    made.settimeout(0.3)
    if free:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    link = pod.ifindex("eth0") if address.startswith("fe80:") else 0
    made.bind((address, port, 0, link) if ":" in address else (address, port))
    return made


def reaches_itself(pod: Pod, address: str) -> bool:
    with bound(pod, address, OWN) as one, bound(pod, address, FAR) as another:
        another.sendto(b"x", one.getsockname())
        return got(one) == b"x"


def got(receiver: socket.socket) -> bytes:
    try:
        return receiver.recv(100)
    except TimeoutError:
        return b""


def attempt(sender: socket.socket, to: tuple[str, int], data: bytes = b"x") -> None:
    with contextlib.suppress(PermissionError):  # what is dropped fails the call
        sender.sendto(data, to)


@pytest.mark.parametrize("kind", list(Kind))
def test_an_address_that_is_bound_freely_opens_nothing(node: Node, kind: Kind) -> None:
    """For that no capability is needed."""
    pod, other = node.pods
    deny_all(pod, kind)
    with (
        bound(pod, pod.address6, OWN) as own,
        bound(other, other.address6, FAR) as far,
        bound(pod, other.address6, FAR, free=True) as forger,
    ):
        attempt(forger, (pod.address6, OWN))
        assert not got(own)
        attempt(own, (other.address6, FAR))
        assert not got(far)
        attempt(far, (pod.address6, OWN))
        assert not got(own)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("version", [4, 6])
def test_raw_sockets_open_nothing(node: Node, kind: Kind, version: int) -> None:
    pod, other = node.pods
    mine, stranger = (one.address if version == 4 else one.address6 for one in node.pods)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    deny_all(pod, kind)
    with (
        bound(pod, mine, OWN) as own,
        bound(other, stranger, OWN) as far,
        pod.call(partial(socket.socket, family, socket.SOCK_RAW, socket.IPPROTO_RAW)) as forger,
    ):
        attempt(forger, (mine, 0), datagram(stranger, mine, OWN))
        assert not got(own)
        attempt(own, (stranger, OWN))
        assert not got(far)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_pod_reaches_itself_by_each_of_its_addresses(node: Node, kind: Kind) -> None:
    pod, _ = node.pods
    local = next(
        word.split("/")[0]
        for word in pod.run("ip", "-6", "addr", "show", "dev", "eth0").split()
        if word.startswith("fe80:")
    )
    addresses = (pod.address, pod.address6, "127.0.0.1", "127.0.0.53", "::1", local)
    assert [one for one in addresses if not reaches_itself(pod, one)] == []
    deny_all(pod, kind)
    assert [one for one in addresses if not reaches_itself(pod, one)] == []


@pytest.mark.parametrize("kind", list(Kind))
def test_what_a_proxy_of_the_pod_answers_arrives(node: Node, kind: Kind) -> None:
    """A sidecar's: connections are redirected to it, and it answers in the far end's name."""
    pod, other = node.pods
    pod.nft(
        "table ip sidecar { chain out { type nat hook output priority -100;"
        f" tcp dport {FAR} redirect to :15001\n }}\n }}\n"
    )
    everything = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))
    order = Order(1, policy_of(pod, everything, everything))
    with contextlib.closing(enforcer(kind)) as enforcing:
        assert not enforcing.apply(order, [place(pod, "uid")]).problem
    with pod.call(partial(socket.create_server, ("127.0.0.1", 15001))) as proxy:

        def answer() -> None:
            taken, _ = proxy.accept()
            with taken:
                taken.sendall(b"proxied")

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        dial = partial(socket.create_connection, (other.address, FAR), 2)
        with pod.call(dial) as client:
            client.settimeout(2)
            assert client.recv(100) == b"proxied"
        answering.join()
