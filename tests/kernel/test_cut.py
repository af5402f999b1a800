"""A policy that comes into force while connections are open: which live on, and which do not."""

import contextlib
import errno
import socket
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel import conntrack, nft
from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import exchange
from ringfence.kernel.netns import inode
from ringfence.kernel.sockets import Connection
from ringfence.model.address import host_network, parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action, FilterEnd, ServiceEnd
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.query import parse
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from tests.golden import shop
from tests.kernel.netns import Namespace, Node, Pod, namespace, node_with_pods
from tests.kernel.traffic import open_socket

FRIENDS, IN, OUT = SetId("friends"), ProgramId("in"), ProgramId("out")
CATCH_ALL = Rule("catch-all/shop/p1", Action.DENY, None, (), None)


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


@dataclass(frozen=True)
class Conversation:
    """Both ends of something open."""

    dialler: socket.socket
    dialled: socket.socket

    def lives(self) -> bool:
        """Whether data goes both ways."""
        for sender, receiver in ((self.dialler, self.dialled), (self.dialled, self.dialler)):
            sender.send(b"data")
            if receiver.recv(100) != b"data":
                return False
        return True

    def close(self) -> None:
        self.dialler.close()
        self.dialled.close()


@dataclass
class Talk:
    """Opens conversations, and closes all of them in the end."""

    resources: contextlib.ExitStack
    listeners: dict[tuple[Namespace, tuple[str, int]], socket.socket] = field(default_factory=dict)

    def tcp(
        self, where: Namespace, dialled: str, port: int, at: Namespace, target: tuple[str, int]
    ) -> Conversation:
        """Dial `dialled`, which leads to `target` in `at`."""
        if (at, target) not in self.listeners:
            listener = self.resources.enter_context(open_socket(at, target[0], socket.SOCK_STREAM))
            listener.bind(target)
            listener.listen()
            self.listeners[at, target] = listener
        dialler = open_socket(where, dialled, socket.SOCK_STREAM)
        dialler.connect((dialled, port))
        accepted = self.listeners[at, target].accept()[0]
        accepted.settimeout(3)
        return self._opened(Conversation(dialler, accepted))

    def direct(
        self, where: Namespace, at: Pod, port: int, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> Conversation:
        """Dial the other pod itself."""
        if kind == socket.SOCK_STREAM:
            return self.tcp(where, at.address, port, at, (at.address, port))
        dialler, dialled = (open_socket(one, at.address, kind) for one in (where, at))
        dialled.bind((at.address, port))
        dialler.connect((at.address, port))
        dialled.connect(dialler.getsockname())
        return self._opened(Conversation(dialler, dialled))

    def _opened(self, conversation: Conversation) -> Conversation:
        self.resources.callback(conversation.close)
        assert conversation.lives()
        return conversation


@pytest.fixture
def talk() -> Iterator[Talk]:
    with contextlib.ExitStack() as resources:
        yield Talk(resources)


def enforce(enforcer: Enforcer, policy: NodePolicy, **places: Namespace) -> None:
    """Bring the policy into force in the namespaces, by their uid; the node's is `node`."""
    found = [
        Place("" if uid == "node" else uid, where.path, inode(where.path))
        for uid, where in places.items()
    ]
    assert not enforcer.apply(Order(1, policy), found).problems


def policy_of(pod: Pod, inbound: Program, outbound: Program, *friends: Pod) -> NodePolicy:
    binding = PodBinding("uid", "shop", pod.name, (parse_address(pod.address),), (IN,), (OUT,))
    return NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {FRIENDS: tuple(host_network(parse_address(friend.address)) for friend in friends)},
        {IN: inbound, OUT: outbound},
        (binding,),
        NodeBinding((), None, None, None),
        (),
    )


def ports(*wanted: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(port, port) for port in wanted)


@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "older than tracking"])
def test_what_is_denied_is_cut_and_what_is_allowed_lives_on(
    node: Node, talk: Talk, tracked: bool
) -> None:
    friend, stranger, pod = node.pods
    anything = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))
    inbound = Program(
        (
            Rule("default/shop/p2/in", Action.ALLOW, TCP, ports(80, 40000), FRIENDS),
            CATCH_ALL,
        )
    )
    outbound = Program(
        (
            Rule("default/shop/p2/out", Action.ALLOW, TCP, ports(90), None),
            Rule("default/shop/p2/dns", Action.ALLOW, UDP, ports(53), None),
            CATCH_ALL,
        )
    )
    enforcer = Enforcer(Nftables())
    if tracked:
        enforce(enforcer, policy_of(pod, anything, anything, friend), uid=pod)
    allowed = {
        "from a friend": talk.direct(friend, pod, 80),
        "to anyone": talk.direct(pod, stranger, 90),
        "a question": talk.direct(pod, stranger, 53, socket.SOCK_DGRAM),
        "to who has stopped listening": talk.direct(friend, pod, 40000),
    }
    talk.listeners[pod, (pod.address, 40000)].close()
    denied = {
        "from a stranger": talk.direct(stranger, pod, 8080),
        "to another port": talk.direct(friend, pod, 81),
        "out": talk.direct(pod, stranger, 91),
    }
    datagrams = talk.direct(friend, pod, 53, socket.SOCK_DGRAM)

    enforce(enforcer, policy_of(pod, inbound, outbound, friend), uid=pod)

    for name, one in denied.items():
        near, far = one.dialled, one.dialler
        if name == "out":
            near, far = far, near
        near.settimeout(0.2)
        with pytest.raises(ConnectionAbortedError):
            near.recv(1)
        with pytest.raises(ConnectionResetError):
            far.recv(1)
    datagrams.dialled.settimeout(0.5)
    datagrams.dialler.send(b"denied")
    with pytest.raises(TimeoutError):
        datagrams.dialled.recv(100)
    assert [name for name, one in allowed.items() if not one.lives()] == []


def test_what_is_open_by_link_local_addresses_is_cut_too(node: Node) -> None:
    pod = node.pods[0]
    anything = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(pod, anything, anything), uid=pod)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(open_socket(node, "::", socket.SOCK_STREAM))
        listener.bind(("fe80::1", 80, 0, pod.host_ifindex))
        listener.listen()
        client = stack.enter_context(open_socket(pod, "::", socket.SOCK_STREAM))
        client.connect(("fe80::1", 80, 0, pod.ifindex("eth0")))
        served = stack.enter_context(listener.accept()[0])
        served.settimeout(3)
        assert Conversation(client, served).lives()
        nothing = Program((CATCH_ALL,))
        enforce(enforcer, policy_of(pod, nothing, nothing), uid=pod)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
        with pytest.raises(ConnectionResetError):
            served.recv(1)


def test_what_a_flowtable_passes_by_the_rules_fails_no_order(
    node: Node, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This kernel has no flowtables, so that what it would answer is put into its mouth."""
    _, stranger, pod = node.pods
    one = talk.direct(stranger, pod, 80)
    asked = exchange

    def busy(netlink: socket.socket, kind: int, flags: int, request: bytes) -> Iterator[bytes]:
        if kind == 1 << 8 | 2:  # IPCTNL_MSG_CT_DELETE
            raise NetlinkError("Device or resource busy", errno.EBUSY)
        return asked(netlink, kind, flags, request)

    monkeypatch.setattr("ringfence.kernel.conntrack.exchange", busy)
    nothing = Program((CATCH_ALL,))
    enforce(Enforcer(Nftables()), policy_of(pod, nothing, nothing), uid=pod)
    with pytest.raises(ConnectionError):
        one.lives()


def test_what_could_not_be_adopted_at_first_is_adopted_before_the_rules(
    node: Node, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    friend, _, pod = node.pods
    one = talk.direct(friend, pod, 80)
    admit = Program((Rule("default/shop/p1/in", Action.ALLOW, TCP, ports(80), FRIENDS), CATCH_ALL))
    policy = policy_of(pod, admit, admit, friend)
    enforcer = Enforcer(Nftables())

    def fail(netns: Path) -> int:
        raise NetlinkError("No buffer space available")

    with monkeypatch.context() as failing:
        failing.setattr("ringfence.agent.enforce.conntrack.adopt_open_sockets", fail)
        place = Place("uid", pod.path, inode(pod.path))
        assert enforcer.apply(Order(1, policy), [place]).problems
    enforce(enforcer, policy, uid=pod)
    assert one.lives()


def test_a_kernel_that_destroys_no_sockets_passes_no_data(
    node: Node, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(netns: Path, connection: Connection) -> bool:
        raise NetlinkError("Operation not supported")

    monkeypatch.setattr("ringfence.agent.cut.sockets.destroy", refuse)
    _, stranger, pod = node.pods
    one = talk.direct(stranger, pod, 80)
    nothing = Program((CATCH_ALL,))
    enforce(Enforcer(Nftables()), policy_of(pod, nothing, nothing), uid=pod)
    for sender, receiver in ((one.dialler, one.dialled), (one.dialled, one.dialler)):
        receiver.settimeout(0.5)
        sender.send(b"denied")
        with pytest.raises(TimeoutError):
            receiver.recv(100)


CLUSTER_IP, NODE_PORT, WEB = "10.100.0.9", 31095, 8080


def test_connections_through_a_service_live_on_where_policy_allows_them(talk: Talk) -> None:
    """Where DNAT takes place: pods know the Service's address, the node both, the backend none."""
    with node_with_pods(4) as node:
        friend, stranger, web, external = node.pods
        node.nft(
            f"table ip balancer {{ chain pre {{ type nat hook prerouting priority dstnat;\n"
            f"ip daddr {CLUSTER_IP} tcp dport 80 dnat to {web.address}:{WEB}\n"
            f"fib daddr type local tcp dport {NODE_PORT} dnat to {web.address}:{WEB}\n"
            f"}}; }}"
        )
        home = shop.node("n1", *(pod.gateway for pod in node.pods))
        items = [
            shop.pod(name, name, "n1", pod.address)
            for name, pod in (("friend", friend), ("stranger", stranger), ("web", web))
        ]
        front = shop.service("web", CLUSTER_IP, 80, [(items[2], WEB)], NODE_PORT)
        nodes = FilterEnd(parse('kind = "node"'))
        rules = shop.policy_set(
            shop.allow("web", shop.app("friend"), ServiceEnd(shop.NAMESPACE, "web"), 80),
            shop.allow("probe", nodes, shop.app("web"), 8081),
            items=(home, *items, front),
        )
        (policy,) = compile_policies(rules, ()).policies.values()

        def dial(where: Namespace, dialled: str, port: int) -> Conversation:
            return talk.tcp(where, dialled, port, web, (web.address, WEB))

        allowed = {
            "its address": dial(friend, CLUSTER_IP, 80),
            "its node port": dial(friend, friend.gateway, NODE_PORT),
            "its backend": dial(friend, web.address, WEB),
            "a probe": talk.direct(node, web, 8081),
        }
        denied = {
            "its address": dial(stranger, CLUSTER_IP, 80),
            "its node port": dial(external, external.gateway, NODE_PORT),
        }
        enforcer = Enforcer(Nftables())
        enforce(enforcer, policy, node=node, friend=friend, stranger=stranger, web=web)
        assert [name for name, one in allowed.items() if not one.lives()] == []
        for one in denied.values():
            one.dialler.settimeout(0.5)
            with pytest.raises(OSError):  # noqa: PT011 - a reset, or silence
                one.lives()
        passing = {parse_address(external.address), parse_address(stranger.address)}
        assert passing.isdisjoint(entry.source for entry in conntrack.entries(web.path))
        assert [name for name, one in allowed.items() if not one.lives()] == []


def test_a_redirected_connection_is_tracked_already(node: Node, talk: Talk) -> None:
    """Its socket shows another tuple than it was opened with: nothing is to be adopted."""
    client, pod, _ = node.pods
    pod.nft(
        "table ip mesh { chain pre { type nat hook prerouting priority dstnat;\n"
        "tcp dport 80 redirect to :15006\n}; }"
    )
    one = talk.tcp(client, pod.address, 80, pod, (pod.address, 15006))
    conntrack.adopt_open_sockets(pod.path)
    (entry,) = conntrack.entries(pod.path)
    assert (entry.destination_port, entry.translated, entry.guessed) == (80, True, False)
    assert one.lives()


def test_many_tracked_connections_are_read_in_little_memory() -> None:
    with namespace("pod") as pod:
        pod.run("ip", "link", "set", "lo", "up")
        nft.start_tracking(pod.path)
        with pod.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            for port in range(1, 10_001):
                sender.sendto(b"x", ("127.0.0.1", port))
        tracemalloc.start()
        try:
            tracked = sum(1 for _ in conntrack.entries(pod.path))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert tracked >= 10_000
    assert peak < 1 << 20
