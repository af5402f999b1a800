"""`ringfence capture replay` on files made by hand: tunnels, cut frames, broken files."""

import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ringfence.cli.capture import app
from ringfence.flows.pcap import CaptureFileError
from ringfence.model.errors import InputError
from tests.kernel.frames import A4, A6, B4, B6, ethernet, icmp, ipv4, ipv6, packed, tcp, udp

IP4, IP6, TEB = 0x0800, 0x86DD, 0x6558
INNER4, INNER6 = ipv4(17, udp(1, 2, b"xyz")), ipv6(6, tcp(3, 4, 0x12))


def pcap(frames: Sequence[bytes], network: int = 1, lengths: Sequence[int] | None = None) -> bytes:
    """`lengths`: on the wire, where the frames were captured in part."""
    records = [
        struct.pack("<IIII", 1 + i, 0, len(frame), length) + frame
        for i, (frame, length) in enumerate(
            zip(frames, lengths or [len(frame) for frame in frames], strict=True)
        )
    ]
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, network) + b"".join(records)


def replay(tmp_path: Path, file: bytes, *options: str) -> dict[str, Any]:
    path = tmp_path / "capture"
    path.write_bytes(file)
    arguments = ["replay", str(path), "-o", "json", *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def tuples(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {
        (row["proto"], row["src"], row["sport"], row["dport"], row["packets"], row["ip_bytes"])
        for row in rows
    }


def gre(flags: int, protocol: int, payload: bytes) -> bytes:
    optional = 4 * sum(bool(flags & bit) for bit in (0x8000, 0x2000, 0x1000))
    return ipv4(47, struct.pack("!HH", flags, protocol) + bytes(optional) + payload)


def geneve(protocol: int, options: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHI", options, 0, protocol, 0)
    return ipv4(17, udp(9, 6081, head + bytes(4 * options) + payload))


def vxlan(payload: bytes, port: int = 4789, head: bytes = bytes(8)) -> bytes:
    return ipv4(17, udp(9, port, head + payload))


def gtp(flags: int, optional: bytes, payload: bytes) -> bytes:
    return ipv4(17, udp(9, 2152, struct.pack("!BBHI", flags, 255, 0, 0) + optional + payload))


OF4 = {(17, A4, 1, 2, 1, 31)}
OF6 = {(6, A6, 3, 4, 1, 60)}
TUNNELS = {
    "ipip": (ipv4(4, INNER4), OF4),
    "ipip behind ah": (ipv4(51, b"\x04\x04" + bytes(22) + INNER4), OF4),
    "6in4": (ipv4(41, INNER6), OF6),
    "4in6": (ipv6(4, INNER4), OF4),
    "6in6 behind extension headers": (ipv6(41, INNER6, ((0, bytes(7)), (60, bytes(7)))), OF6),
    "ethernet in ipv6": (ipv6(143, ethernet(IP4, INNER4)), OF4),
    "gre": (gre(0, IP4, INNER4), OF4),
    "gre with checksum, key and sequence": (gre(0xB000, IP6, INNER6), OF6),
    "gre of ethernet with a tag": (gre(0x2000, TEB, ethernet(IP4, INNER4, (5,))), OF4),
    "gre of something else": (gre(0, 0x2001, bytes(40)), set()),
    "pptp": (ipv4(47, bytes.fromhex("3081880b") + bytes(12) + b"\xff\x03\0\x21" + INNER4), OF4),
    "erspan I": (gre(0, 0x88BE, ethernet(IP4, INNER4)), OF4),
    "erspan II": (gre(0x1000, 0x88BE, bytes(8) + ethernet(IP4, INNER4)), OF4),
    "erspan III": (gre(0x1000, 0x22EB, bytes(11) + b"\1" + bytes(8) + ethernet(IP4, INNER4)), OF4),
    "gre in udp": (ipv4(17, udp(9, 4754, bytes.fromhex("00000800") + INNER4)), OF4),
    "vxlan": (vxlan(ethernet(IP6, INNER6)), OF6),
    "vxlan of arp": (vxlan(ethernet(0x0806, bytes(28))), set()),
    "vxlan-gpe with nsh": (
        vxlan(bytes.fromhex("00020101") + bytes(4) + INNER4, 4790, b"\x0c\0\0\4" + bytes(4)), OF4,
    ),
    "vxlan-gpe of ethernet": (vxlan(ethernet(IP4, INNER4), 4790), OF4),
    "the same flag on vxlan's port means nothing": (
        vxlan(ethernet(IP4, INNER4), 4789, b"\x0c\0\0\1" + bytes(4)), OF4,
    ),
    "vxlan from its port": (
        ipv4(17, udp(4789, 50_000, bytes(8) + ethernet(IP4, INNER4))), OF4,
    ),
    "a question from vxlan's port": (
        ipv4(17, udp(4789, 53, bytes(8) + ethernet(IP4, INNER4))), set(),
    ),
    "vxlan three deep": (
        vxlan(ethernet(IP4, vxlan(ethernet(IP4, vxlan(ethernet(IP4, INNER4)))))), OF4,
    ),
    "geneve with options": (geneve(TEB, 63, ethernet(IP4, INNER4)), OF4),
    "geneve of ip": (geneve(IP6, 0, INNER6), OF6),
    "gtp": (gtp(0x30, b"", INNER4), OF4),
    "gtp with an extension header": (gtp(0x34, b"\0\0\0\x85" + b"\1\0\0\0", INNER6), OF6),
    "teredo with authentication and origin": (
        ipv4(17, udp(3544, 1024, b"\0\1\0\0" + bytes(17) + INNER6)), OF6,
    ),
    "teredo between clients": (ipv4(17, udp(3797, 32900, bytes(8) + INNER6)), OF6),
    "ipv6 that does not fill its datagram": (ipv4(17, udp(3797, 32900, INNER6 + b"x")), set()),
    "no ipv6 on teredo's port": (ipv4(17, udp(9, 3544, INNER4)), set()),
    "ayiya": (ipv4(17, udp(9, 5072, b"\x44\x52\x11\x29" + bytes(4 + 16 + 20) + INNER6)), OF6),
    "mpls in udp": (ipv4(17, udp(9, 6635, b"\0\0\1\0" + INNER4)), OF4),
    "pim register": (ipv4(103, b"\x21" + bytes(7) + INNER4), OF4),
    "pim hello": (ipv4(103, b"\x20" + bytes(7) + INNER4), set()),
    "an icmp error's quote is no tunnel": (ipv4(1, icmp(3, 3) + INNER4), set()),
    "a later fragment is not looked into": (ipv4(4, INNER4, fragment=9), set()),
}  # fmt: skip


def test_tunnels_show_the_flow_inside(tmp_path: Path) -> None:
    for name, (packet, inside) in TUNNELS.items():
        answer = replay(tmp_path, pcap([packet], 101))
        assert tuples(answer["inner"]) == inside, name
        assert [row["ip_bytes"] for row in answer["outer"]] == [len(packet)], name
        assert not any(answer["malformed"].values()), name


def test_decode_as_names_tunnels_on_ports_of_their_own(tmp_path: Path) -> None:
    file = pcap(
        [
            ethernet(IP4, vxlan(ethernet(IP4, INNER4), 8472)),
            ethernet(IP4, ipv4(17, udp(7000, 9, bytes.fromhex("0000080000000000") + INNER4))),
            ethernet(IP4, ipv4(17, udp(9, 7001, bytes.fromhex("00000800") + INNER4))),
            ethernet(IP4, ipv4(17, udp(9, 7002, bytes.fromhex("30ff000000000000") + INNER6))),
            ethernet(IP4, ipv4(17, udp(9, 7003, INNER6 + b"x"))),
        ]
    )
    named = (
        "udp.port==8472,vxlan", "udp.port == 7000, geneve", "udp.port==7001,gre",
        "udp.port==7002,gtp", "udp.port==7003,teredo",
    )  # fmt: skip
    options = [word for text in named for word in ("--decode-as", text)]
    assert replay(tmp_path, file)["inner"] == []
    inner = {row[:-2]: row[-2] for row in tuples(replay(tmp_path, file, *options)["inner"])}
    assert inner == {(17, A4, 1, 2): 3, (6, A6, 3, 4): 2}


@pytest.mark.parametrize(
    "text", ["tcp.port==1,vxlan", "udp.port==0,vxlan", "udp.port==70000,vxlan", "udp.port==1,tcp"]
)
def test_a_wrong_decode_as_says_what_to_write(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"write udp\.port==N"):
        replay(tmp_path, pcap([]), "--decode-as", text)


def test_frames_that_were_cut_count_as_long_as_they_were(tmp_path: Path) -> None:
    whole = [
        ethernet(IP4, ipv4(6, tcp(1, 2, 2, bytes(5000)))),  # more than the kernel would take
        ethernet(IP6, ipv6(17, udp(3, 4, bytes(60)))),
        ethernet(IP4, ipv4(6, tcp(5, 6, 2, bytes(60)))),
    ]
    cut = [whole[0], whole[1][:62], whole[2][:40]]
    answer = replay(tmp_path, pcap(cut, lengths=[len(frame) for frame in whole]))
    assert tuples(answer["outer"]) == {(6, A4, 1, 2, 1, 5040), (17, A6, 3, 4, 1, 108)}
    assert (answer["frames"], answer["truncated_frames"]) == (3, 2)
    assert answer["frame_bytes"] == sum(map(len, whole))
    assert answer["malformed"]["truncated"] == 1  # the third ends inside of its TCP header
    silent = replay(tmp_path, pcap([whole[1][:62]]))
    assert tuples(silent["outer"]) == {(17, A6, 3, 4, 1, 108)}
    assert silent["malformed"]["overlong"] == 1


def test_a_frame_of_any_length_that_a_damaged_file_tells_is_counted(tmp_path: Path) -> None:
    answer = replay(tmp_path, pcap([INNER4], 101, lengths=[2**32 - 1]))
    assert tuples(answer["outer"]) == OF4
    assert answer["frame_bytes"] == 2**32 - 1


def test_a_later_fragment_may_come_before_its_first(tmp_path: Path) -> None:
    first = ipv4(17, udp(1, 2, bytes(8)), fragment=0x2000, identification=7)
    later = ipv4(17, bytes(24), fragment=2, identification=7)
    stranger = ipv4(17, bytes(24), fragment=2, identification=8)
    answer = replay(tmp_path, pcap([later, stranger, first, later], 228))
    assert tuples(answer["outer"]) == {(17, A4, 1, 2, 3, 36 + 2 * 44), (17, A4, None, None, 1, 44)}
    assert (answer["frames"], answer["unplaced_fragments"]) == (4, 1)


def test_what_looks_alike_stays_apart(tmp_path: Path) -> None:
    """Port 0 and a port that is not known; an IPv6 packet from what looks like IPv4's address."""
    mapped = bytearray(ipv6(17, udp(1, 2)))
    mapped[8:40] = packed(A4) + packed(B4)
    packets = [
        ipv4(17, udp(0, 0)), ipv4(17, bytes(24), fragment=2), bytes(mapped), ipv4(17, udp(1, 2)),
        ipv4(136, udp(0, 0)), ipv4(33, udp(0, 9, bytes(4))),
    ]  # fmt: skip
    assert tuples(replay(tmp_path, pcap(packets, 101))["outer"]) == {
        (17, A4, 0, 0, 1, 28), (17, A4, None, None, 1, 44), (17, f"::ffff:{A4}", 1, 2, 1, 48),
        (17, A4, 1, 2, 1, 28), (136, A4, 0, 0, 1, 28), (33, A4, 0, 9, 1, 32),
    }  # fmt: skip


def test_a_later_fragment_is_of_no_datagram_that_is_long_gone(tmp_path: Path) -> None:
    first = ipv4(17, udp(1, 2, bytes(8)), fragment=0x2000, identification=7)
    later = ipv4(17, bytes(24), fragment=2, identification=7)
    half_a_minute = [ipv4(17, udp(3, 4))] * 29
    placed = replay(tmp_path, pcap([first, *half_a_minute, later], 228))
    assert placed["unplaced_fragments"] == 0
    stranger = replay(tmp_path, pcap([first, *half_a_minute, ipv4(17, udp(3, 4)), later], 228))
    assert stranger["unplaced_fragments"] == 1
    assert (17, A4, 1, 2, 1, 36) in tuples(stranger["outer"])


def test_what_a_tunnel_carries_can_be_malformed_too(tmp_path: Path) -> None:
    answer = replay(tmp_path, pcap([ipv4(4, INNER4[:10]), ipv4(41, INNER4 + bytes(20))], 101))
    assert len(answer["outer"]) == 2
    assert answer["inner"] == []
    reasons = {name: count for name, count in answer["malformed"].items() if count}
    assert reasons == {"inner_truncated": 1, "inner_bad_header": 1}


def test_every_frame_of_noise_is_in_a_flow_or_counted_with_its_reason(tmp_path: Path) -> None:
    noise = random.Random(4)
    seeds = [ethernet(IP4, packet) for packet, _ in TUNNELS.values()]
    frames = [noise.randbytes(noise.randrange(120)) for _ in range(500)]
    for _ in range(10_000):
        frame = bytearray(noise.choice(seeds))
        for _ in range(noise.randrange(1, 6)):
            frame[noise.randrange(12, len(frame))] = noise.randrange(256)
        frames.append(bytes(frame[: noise.randrange(len(frame)) + 1]))
    answer = replay(tmp_path, pcap(frames))
    refused = ("truncated", "bad_header", "bad_length")
    assert all(answer["malformed"][reason] for reason in refused)
    counted = answer["non_ip"] + sum(answer["malformed"][reason] for reason in refused)
    assert counted + sum(row["packets"] for row in answer["outer"]) == len(frames)


def test_link_headers_and_link_types_lead_to_ip(tmp_path: Path) -> None:
    pbb = ethernet(0x88E7, bytes(4) + ethernet(IP4, INNER4))
    fabricpath = ethernet(0x8903, bytes(2) + ethernet(IP4, INNER4))
    assert tuples(replay(tmp_path, pcap([pbb, fabricpath]))["outer"]) == {(17, A4, 1, 2, 2, 62)}
    for network, frame in {12: INNER4, 14: INNER4, 104: b"\x0f\0\x08\0" + INNER4}.items():
        assert tuples(replay(tmp_path, pcap([frame], network))["outer"]) == OF4, network
    answer = replay(tmp_path, pcap([INNER4, INNER6], 228))  # by the version that stands there
    assert tuples(answer["outer"]) == OF4 | OF6


def test_an_unknown_link_type_is_told_and_not_guessed_at(tmp_path: Path) -> None:
    answer = replay(tmp_path, pcap([ethernet(IP4, INNER4)], 105))
    assert (answer["frames"], answer["unknown_link_types"]) == (1, {"105": 1})
    assert answer["outer"] == []


def test_a_file_that_breaks_off_is_an_error_after_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap([ethernet(IP4, INNER4)] * 2)[:-1])
    result = CliRunner().invoke(app, ["replay", str(path), "-o", "json"])
    assert json.loads(result.stdout)["frames"] == 1
    assert isinstance(result.exception, CaptureFileError)
    assert "at offset 101 should have 45 bytes, 44 left" in str(result.exception)


NO_TCP = {"syn": 0, "fin": 0, "rst": 0, "retransmitted": 0}


def test_flows_have_two_ways_and_a_consumer(tmp_path: Path) -> None:
    def back(packet: bytes) -> bytes:
        return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]

    file = pcap(
        [
            ethernet(IP4, ipv4(6, tcp(40_000, 80, 0x02))),
            ethernet(IP4, back(ipv4(6, tcp(80, 40_000, 0x12)))),
            ethernet(IP4, ipv4(6, tcp(40_000, 80, 0x10, bytes(100)))),
            ethernet(IP4, ipv4(1, icmp(8, 0))),
            ethernet(IP4, back(ipv4(1, icmp(0, 0)))),
        ]
    )
    flows = replay(tmp_path, file, "--flows")["outer"]
    assert flows == [
        {
            "proto": 1, "consumer": A4, "provider": B4, "port": None, "icmp_type_code": "8/0",
            "forward": {"packets": 1, "bytes": 28, "flags": "", **NO_TCP},
            "reverse": {"packets": 1, "bytes": 28, "flags": "", **NO_TCP},
            "opened": 1, "answered": 1, "refused": 0, "method": "service",
            "rtt_samples": 0, "rtt_sum_ns": 0, "rtt_min_ns": 0,
            "first_ns": 4 * 10**9, "last_ns": 5 * 10**9,
        },
        {
            "proto": 6, "consumer": A4, "provider": B4, "port": 80,
            "forward": {"packets": 2, "bytes": 180, "flags": "SA", **NO_TCP, "syn": 1},
            "reverse": {"packets": 1, "bytes": 40, "flags": "SA", **NO_TCP, "syn": 1},
            "opened": 1, "answered": 1, "refused": 0, "method": "syn",
            "rtt_samples": 1, "rtt_sum_ns": 10**9, "rtt_min_ns": 10**9,
            "first_ns": 1 * 10**9, "last_ns": 3 * 10**9,
        },
    ]  # fmt: skip


def test_what_tcp_showed_is_remembered_through_a_long_file(tmp_path: Path) -> None:
    syn, synack = ipv4(6, tcp(3, 80, 0x02)), bytearray(ipv4(6, tcp(80, 3, 0x12)))
    synack[12:20] = synack[16:20] + synack[12:16]
    between = [ipv4(17, udp(1, 2))] * 16_384
    file = pcap([syn, *between, syn, bytes(synack)], 101)
    (flow,) = (row for row in replay(tmp_path, file, "--flows")["outer"] if row["proto"] == 6)
    told = flow["opened"], flow["forward"]["retransmitted"], flow["rtt_samples"]
    assert told == (1, 1, 0)  # Karn: the answer may be to either


def test_the_table_names_what_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap([ethernet(0x0806, bytes(28)), ethernet(IP6, INNER6), b"short"]))
    lines = CliRunner().invoke(app, ["replay", str(path)]).stdout.splitlines()
    assert lines[0] == "frames 3 (121 B)  not IP 1  truncated 1"
    assert lines[1].split() == [
        "LAYER", "PROTOCOL", "SOURCE", "PORT", "DESTINATION", "PORT", "PACKETS", "BYTES", "FLAGS",
    ]  # fmt: skip
    assert lines[2].split() == ["outer", "TCP", A6, "3", B6, "4", "1", "60", "SA"]


@pytest.mark.parametrize("content", [b"", b"no capture at all"])
def test_of_what_is_no_capture_file_that_alone_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "capture"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["replay", str(path), "-o", "json"])
    assert isinstance(result.exception, CaptureFileError)
    assert ("frames" in str(result.exception), result.stdout) == (False, "")
