"""What passes whatever the policy says serves what it is for, and is no way out of a pod."""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from ringfence.agent.mechanisms import Mechanism
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import ICMP, ICMPV6, UDP
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.program import NodeBinding, NodePolicy, PodBinding, Program, ProgramId, Rule
from tests.kernel.netns import Namespace, Node, Pod, node_with_pods
from tests.kernel.test_backends import drops, load
from tests.kernel.traffic import family, open_socket, with_checksum

CLOSED, OPEN = ProgramId("closed"), ProgramId("open")
PROGRAMS = {
    CLOSED: Program((Rule("catch-all/shop/p1", Action.DENY, None, (), None),)),
    OPEN: Program((Rule("default/shop/p1/out", Action.ALLOW, None, (), None),)),
}
NOBODY_S = bytes(64)
"""The rest of an error, about a connection that there is none of."""
SECRETS = {
    "path MTU": (ICMP, struct.pack("!BBHI", 3, 4, 0, 1280) + NOBODY_S),
    "path MTU, IPv6": (ICMPV6, struct.pack("!BBHI", 2, 0, 0, 1280) + NOBODY_S),
    "to a router": (ICMPV6, struct.pack("!BBHI", 133, 0, 0, 0) + NOBODY_S),
    "from a router": (ICMPV6, struct.pack("!BBHI", 134, 0, 0, 0) + NOBODY_S),
}


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def rules(mechanism: Mechanism, pod: Pod, outbound: ProgramId) -> Ruleset:
    """The pod is sent nothing but what always passes, and sends what its program says."""
    own = tuple(map(parse_address, (pod.address, pod.address6)))
    binding = PodBinding("uid", "shop", pod.name, own, (CLOSED,), (outbound,))
    policy = NodePolicy(
        ClusterId("c1"), NodeName("n1"), {}, PROGRAMS, (binding,),
        NodeBinding((), None, None, None), (),
    )  # fmt: skip
    return mechanism.backend().render_pod(policy, binding)


@pytest.mark.parametrize("told", SECRETS)
def test_no_secret_leaves_or_reaches_a_pod_as_a_message_about_the_network(
    mechanism: Mechanism, node: Node, told: str
) -> None:
    friend, pod = node.pods
    protocol, message = SECRETS[told]
    loaded = rules(mechanism, pod, CLOSED)
    load(mechanism, pod, loaded)
    its, own = (_of(one, protocol == ICMPV6) for one in (friend, pod))
    tell(pod, its, protocol, message)
    tell(friend, own, protocol, message)
    port = message[0] << 8 | message[1]
    lost = {(own, its, protocol, port): 1, (its, own, protocol, port): 1}
    if told.endswith("router"):  # the node has lowered its hop limit
        tell(pod, "ff02::2%eth0", protocol, message)
    assert drops(mechanism, pod, loaded) == lost


@pytest.mark.parametrize(("client", "server", "version6"), [(68, 67, False), (546, 547, True)])
def test_nobody_is_a_dhcp_server_to_a_pod(
    mechanism: Mechanism, node: Node, client: int, server: int, *, version6: bool
) -> None:
    friend, pod = node.pods
    loaded = rules(mechanism, pod, CLOSED)
    load(mechanism, pod, loaded)
    its, own = _of(friend, version6), _of(pod, version6)
    with (
        open_socket(pod, own, socket.SOCK_DGRAM) as asks,
        open_socket(friend, its, socket.SOCK_DGRAM) as answers,
    ):
        asks.bind((own, client))
        answers.bind((its, server))
        with contextlib.suppress(PermissionError):
            asks.sendto(b"secret", (its, server))
        answers.sendto(b"answer", (own, client))
    assert drops(mechanism, pod, loaded) == {(own, its, UDP, server): 1, (its, own, UDP, client): 1}


@pytest.mark.parametrize("version6", [False, True])
def test_what_its_connections_are_told_of_the_path_mtu_reaches_a_pod(
    mechanism: Mechanism, node: Node, *, version6: bool
) -> None:
    friend, pod = node.pods
    load(mechanism, pod, rules(mechanism, pod, OPEN))
    node.run("ip", "link", "set", friend.host_device, "mtu", "1300")
    with open_socket(pod, _of(friend, version6), socket.SOCK_DGRAM) as sender:
        level, option = (41, 23) if version6 else (0, 10)  # IPV6_MTU_DISCOVER, IP_MTU_DISCOVER
        sender.setsockopt(level, option, 2)  # IP_PMTUDISC_DO
        sender.connect((_of(friend, version6), 5300))
        sender.settimeout(0.05)
        assert any(_too_long(sender) for _ in range(100))


def _too_long(sender: socket.socket) -> bool:
    """Whether 1400 bytes are more than the path takes, as far as is known."""
    try:
        sender.send(bytes(1400))
        sender.recv(1)
    except (TimeoutError, ConnectionRefusedError):
        return False
    except OSError as error:
        return error.errno == errno.EMSGSIZE
    return False


def _of(pod: Pod, version6: bool) -> str:
    return pod.address6 if version6 else pod.address


def tell(where: Namespace, address: str, protocol: int, message: bytes) -> None:
    """Send a message of ICMP with hop limit 255, if that may be."""
    kind = family(address)
    with where.call(lambda: socket.socket(kind, socket.SOCK_RAW, protocol)) as opened:
        if protocol == ICMPV6:
            for option in (socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS):
                opened.setsockopt(socket.IPPROTO_IPV6, option, 255)
        with contextlib.suppress(PermissionError):
            sent = message if protocol == ICMPV6 else with_checksum(message)
            where.call(lambda: opened.sendto(sent, (address, 0)))
