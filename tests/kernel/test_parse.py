"""Headers that sockets rarely send, run through the loaded program one frame at a time."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ringfence.flows.record import Hook
from ringfence.kernel.bpf import object_path, run_on_frame
from ringfence.kernel.capture import FlowCapture
from tests.kernel.frames import A4, A6, B4, B6, ethernet, icmp, ipv4, ipv6, packed, tcp, udp
from tests.kernel.netns import Namespace, namespace

IP4, IP6, ARP = 0x0800, 0x86DD, 0x0806
HOP, ROUTING, FRAGMENT, AH, DESTINATION = 0, 43, 44, 51, 60
SYN, SYNACK = 0x02, 0x12


@pytest.fixture(scope="module")
def empty() -> Iterator[Namespace]:
    """A namespace without connections that a lookup could find."""
    with namespace("parse") as made:
        yield made


def run(capture: FlowCapture, where: Namespace, frame: bytes, context: bytes | None = None) -> None:
    program = capture.program_fd("ethernet_egress")
    where.call(lambda: run_on_frame(program, frame, context))


PARSED = {
    "tcp": (ethernet(IP4, ipv4(6, tcp(1000, 80, SYN))), 6, 1000, 80, 40),
    "tcp options": (ethernet(IP4, ipv4(6, tcp(1, 2, SYN, b"abc", bytes(12)))), 6, 1, 2, 55),
    "udp": (ethernet(IP4, ipv4(17, udp(53, 5353, b"xy"))), 17, 53, 5353, 30),
    "sctp": (ethernet(IP4, ipv4(132, udp(7, 9, bytes(4)))), 132, 7, 9, 32),
    "udp-lite's ports are left alone": (ethernet(IP4, ipv4(136, udp(7, 9))), 136, 0, 0, 28),
    "icmp": (ethernet(IP4, ipv4(1, icmp(3, 4))), 1, 3, 4, 28),
    "gre has no ports": (ethernet(IP4, ipv4(47, bytes(8))), 47, 0, 0, 28),
    "vlan": (ethernet(IP4, ipv4(17, udp(1, 2)), (5,)), 17, 1, 2, 28),
    "vlan in vlan": (ethernet(IP6, ipv6(17, udp(1, 2)), (5, 6)), 17, 1, 2, 48),
    "ip options": (ethernet(IP4, ipv4(17, udp(1, 2), b"\x01" * 40)), 17, 1, 2, 68),
    "ah": (ethernet(IP4, ipv4(AH, b"\x06\x04" + bytes(22) + tcp(1, 2, SYN))), 6, 1, 2, 64),
    "first fragment": (ethernet(IP4, ipv4(17, udp(1, 2), fragment=0x2000)), 17, 1, 2, 28),
    "later fragment": (ethernet(IP4, ipv4(17, bytes(24), fragment=3)), 17, 0, 0, 44),
    "802.2 SNAP": (ethernet(60, bytes.fromhex("aaaa030000000800") + ipv4(17, udp(1, 2))),
                   17, 1, 2, 28),
    "two MPLS labels": (ethernet(0x8847, bytes(4) + b"\0\0\1\0" + ipv6(17, udp(1, 2)), (5,)),
                        17, 1, 2, 48),
    "PPPoE": (ethernet(0x8864, bytes(6) + b"\0\x21" + ipv4(17, udp(1, 2)), (5, 6)), 17, 1, 2, 28),
    "VN tag": (ethernet(0x8926, bytes(4) + b"\x08\0" + ipv4(17, udp(1, 2))), 17, 1, 2, 28),
    "padded to 60": (ethernet(IP4, ipv4(17, udp(1, 2))) + bytes(18), 17, 1, 2, 28),
    "tcp6": (ethernet(IP6, ipv6(6, tcp(1000, 80, SYN))), 6, 1000, 80, 60),
    "icmp6": (ethernet(IP6, ipv6(58, icmp(128, 0))), 58, 128, 0, 48),
    "extensions": (
        ethernet(
            IP6,
            ipv6(
                17,
                udp(1, 2),
                ((HOP, b"\0" + bytes(6)), (ROUTING, b"\x02" + bytes(22)), (AH, b"\x04" + bytes(22)),
                 (DESTINATION, b"\0" + bytes(6))),
            ),
        ),
        17, 1, 2, 40 + 8 + 24 + 24 + 8 + 8,
    ),
    "first fragment6": (
        ethernet(IP6, ipv6(17, udp(1, 2), ((FRAGMENT, struct.pack("!BHI", 0, 1, 9)),))),
        17, 1, 2, 56,
    ),
    "later fragment6": (
        ethernet(IP6, ipv6(17, bytes(8), ((FRAGMENT, struct.pack("!BHI", 0, 8, 9)),))),
        17, 0, 0, 56,
    ),
}  # fmt: skip

UNPARSED = {
    "arp": (ethernet(ARP, bytes(28)), "non_ip"),
    "802.2 without SNAP": (ethernet(38, b"\x42\x42\x03" + bytes(35)), "non_ip"),
    "MPLS of something else": (ethernet(0x8847, b"\0\0\1\0" + bytes(40)), "non_ip"),
    "PPPoE of something else": (ethernet(0x8864, bytes(6) + b"\xc0\x21" + bytes(9)), "non_ip"),
    "tag cut off": (ethernet(0x8100, b"\0"), "truncated"),
    "tcp cut off": (ethernet(IP4, ipv4(6, tcp(1, 2, SYN)))[:44], "bad_length"),
    "sctp cut off": (ethernet(IP4, ipv4(132, udp(7, 9, bytes(3)))), "truncated"),
    "cut inside the payload": (ethernet(IP4, ipv4(17, udp(1, 2, bytes(99))))[:80], "bad_length"),
    "total length below the headers": (
        ethernet(IP4, ipv4(17, udp(1, 2)).replace(b"\0\x1c", b"\0\x14", 1)), "bad_length",
    ),
    "header length below 5 words": (ethernet(IP4, b"\x44" + ipv4(17, udp(1, 2))[1:]), "bad_header"),
    "tcp offset below 5 words": (
        ethernet(IP4, ipv4(6, tcp(1, 2, SYN)[:12] + b"\x40" + bytes(7))), "bad_header",
    ),
    "ah cut off": (ethernet(IP4, ipv4(AH, b"\x06")), "truncated"),
    "ah longer than the packet": (
        ethernet(IP4, ipv4(AH, b"\x32\xff" + bytes(22))), "bad_length",
    ),
    "version 5": (ethernet(IP4, b"\x55" + ipv4(17, udp(1, 2))[1:]), "bad_header"),
    "extension cut off": (ethernet(IP6, ipv6(17, b"", ((HOP, b"\x09"),))), "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSED)
def test_a_frame_becomes_the_record_it_should(
    name: str, capture: FlowCapture, empty: Namespace
) -> None:
    frame, proto, sport, dport, length = PARSED[name]
    run(capture, empty, frame)
    (flow,) = capture.drain()
    src, dst = (A6, B6) if packed(A6) in frame else (A4, B4)
    assert (flow["src"].tobytes(), flow["dst"].tobytes()) == (packed(src), packed(dst))
    assert (flow["protocol"], flow["sport"], flow["dport"]) == (proto, sport, dport)
    assert (flow["packets"], flow["bytes"], flow["hook"]) == (1, length, Hook.EGRESS)
    assert flow["syn"] == (proto == 6)


@pytest.mark.parametrize("name", UNPARSED)
def test_what_is_no_record_is_counted_with_its_reason(
    name: str, capture: FlowCapture, empty: Namespace
) -> None:
    frame, reason = UNPARSED[name]
    run(capture, empty, frame)
    assert len(capture.drain()) == 0
    (row,) = capture.audit()
    assert (row["skbs"], row["bytes"]) == (1, len(frame))
    reasons = ("non_ip", "truncated", "bad_header", "bad_length")
    assert {name: row[name] for name in reasons} == {name: name == reason for name in reasons}


def fragments(kind: str, number: int) -> list[bytes]:
    """A datagram's first fragment and its later one."""
    if kind == "ah":
        headers = b"\x11\x04" + bytes(22) + udp(1, 2)
        return [
            ethernet(IP4, ipv4(AH, headers, fragment=0x2000, identification=number)),
            ethernet(IP4, ipv4(AH, bytes(24), fragment=4, identification=number)),
        ]
    if kind == "tiny":
        parts = zip((tcp(1, 2, SYN)[:8], tcp(1, 2, SYN)[8:] + bytes(12)), (0x2000, 1), strict=True)
        return [
            ethernet(IP4, ipv4(6, part, fragment=fragment, identification=number)) + bytes(18)
            for part, fragment in parts
        ]
    if kind == "ipv4":
        return [
            ethernet(IP4, ipv4(17, udp(1, 2, bytes(8)), fragment=0x2000, identification=number)),
            ethernet(IP4, ipv4(17, bytes(24), fragment=2, identification=number)),
        ]
    # Only the first fragment tells what follows the extension headers behind its own.
    first = ((FRAGMENT, struct.pack("!BHI", 0, 1, number)), (DESTINATION, b"\0" + bytes(6)))
    later = ((FRAGMENT, struct.pack("!BHI", 0, 16, number)),)
    packets = ipv6(17, udp(1, 2), first), ipv6(DESTINATION, bytes(24), later)
    return [ethernet(IP6, packet) for packet in packets]


@pytest.mark.parametrize("kind", ["ipv4", "ah", "tiny", "ipv6"])
def test_a_later_fragment_counts_in_the_flow_of_its_first(
    kind: str, capture: FlowCapture, empty: Namespace
) -> None:
    first, later = fragments(kind, 1)
    _, stranger = fragments(kind, 2)
    for frame in (first, later, later, stranger):
        run(capture, empty, frame)
    flows = {int(flow["sport"]): flow for flow in capture.drain()}
    assert set(flows) == {1, 0}
    padding = 18 if kind == "tiny" else 0
    headers = len(first) - 14 - padding, len(later) - 14 - padding
    assert (flows[1]["protocol"], flows[1]["dport"], flows[1]["packets"]) == (
        6 if kind == "tiny" else 17, 2, 3,
    )  # fmt: skip
    assert flows[1]["tcp_flags"] == 0
    assert flows[1]["bytes"] == headers[0] + 2 * headers[1]
    assert (flows[0]["packets"], flows[0]["bytes"]) == (1, headers[1])
    (audit,) = capture.audit()
    assert audit["unplaced"] == 1


def test_flags_add_up_over_the_packets_of_a_flow(capture: FlowCapture, empty: Namespace) -> None:
    for flags in (SYN, SYNACK, 0x10, 0x18, 0x10, 0x11, 0x14):
        frame = ethernet(IP4, ipv4(6, tcp(1, 2, flags)))
        run(capture, empty, frame)
    (flow,) = capture.drain()
    assert [int(flow[n]) for n in ("syn", "synack", "fin", "rst")] == [1, 1, 1, 1]
    assert (flow["tcp_flags"], flow["packets"]) == (0x1F, 7)
    assert flow["first_ns"] < flow["last_ns"]


def test_an_opening_that_is_sent_again_counts_once(capture: FlowCapture, empty: Namespace) -> None:
    for flags in (SYN, SYNACK):
        for seq in (7, 7, 9, 9):
            run(capture, empty, ethernet(IP4, ipv4(6, tcp(1, 2, flags, seq=seq))))
    (flow,) = capture.drain()
    assert (flow["syn"], flow["synack"], flow["packets"]) == (2, 2, 8)


SEGMENTED = tcp(1, 2, 0x10, bytes(2500))
IN_VXLAN = bytes(8) + ethernet(IP6, ipv6(6, SEGMENTED))
SUPER_PACKETS = {  # with the headers that each segment repeats: outside, and inside of a tunnel
    "tcp": (ipv4(6, SEGMENTED), (40,)),
    "sctp": (ipv4(132, udp(7, 9, bytes(4 + 2500))), (32,)),
    "vxlan": (ipv4(17, udp(9, 4789, IN_VXLAN)), (28 + 8 + 14 + 60, 60)),
    "ipip": (ipv4(4, ipv4(6, SEGMENTED)), (60, 40)),
    "ipip in vxlan": (
        ipv4(17, udp(9, 4789, bytes(8) + ethernet(IP4, ipv4(4, ipv4(6, SEGMENTED))))),
        (28 + 8 + 14 + 20 + 40, 40),
    ),
}


def gso(size: int, segments: int) -> bytes:
    context = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", context, 164, segments, size)
    return bytes(context)


@pytest.mark.parametrize("name", SUPER_PACKETS)
@pytest.mark.parametrize(("size", "segments", "packets"), [(1000, 0, 3), (1000, 3, 3), (0, 0, 1)])
def test_a_gso_packet_counts_as_its_segments(
    size: int, segments: int, packets: int, name: str, capture: FlowCapture, empty: Namespace
) -> None:
    packet, headers = SUPER_PACKETS[name]
    run(capture, empty, ethernet(IP4, packet), gso(size, segments))
    flows = {int(flow["inner"]): flow for flow in capture.drain()}
    assert set(flows) == set(range(len(headers)))
    for inner, flow in flows.items():
        counted = (packets, 2500 + packets * headers[inner])
        assert (flow["packets"], flow["bytes"]) == counted


@pytest.mark.parametrize(("size", "counted"), [(1000, (3, 2500 + 3 * 60)), (0, (1, 2500 + 68))])
def test_segments_lack_the_header_that_tells_a_super_packets_length(
    size: int, counted: tuple[int, int], capture: FlowCapture, empty: Namespace
) -> None:
    option = b"\0\xc2\4" + struct.pack("!I", 2500 + 20 + 8)
    packet = bytearray(ipv6(6, SEGMENTED, ((HOP, option),)))
    packet[4:6] = bytes(2)
    run(capture, empty, ethernet(IP6, bytes(packet)), gso(size, 0))
    (flow,) = capture.drain()
    assert (flow["packets"], flow["bytes"]) == counted


def test_what_only_a_port_tells_is_not_looked_into_within_a_tunnel_either(
    capture: FlowCapture, empty: Namespace
) -> None:
    gtp = bytes.fromhex("30ff000000000000") + ipv4(17, udp(3, 4))
    run(capture, empty, ethernet(IP4, ipv4(4, ipv4(17, udp(9, 2152, gtp)))))
    (inner,) = (flow for flow in capture.drain() if flow["inner"])
    assert (inner["sport"], inner["dport"]) == (9, 2152)


def test_a_full_map_loses_nothing_silently(empty: Namespace) -> None:
    capture = FlowCapture(object_path("flow"), max_flows=64)
    capture.open()
    try:
        for port in range(100):
            frame = ethernet(IP4, ipv4(17, udp(port, 53)))
            run(capture, empty, frame)
        flows, (audit,) = capture.drain(), capture.audit()
        assert len(np.unique(flows["sport"])) == len(flows) >= 64
        assert audit["full_skbs"] == audit["full_packets"] == 100 - len(flows)
        assert audit["full_bytes"] == 28 * audit["full_packets"]
        frame = ethernet(IP4, ipv4(17, udp(100, 53)))
        run(capture, empty, frame)
        assert capture.drain()["sport"].tolist() == [100]
    finally:
        capture.close()


def test_what_has_no_row_in_the_audit_is_recorded_and_counted_all_the_same(
    empty: Namespace,
) -> None:
    capture = FlowCapture(object_path("flow"), max_audits=1)
    capture.open()
    try:
        frame = ethernet(IP4, ipv4(17, udp(100, 53)))
        run(capture, empty, frame)
        ingress = capture.program_fd("ethernet_ingress")
        for _ in range(2):
            empty.call(lambda: run_on_frame(ingress, frame, None))
        own, rest = capture.audit()
        assert (own["hook"], own["skbs"]) == (Hook.EGRESS, 1)
        assert own["ifindex"]
        assert (rest["ifindex"], rest["skbs"], rest["bytes"]) == (0, 2, 2 * len(frame))
        assert sorted(capture.drain()["packets"].tolist()) == [1, 2]
    finally:
        capture.close()


@pytest.mark.parametrize("replay", [True, False])
def test_a_kernel_without_connection_tracking_counts_all_the_same(
    replay: bool, empty: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nf_conntrack brings along is asked for under names that no kernel has."""
    lacking = tmp_path / "flow.bpf.o"
    built = object_path("flow").read_bytes()
    for name in (b"bpf_skb_ct_lookup", b"bpf_ct_release"):
        assert name in built
        built = built.replace(name, name.upper())
    lacking.write_bytes(built)
    monkeypatch.setattr("ringfence.kernel.capture._CONNTRACK", tmp_path / "nf_conntrack")
    capture = FlowCapture(lacking, replay=replay)
    capture.open()
    try:
        ingress = capture.program_fd("ethernet_ingress")
        empty.call(lambda: run_on_frame(ingress, ethernet(IP6, ipv6(17, udp(100, 53)))))
        assert capture.audit()["skbs"].sum() == 1
    finally:
        capture.close()
