"""Tunnels as an agent sees them: the packet outside, the one inside, and which carried which."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ringfence.flows.record import Hook, Nat, tuple_id
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.interfaces import list_interfaces
from ringfence.kernel.tunnel import DecodeAs, Tunnel
from tests.kernel.frames import A4, A6, B4, B6, ethernet, ipv4, ipv6, packed, tcp, udp
from tests.kernel.netns import Namespace, ip, namespace, node_with_pods
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

TCP, UDP = 6, 17
IP4, IP6, TEB = 0x0800, 0x86DD, 0x6558
OUTSIDE = ("10.98.0.1", "10.98.0.2")
INSIDE = ("10.97.0.1", "10.97.0.2")
SERVICE = "10.96.0.10"
AROUND = 20 + 8 + 8 + 14  # IPv4, UDP, VXLAN and Ethernet headers


@contextlib.contextmanager
def overlay(port: int) -> Iterator[tuple[Namespace, Namespace]]:
    """Two nodes, joined by a wire `under` and by a VXLAN over it, `over`."""
    with namespace("left") as left, namespace("right") as right:
        ip("-n", left.name, "link", "add", "under", "type", "veth",
           "peer", "name", "under", "netns", right.name)  # fmt: skip
        for node, mine, other in ((left, 0, 1), (right, 1, 0)):
            ip("-n", node.name, "-batch", "-", stdin=(
                "link set under addrgenmode none up\n"
                f"addr add {OUTSIDE[mine]}/24 dev under\n"
                f"link add over type vxlan id 7 dstport {port} remote {OUTSIDE[other]} dev under\n"
                "link set over addrgenmode none up\n"
                f"addr add {INSIDE[mine]}/24 dev over\n"
            ))  # fmt: skip
        yield left, right


def one_of(flows: Any, **fields: int | str) -> Any:
    """The one record whose fields are as given."""
    chosen = np.ones(len(flows), dtype=bool)
    for name, value in fields.items():
        if isinstance(value, str):
            chosen &= (flows[name] == np.frombuffer(packed(value), np.uint8)).all(axis=1)
        else:
            chosen &= flows[name] == value
    assert chosen.sum() == 1, flows[chosen]
    return flows[chosen][0]


@pytest.mark.parametrize("port", [4789, 8472])
def test_what_a_vxlan_carries_is_the_same_at_both_its_interfaces(
    port: int, capture: FlowCapture
) -> None:
    payload = 300_000
    with overlay(port) as (left, right):
        left.nft(
            f"""
            table ip nat {{
                chain output {{
                    type nat hook output priority -100
                    ip daddr {SERVICE} tcp dport 80 dnat to {INSIDE[1]}:8080
                }}
            }}
            """
        )
        ip("-n", left.name, "route", "add", SERVICE, "dev", "over")
        listed = left.call(list_interfaces)
        tunnels = {interface.tunnel for interface in listed if interface.tunnel}
        assert tunnels == {DecodeAs(port, Tunnel.VXLAN)}
        capture.decode_as(tunnels)
        under, over = (left.ifindex(device) for device in ("under", "over"))
        for ifindex in (under, over):
            left.call(lambda ifindex=ifindex: capture.attach(ifindex))  # type: ignore[misc]
        with tcp_echo(right, INSIDE[1], 8080):
            for _ in range(5):
                source = tcp_exchange(left, SERVICE, 80, bytes(payload))
                time.sleep(0.05)
                flows = capture.drain()
                if not flows["retransmitted"].any():  # as TCP does where the machine is busy
                    break
    ways: list[tuple[Hook, dict[str, int | str], tuple[str, str]]] = [
        (
            Hook.EGRESS,
            {"src": INSIDE[0], "sport": source, "dst": INSIDE[1], "dport": 8080},
            OUTSIDE,
        ),
        (
            Hook.INGRESS,
            {"src": INSIDE[1], "sport": 8080, "dst": INSIDE[0], "dport": source},
            OUTSIDE[::-1],
        ),
    ]
    for hook, way, (near, far) in ways:
        own = one_of(flows, ifindex=over, inner=0, hook=hook, protocol=TCP, **way)
        seen = one_of(flows, ifindex=under, inner=1, hook=hook, protocol=TCP, **way)
        same = (
            "packets", "bytes", "tcp_flags", "syn", "synack", "fin", "rst", "nat", "reply",
            "original_dport",
        )  # fmt: skip
        assert [own[name] for name in same] == [seen[name] for name in same]
        assert seen["bytes"] == payload + 52 * seen["packets"] + 8
        assert seen["nat"] == Nat.TRANSLATED
        assert seen["original_dst"].tobytes() == packed(SERVICE)
        assert own["tunnel"] == 0
        (outside,) = flows[tuple_id(flows) == seen["tunnel"]]
        assert (outside["ifindex"], outside["hook"]) == (under, hook)
        assert (outside["protocol"], outside["dport"]) == (UDP, port)
        assert outside["src"].tobytes() == packed(near)
        assert outside["dst"].tobytes() == packed(far)
        assert outside["packets"] == seen["packets"]
        assert outside["bytes"] == seen["bytes"] + AROUND * seen["packets"]


INNER4, INNER6 = ipv4(UDP, udp(1, 2, b"xyz")), ipv6(TCP, tcp(3, 4, 0x12))
OF4, OF6 = (A4, B4, UDP, 1, 2, 31), (A6, B6, TCP, 3, 4, 60)
GENEVE = struct.pack("!BBHI", 2, 0, TEB, 0) + b"\1\2\3\1" + bytes(4)  # one option of 8 bytes
GRE_KEYED = struct.pack("!HHI", 0x2000, IP6, 99)
TUNNELLED: dict[str, tuple[int, int, bytes, tuple[Any, ...] | None]] = {
    # IP version outside, protocol or UDP port, what is sent, the record inside
    "Geneve with an option": (4, -6081, GENEVE + ethernet(IP4, INNER4, (5,)), OF4),
    "Geneve over IPv6": (6, -6081, GENEVE + ethernet(IP6, INNER6), OF6),
    "IP in IP": (4, 4, INNER4, OF4),
    "6in4": (4, 41, INNER6, OF6),
    "4in6": (6, 4, INNER4, OF4),
    "GRE": (4, 47, struct.pack("!HH", 0, IP4) + INNER4, OF4),
    "GRE with a key": (6, 47, GRE_KEYED + INNER6, OF6),
    "GRE of Ethernet": (4, 47, struct.pack("!HH", 0, TEB) + ethernet(IP4, INNER4), OF4),
    "VXLAN in IP in IP": (
        4, 4, ipv4(UDP, udp(9, 4789, bytes(8) + ethernet(IP6, INNER6))), OF6,
    ),
    "VXLAN of ARP": (4, -4789, bytes(8) + ethernet(0x0806, bytes(28)), None),
    "Teredo's port is not looked into": (4, -3544, INNER6, None),
}  # fmt: skip


@pytest.mark.parametrize("name", TUNNELLED)
def test_a_tunnels_packet_makes_two_linked_records(name: str, capture: FlowCapture) -> None:
    version, kind, sent, inside = TUNNELLED[name]
    with node_with_pods(2) as node:
        one, two = node.pods
        here, there = (one.address, two.address) if version == 4 else (one.address6, two.address6)
        node.call(lambda: capture.attach(one.host_ifindex))
        if kind < 0:
            sender = open_socket(one, there, socket.SOCK_DGRAM)
        else:
            families = {4: socket.AF_INET, 6: socket.AF_INET6}
            sender = one.call(lambda: socket.socket(families[version], socket.SOCK_RAW, kind))
        with sender:
            sender.sendto(sent, (there, max(-kind, 0)))
            flows = capture.drain()
    outer_protocol = UDP if kind < 0 else kind
    outer = one_of(
        flows, inner=0, hook=Hook.INGRESS, protocol=outer_protocol, dport=max(-kind, 0),
        src=here, dst=there,
    )  # fmt: skip
    headers = {4: 20, 6: 40}[version] + (8 if kind < 0 else 0)
    assert (outer["packets"], outer["bytes"]) == (1, headers + len(sent))
    assert outer["tunnel"] == 0
    if inside is None:
        assert not flows["inner"].any()
        return
    inner = one_of(flows, inner=1, src=inside[0], dst=inside[1])
    names = ("protocol", "sport", "dport", "bytes", "packets")
    assert [int(inner[field]) for field in names] == [*inside[2:], 1]
    assert inner["tunnel"] == tuple_id(np.array([outer]))[0]


def test_what_a_pod_puts_into_a_tunnels_packet_is_not_seen_where_that_leaves(
    capture: FlowCapture,
) -> None:
    with node_with_pods(2) as node:
        one, two = node.pods
        node.call(lambda: capture.attach(two.host_ifindex))
        with open_socket(one, two.address, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(8) + ethernet(IP4, INNER4), (two.address, 4789))
            flows = capture.drain()
    one_of(flows, inner=0, hook=Hook.EGRESS, protocol=UDP, dport=4789)
    assert not flows["inner"].any()


def test_what_is_cut_off_inside_a_tunnel_is_counted_with_its_reason(capture: FlowCapture) -> None:
    with node_with_pods(2) as node:
        one, two = node.pods
        node.call(lambda: capture.attach(one.host_ifindex))
        with open_socket(one, two.address, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(8) + ethernet(IP4, INNER4)[:-1], (two.address, 4789))
            audit, flows = capture.audit(), capture.drain()
    assert not flows["inner"].any()
    assert audit["inner_bad_length"].sum() == 1
