"""What a node needs to stay one passes at a governed node that denies all else, and only so far."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.mechanisms import Mechanism
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel.netns import inode
from ringfence.model.address import parse_network
from ringfence.policy.compile import compile_policies
from ringfence.policy.failsafe import NodeAccess
from tests.golden import shop
from tests.kernel.netns import Pod, ip, namespace, node_with_pods
from tests.kernel.test_backends import refused
from tests.kernel.traffic import ping, tcp_echo, tcp_exchange

BETWEEN_NODES = {"kubelet": 10250, "etcd": 2379, "etcd's peers": 2380, "API server": 6443}
INSIDE = ("10.97.0.1", "10.97.0.2")


@pytest.fixture
def hosts(mechanism: Mechanism) -> Iterator[tuple[Pod, Pod, Pod]]:
    """A governed node that denies all, another node that nothing governs, and an administrator.

    They are pods of a router's, each by itself.
    """
    with node_with_pods(3) as router:
        governed, other, administrator = router.pods
        nodes = (shop.node("n1", governed.address), shop.node("n2", other.address))
        access = NodeAccess((parse_network(f"{administrator.address}/32"),))
        compiled = compile_policies(shop.policy_set(items=nodes), (), access)
        (policy,) = (one for one in compiled.policies.values() if one.node == "n1")
        enforcer = Enforcer(mechanism.backend(), mechanism.door, mechanism.read)
        place = Place("", governed.path, inode(governed.path))
        assert not enforcer.apply(Order(1, policy), [place], ()).problems
        yield governed, other, administrator


def test_what_runs_a_cluster_passes_between_its_nodes_alone(
    hosts: tuple[Pod, Pod, Pod],
) -> None:
    governed, other, administrator = hosts
    with contextlib.ExitStack() as stack:
        for port in (*BETWEEN_NODES.values(), 22, 80):
            for one in (governed, other):
                stack.enter_context(tcp_echo(one, one.address, port))
        for port in BETWEEN_NODES.values():
            tcp_exchange(other, governed.address, port, b"in")
            tcp_exchange(governed, other.address, port, b"out")
            assert refused(administrator, governed.address, port)
        tcp_exchange(administrator, governed.address, 22, b"login")
        assert refused(other, governed.address, 22)
        for client, server in ((other, governed), (governed, other), (administrator, governed)):
            assert refused(client, server.address, 80)


@pytest.mark.parametrize("port", [4789, 8472])
def test_a_vxlan_between_nodes_carries_what_it_is_given(
    hosts: tuple[Pod, Pod, Pod], port: int
) -> None:
    """Its inner ends are in namespaces of their own, so that no rules judge what is carried."""
    governed, other, _ = hosts
    with namespace("near") as near, namespace("far") as far:
        ends = (governed, near), (other, far)
        for (host, inner), (peer, _), address in zip(ends, ends[::-1], INSIDE, strict=True):
            kind = ("vxlan", "id", "7", "dstport", str(port), "remote", peer.address)
            ip("-n", host.name, "link", "add", "over", "type", *kind)
            ip("-n", host.name, "link", "set", "over", "netns", inner.name)
            ip("-n", inner.name, "addr", "add", f"{address}/24", "dev", "over")
            ip("-n", inner.name, "link", "set", "over", "up")
        assert ping(near, INSIDE[1])
        assert ping(far, INSIDE[0])


@pytest.mark.parametrize("tunnel", [4789, 6081, 8472, "IPIP"])
def test_nobody_but_nodes_speaks_by_what_tunnels_use(
    hosts: tuple[Pod, Pod, Pod], tunnel: int | str
) -> None:
    """Geneve and IPIP as packets alone: not every kernel makes such interfaces."""
    governed, other, administrator = hosts
    with contextlib.ExitStack() as stack:
        near, far, stranger = (
            stack.enter_context(one.call(lambda: _open(tunnel)))
            for one in (governed, other, administrator)
        )
        port = tunnel if isinstance(tunnel, int) else 0
        for one, address in ((near, governed.address), (far, other.address)):
            one.bind((address, port))
        stranger.sendto(b"of a stranger", (governed.address, port))
        for sender, receiver, address in (
            (far, near, governed.address),
            (near, far, other.address),
        ):
            sender.sendto(b"of a node", (address, port))
            assert receiver.recv(100).endswith(b"of a node"), "and nothing before it"


def _open(tunnel: int | str) -> socket.socket:
    """A datagram socket, or one of IPIP's protocol; with 3 s of patience."""
    raw = tunnel == "IPIP"
    opened = (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        if raw
        else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    )
    opened.settimeout(3)
    return opened
