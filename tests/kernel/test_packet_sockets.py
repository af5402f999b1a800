"""Packet sockets: what pods with NET_RAW would send past the rules of their namespaces."""

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from functools import partial
from threading import Event

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.held import Asked
from ringfence.agent.plan import Order
from ringfence.kernel import nft, packet_sockets
from ringfence.kernel.bpf import object_path
from ringfence.kernel.drops import DROP_DTYPE, DropCapture
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.policy import Action
from ringfence.model.protocol import UDP
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import NodePolicy, Program, Rule
from ringfence.policy.proof.reading import read
from ringfence.policy.proof.shared import Agreed
from tests.kernel.frames import packed, udp
from tests.kernel.gating import Sink, place
from tests.kernel.netns import Node, Pod, ip, node_with_pods
from tests.kernel.test_cut import CATCH_ALL, FRIENDS, policy_of, ports
from tests.kernel.traffic import open_socket, ping

ALLOWED, DENIED = 80, 81
SOL_PACKET, QDISC_BYPASS = 263, 20
"""linux/if_packet.h"""
PACKETS = {4: 0x0800, 6: 0x86DD}
"""linux/if_ether.h"""


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def governed(pod: Pod, *friends: Pod) -> NodePolicy:
    """The pod may speak UDP with its friends at one port, and nothing else."""
    admit, dial = (
        Program((Rule(f"default/shop/p1/{way}", Action.ALLOW, UDP, ports(ALLOWED), FRIENDS),
                 CATCH_ALL))
        for way in ("in", "out")
    )  # fmt: skip
    return policy_of(pod, admit, dial, *friends)


def datagram(source: str, destination: str, port: int) -> bytes:
    """A packet with its checksums."""
    ends = [ipaddress.ip_address(one).packed for one in (source, destination)]
    body = udp(5555, port, b"xx")
    if len(ends[0]) == len(bytes(4)):
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, UDP, 0)
        sum_of = checksum(header + ends[0] + ends[1])
        return header[:10] + sum_of + ends[0] + ends[1] + body
    pseudo = ends[0] + ends[1] + struct.pack("!II", len(body), UDP)
    body = body[:6] + checksum(pseudo + body) + body[8:]
    return struct.pack("!IHBB", 6 << 28, len(body), UDP, 64) + ends[0] + ends[1] + body


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def send(node: Node, pod: Pod, version: int, packet: bytes) -> None:
    """Send a packet to the node by packet sockets of every kind."""
    gateway = node.run("cat", f"/sys/class/net/{pod.host_device}/address").strip()
    own = pod.run("cat", "/sys/class/net/eth0/address").strip()
    to, of = (bytes.fromhex(one.replace(":", "")) for one in (gateway, own))
    ethertype = PACKETS[version]
    frame = to + of + struct.pack("!H", ethertype) + packet
    for bypass in (0, 1):
        for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
            whole = kind == socket.SOCK_RAW
            with pod.call(partial(socket.socket, socket.AF_PACKET, kind, ethertype)) as sender:
                sender.setsockopt(SOL_PACKET, QDISC_BYPASS, bypass)
                with contextlib.suppress(OSError):  # what is dropped fails the call
                    sender.sendto(frame if whole else packet, ("eth0", ethertype, 0, 0, to))
    time.sleep(0.1)


def ends(pods: tuple[Pod, ...], version: int) -> list[str]:
    return [one.address if version == 4 else one.address6 for one in pods]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("port", [ALLOWED, DENIED])
def test_frames_of_packet_sockets_arrive_nowhere(node: Node, version: int, port: int) -> None:
    """Not at an allowed port, either: whole frames met no rule."""
    pod, other = node.pods
    before = pod.run("nft", "-s", "list", "ruleset")
    own, far = ends(node.pods, version)
    enforcer = Enforcer(Nftables())
    drops = DropCapture(object_path("drop"))
    with Sink(other, port) as sink, contextlib.closing(drops):
        drops.open()
        send(node, pod, version, datagram(own, far, port))
        assert sink.count() == 4, "nothing is enforced yet"
        policy = governed(pod, other)
        assert not enforcer.apply(Order(1, policy), [place(pod, "uid")]).problem
        send(node, pod, version, datagram(own, far, port))
        assert sink.count() == 4
        found = drops.drain()
        mine = found[found["netns"] == inode(pod.path)]
        assert [(row["dst"].tobytes(), row["dport"], row["packets"]) for row in mine] == [
            (packed(far), port, 4)
        ]
        assert not enforcer.apply(Order(2, None), [place(pod, "uid")]).problem
        assert pod.run("nft", "-s", "list", "ruleset") == before
        send(node, pod, version, datagram(own, far, port))
        assert sink.count() == 8


def test_what_the_kernel_sends_passes(node: Node) -> None:
    """Data, echoes and their replies, neighbour discovery and ARP, resets of closed ports."""
    pod, other = node.pods
    anything = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))
    policy = policy_of(pod, anything, anything)
    assert not Enforcer(Nftables()).apply(Order(1, policy), [place(pod, "uid")]).problem
    for where in (node, pod):
        ip("-n", where.name, "neigh", "flush", "all")
    for one, to in ((pod, other), (other, pod)):
        assert ping(one, to.address)
        assert ping(one, to.address6)
    with (
        open_socket(other, pod.address, socket.SOCK_STREAM) as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect((pod.address, 9))


@pytest.mark.parametrize(
    "tampering",
    [
        "delete table netdev ringfence",
        "flush chain netdev ringfence rf_packet_sockets",
        "insert rule netdev ringfence rf_packet_sockets accept",
        "add table netdev ringfence { flags dormant; }",
    ],
)
def test_tampering_is_repaired(node: Node, tampering: str) -> None:
    pod, other = node.pods
    policy = governed(pod, other)
    with contextlib.closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        assert not enforcer.apply(Order(1, policy), [place(pod, "uid")]).problem
        pod.nft(tampering)
        if "delete" not in tampering:
            assert "packet sockets may send past the rules" in refuted(pod, policy)
        enforcer.hear()
        assert enforcer.tampered
        assert not enforcer.apply(Order(1, policy), [place(pod, "uid")]).problem
        assert pod.call(lambda: packet_sockets.is_closed(nft.TABLE))
        assert not refuted(pod, policy)


def refuted(pod: Pod, policy: NodePolicy) -> str:
    listed = nft.list_table(pod.path) or []
    return Asked(policy).refuted(place(pod, "uid"), listed, read, Agreed())


def test_interfaces_come_and_go(node: Node) -> None:
    """A later one is closed too; one that goes, when the pod ends, is no tampering."""
    pod, other = node.pods
    order = Order(1, governed(pod, other))
    enforcer = Enforcer(Nftables())
    assert not enforcer.apply(order, [place(pod, "uid")]).problem
    ip("-n", pod.name, "link", "add", "net1", "type", "veth", "peer", "name", "net2")
    enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
    assert enforcer.tampered
    assert not enforcer.apply(order, [place(pod, "uid")]).problem
    assert pod.call(lambda: packet_sockets.is_closed(nft.TABLE))
    for device in ("net1", "eth0"):
        ip("-n", pod.name, "link", "delete", device)
        enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
        assert not enforcer.tampered


def test_the_first_interface_comes_later() -> None:
    """Rules may be written before the CNI has given the pod an interface."""
    with node_with_pods(1) as node:
        (pod,) = node.pods
        order = Order(1, governed(pod))
        enforcer = Enforcer(Nftables())
        ip("-n", pod.name, "link", "delete", "eth0")
        assert not enforcer.apply(order, [place(pod, "uid")]).problem
        ip("-n", pod.name, "link", "add", "eth0", "type", "veth", "peer", "name", "net2")
        assert "packet sockets may send past the rules" in refuted(pod, governed(pod))
        enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
        assert enforcer.tampered
        assert not enforcer.apply(order, [place(pod, "uid")]).problem
        assert pod.call(lambda: packet_sockets.is_closed(nft.TABLE))


def test_names_that_nft_does_not_take_are_closed_too(node: Node) -> None:
    pod, other = node.pods
    ip("-n", pod.name, "link", "add", 'a"b{c', "type", "veth", "peer", "name", "net2")
    assert not pod.call(lambda: packet_sockets.is_closed(nft.TABLE))
    order = Order(1, governed(pod, other))
    assert not Enforcer(Nftables()).apply(order, [place(pod, "uid")]).problem
    assert pod.call(lambda: packet_sockets.is_closed(nft.TABLE))


def test_a_pod_whose_packet_sockets_cannot_be_closed_is_not_proved(node: Node) -> None:
    """More interfaces than a chain has room for: the pod's doing, not the kernel's inability."""
    pod, other = node.pods
    more = "".join(f"link add many{one} type veth\n" for one in range(130))
    pod.run("ip", "-batch", "-", stdin=more)
    order, enforcer = Order(1, governed(pod, other)), Enforcer(Nftables())
    assert "refused a netlink request" in enforcer.apply(order, [place(pod, "uid")]).problem
    assert packet_sockets.can_close()
    fewer = "".join(f"link delete many{one}\n" for one in range(10))
    pod.run("ip", "-batch", "-", stdin=fewer)
    assert not enforcer.apply(order, [place(pod, "uid")]).problem
    assert pod.call(lambda: packet_sockets.is_closed(nft.TABLE))


def test_frames_by_way_of_the_loopback_are_not_forwarded(node: Node) -> None:
    """What a packet socket sends by lo comes in there, and a pod that forwards sends it on."""
    pod, other = node.pods
    pod.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    pod.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.lo.rp_filter=0")
    packet = datagram("10.9.9.9", other.address, ALLOWED)
    frame = bytes(12) + struct.pack("!H", PACKETS[4]) + packet

    def send_by_lo() -> None:
        with pod.call(partial(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)) as sender:
            sender.sendto(frame, ("lo", PACKETS[4]))
        time.sleep(0.1)

    with Sink(other, ALLOWED) as sink:
        send_by_lo()
        assert sink.count() == 1, "nothing is enforced yet"
        order = Order(1, governed(pod, other))
        assert not Enforcer(Nftables()).apply(order, [place(pod, "uid")]).problem
        with pytest.raises(OSError, match="No buffer space"):
            send_by_lo()
        assert sink.count() == 1
    for own in ("127.0.0.1", "::1", pod.address, pod.address6):
        assert ping(pod, own)


def test_where_the_kernel_has_no_such_hook_rules_are_in_force_without(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, other = node.pods
    unknown = packet_sockets._meta(0x7F)
    monkeypatch.setattr(packet_sockets, "_RULES", [unknown, *packet_sockets._RULES])
    monkeypatch.setattr(packet_sockets, "_cannot", Event())
    order = Order(1, governed(pod, other))
    assert not Enforcer(Nftables()).apply(order, [place(pod, "uid")]).problem
    assert "netdev" not in pod.run("nft", "list", "tables")
