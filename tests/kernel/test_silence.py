"""What a namespace sends against its own rules: it vanishes, and nobody is told but the agent."""

import contextlib
import functools
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from ringfence.agent.enforce import Enforcer
from ringfence.agent.mechanisms import MECHANISMS, Kind, Mechanism
from ringfence.agent.plan import Order
from ringfence.kernel import conntrack, nft, silence
from ringfence.kernel.bpf import object_path
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.netlink import NETFILTER, attribute, attributes, connect, messages
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.address import parse_address
from ringfence.model.protocol import ICMP, ICMPV6, UDP
from ringfence.model.repair import Damage
from ringfence.policy.backends import iptables
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.marks import DROP_MARK, SILENCED_MARK, SILENT_QUEUE
from ringfence.policy.program import Exposure, NodeBinding, Program, Rule
from ringfence.policy.proof.prove import prove
from tests.kernel import test_backends as backends
from tests.kernel.netns import Namespace, Node, Pod, node_with_pods
from tests.kernel.test_cut import CATCH_ALL, IN, OUT, policy_of, ports
from tests.kernel.test_enforce import at
from tests.kernel.test_nftables import drops, load
from tests.kernel.test_reject import ADMIT, BACKEND, SILENT
from tests.kernel.test_reject import policy_of as rejecting
from tests.kernel.traffic import open_socket, ping

OPEN, DENIED = 80, 81
UDP_80 = Rule("default/shop/p1/udp", ADMIT.action, UDP, ADMIT.ports, None)


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


@pytest.fixture(params=[4, 6])
def addresses(request: pytest.FixtureRequest, node: Node) -> tuple[str, str]:
    """Of the pod that sends, and of the other."""
    sender, receiver = ((p.address, p.address6)[request.param == 6] for p in node.pods)
    return sender, receiver


@contextlib.contextmanager
def arriving(where: Namespace, address: str, port: int) -> Iterator[Callable[[], bytes | None]]:
    """Says what datagram came to a port, None if none does within half a second."""
    with open_socket(where, address, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        server.settimeout(0.5)

        def came() -> bytes | None:
            with contextlib.suppress(TimeoutError):
                return server.recv(100)
            return None

        yield came


def govern(mechanism: Mechanism, pod: Pod, *outbound: Rule) -> Ruleset:
    """Load rules for what a pod sends, and prove them."""
    policy, binding = rejecting(pod, (), outbound)
    loaded = mechanism.backend().render_pod(policy, binding)
    backends.load(mechanism, pod, loaded)
    proof = prove(policy, binding, mechanism.door.list_table(pod.path) or (), mechanism.read)
    assert not proof.differing, proof
    return loaded


def send(where: Namespace, address: str, port: int, mark: int = 0) -> None:
    with open_socket(where, address, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        udp.sendto(b"x", (address, port))


def test_what_is_denied_vanishes_and_is_counted_once(
    mechanism: Mechanism, node: Node, addresses: tuple[str, str]
) -> None:
    pod, other = node.pods
    mine, its = addresses
    loaded = govern(mechanism, pod, ADMIT, UDP_80, SILENT)
    others = DropCapture(object_path("drop"))
    others.open()
    with closing(others), arriving(other, its, DENIED) as came, arriving(other, its, OPEN) as open_:
        send(pod, its, DENIED)
        assert came() is None
        assert [entry.protocol for entry in conntrack.entries(pod.path)] == []
        assert not ping(pod, its)
        assert inode(pod.path) not in others.drain()["netns"]
        send(pod, its, OPEN)
        assert open_() == b"x"
    echo = (ICMP, 8 << 8) if "." in its else (ICMPV6, 128 << 8)
    assert backends.drops(mechanism, pod, loaded) == {
        (mine, its, UDP, DENIED): 1,
        (mine, its, *echo): 1,
    }


@pytest.mark.parametrize("mark", [1, DROP_MARK, SILENCED_MARK])
def test_no_mark_of_a_senders_own_opens_anything(
    mechanism: Mechanism, node: Node, addresses: tuple[str, str], mark: int
) -> None:
    pod, other = node.pods
    loaded = govern(mechanism, pod, UDP_80, SILENT)
    with arriving(other, addresses[1], DENIED) as came:
        send(pod, addresses[1], DENIED, mark)
        assert came() is None
    assert backends.drops(mechanism, pod, loaded) == {(*addresses, UDP, DENIED): 1}
    with arriving(other, addresses[1], OPEN) as came:
        if mark == SILENCED_MARK:  # whoever asks for it
            with pytest.raises(PermissionError):
                send(pod, addresses[1], OPEN, mark)
        else:
            send(pod, addresses[1], OPEN, mark)
            assert came() == b"x"


@contextlib.contextmanager
def listener(where: Namespace) -> Iterator[Callable[[], int]]:
    """Listens to our queue; says how many packets it got, and gives them back to go on."""
    bind = attribute(1, struct.pack("!BxH", 1, 0))  # NFQNL_CFG_CMD_BIND
    copy = attribute(2, struct.pack("!IB", 100, 2))  # NFQNL_COPY_PACKET
    header = struct.pack("!BBH", 0, 0, SILENT_QUEUE)
    with where.call(functools.partial(connect, NETFILTER)) as queue:

        def say(kind: int, body: bytes) -> None:
            queue.send(
                struct.pack("=IHHII", 20 + len(body), 3 << 8 | kind, 1, 1, 0) + header + body
            )

        say(2, bind)  # NFQNL_MSG_CONFIG
        say(2, copy)
        queue.settimeout(0.3)

        def give_back() -> int:
            count = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    for kind, _, payload in messages(queue.recv(1 << 16)):
                        if kind == 3 << 8:  # NFQNL_MSG_PACKET, and NF_ACCEPT
                            number = attributes(payload[4:])[1][:4]
                            say(1, attribute(2, struct.pack("!I", 1) + number))
                            count += 1
            return count

        yield give_back


def disarm(kind: Kind, pod: Pod) -> None:
    """Take away what drops packets that were given back."""
    if kind is Kind.NFTABLES:
        pod.nft("flush chain inet ringfence rf_silenced_output")
    else:
        for tool in ("iptables", "ip6tables"):
            variant = kind.removeprefix("iptables-")
            pod.run(f"{tool}-{variant}", "-t", "mangle", "-F", "RINGFENCE-SILENCED")


@pytest.mark.parametrize("kind", Kind)
def test_what_a_listener_gives_back_is_dropped(
    kind: Kind, node: Node, addresses: tuple[str, str]
) -> None:
    pod, other = node.pods
    mechanism = MECHANISMS[kind]
    govern(mechanism, pod, UDP_80, SILENT)
    with listener(pod) as give_back, arriving(other, addresses[1], DENIED) as came:
        send(pod, addresses[1], DENIED)
        assert give_back() == 1
        assert came() is None
        disarm(kind, pod)  # it is that which held, and the proof knows
        listed = mechanism.door.list_table(pod.path) or ()
        told = str(prove(*rejecting(pod, (), (UDP_80, SILENT)), listed, mechanism.read))
        assert "lets it pass or drops it by rule" in told
        send(pod, addresses[1], DENIED)
        assert give_back() == 1
        assert came() == b"x"


@pytest.mark.parametrize(
    "tampering",
    [
        "delete rule inet ringfence rf_drop handle {silence}",
        "flush chain inet ringfence rf_silenced_output",
        "insert rule inet ringfence rf_silenced_output accept",
    ],
)
def test_what_is_tampered_with_denies_still_and_is_repaired(node: Node, tampering: str) -> None:
    pod, other = node.pods
    policy = policy_of(pod, Program((CATCH_ALL,)), Program((UDP_80, CATCH_ALL)), other)
    with (
        closing(Enforcer(BACKEND, listen=TableWatch)) as enforcer,
        arriving(other, other.address, DENIED) as came,
    ):
        assert not enforcer.apply(Order(1, policy), [at(pod)]).problem
        before = pod.run("nft", "-s", "list", "table", "inet", "ringfence")
        (handle,) = pod.call(lambda: silence.silencing(nft.TABLE))
        pod.nft(tampering.format(silence=handle))
        with pytest.raises(PermissionError) if "delete" in tampering else contextlib.nullcontext():
            send(pod, other.address, DENIED)
        assert came() is None
        enforcer.hear()
        assert enforcer.tampered
        assert enforcer.repairs.told() == []
        assert not enforcer.apply(Order(1, policy), [at(pod)]).problem
        assert pod.run("nft", "-s", "list", "table", "inet", "ringfence") == before
        (repair,) = enforcer.repairs.told()
        assert (repair.uid, repair.damage, repair.times) == ("uid", Damage.RULES, 1)
        send(pod, other.address, DENIED)
        assert came() is None


def test_a_queue_of_another_number_is_not_ours(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """nft tells of both but that there is a target."""
    pod, _ = node.pods
    with monkeypatch.context() as patched:
        patched.setattr(silence, "_RULE", silence._RULE.replace(b"RF"[::-1], b"\1\0"))
        load(pod, BACKEND.render_pod(*rejecting(pod, (), (SILENT,))))
    assert not pod.call(lambda: silence.silencing(nft.TABLE))
    assert {"xt"} in [
        {kind for part in found["rule"]["expr"][-1:] for kind in part}
        for found in nft.list_table(pod.path) or ()
        if "rule" in found
    ]


def test_where_the_kernel_has_no_such_target_senders_hear_of_it(
    mechanism: Mechanism, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, other = node.pods
    monkeypatch.setattr(silence, "_RULE", silence._RULE.replace(b"NFQUEUE", b"NFQUEUX"))
    monkeypatch.setattr(iptables, "SILENT_QUEUE", 1 << 16)
    silence._told.clear()
    with capture_logs() as told, arriving(other, other.address, DENIED) as came:
        for _ in range(2):
            govern(mechanism, pod, UDP_80, SILENT)
        with pytest.raises(PermissionError):
            send(pod, other.address, DENIED)
        assert came() is None
    assert [one["log_level"] for one in told] == ["warning"]


def test_a_nodes_own_packets_vanish_too(node: Node) -> None:
    """What it sends, and what it dials at an exposed port."""
    pod, _ = node.pods
    given, _ = rejecting(pod, (SILENT,), (UDP_80, SILENT))
    exposed, own = Exposure(UDP, ports(DENIED), None), (parse_address(pod.gateway),)
    for binding, dialled in (
        (NodeBinding(own, None, OUT, None), pod.address),
        (NodeBinding(own, None, None, IN, exposures=(exposed,)), pod.gateway),
    ):
        policy = replace(given, binding=binding)
        loaded = BACKEND.render_node(policy)
        load(node, loaded)
        proof = prove(policy, binding, nft.list_table(node.path) or ())
        assert not proof.differing, proof
        send(node, dialled, DENIED)
        assert list(drops(node, loaded)) == [(pod.gateway, dialled, UDP, DENIED)]
