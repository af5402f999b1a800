"""Capture files byte by byte: both formats, both byte orders, every time unit, and broken ones."""

import struct

import pytest

from ringfence.flows.linktype import as_ethernet, is_known
from ringfence.flows.pcap import CaptureFileError, Frame, read_frames

DATA = b"\x45" + bytes(range(30))


def pcap(
    order: str = "<", magic: int = 0xA1B2C3D4, network: int = 1, *, captured: int = 31
) -> bytes:
    header = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, network)
    return header + struct.pack(order + "IIII", 7, 9, captured, 99) + DATA


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, snapshot: int = 0, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, snapshot) + options)


def packet(order: str, number: int, time: int, captured: int = len(DATA)) -> bytes:
    fields = struct.pack(order + "IIIII", number, time >> 32, time & 0xFFFFFFFF, captured, 99)
    return block(order, 6, fields + DATA)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_a_pcap_file_is_read_in_either_byte_order(order: str, magic: int, unit: int) -> None:
    # The upper half of the link type's field tells of a frame check sequence.
    (frame,) = read_frames(pcap(order, magic, 0x14000071))
    assert frame == Frame(113, 7 * 10**9 + 9 * unit, DATA, 99)


def test_a_pcapng_file_keeps_link_type_and_time_of_each_interface() -> None:
    for order in "<>":
        nanoseconds = struct.pack(order + "HHB3x", 9, 1, 9)
        halves = struct.pack(order + "HHB3x", 9, 1, 0x81)
        offset = struct.pack(order + "HHq", 14, 8, 100)
        file = section(order) + interface(order, 1) + interface(order, 101, options=nanoseconds)
        file += interface(order, 113, options=halves + offset + struct.pack(order + "HH", 0, 0))
        file += block(order, 0x0BAD, b"unknown blocks are passed over")
        file += b"".join(packet(order, number, 2**32 + 3) for number in range(3))
        ticks = 2**32 + 3
        assert list(read_frames(file)) == [
            Frame(1, ticks * 1000, DATA, 99),
            Frame(101, ticks, DATA, 99),
            Frame(113, ticks * 10**9 // 2 + 100 * 10**9, DATA, 99),
        ]


def test_a_simple_packet_is_cut_at_the_snapshot_length() -> None:
    simple = block("<", 3, struct.pack("<I", 99) + DATA[:20])
    file = section("<") + interface("<", 1, snapshot=20) + simple
    assert list(read_frames(file)) == [Frame(1, 0, DATA[:20], 99)]


def test_a_new_section_starts_with_no_interface_and_its_own_byte_order() -> None:
    file = section("<") + interface("<", 1) + packet("<", 0, 5)
    file += section(">") + interface(">", 228) + packet(">", 0, 5)
    assert [frame.link_type for frame in read_frames(file)] == [1, 228]


BROKEN = {
    "empty": (b"", "offset 0"),
    "something else": (b"GIF89a..", "neither a pcap nor a pcapng"),
    "header cut short": (pcap()[:20], "offset 0"),
    "frame header cut short": (pcap()[:30], "offset 24"),
    "frame cut short": (pcap()[:-1], "offset 40 should have 31 bytes, 30 left"),
    "frame of 4 GiB": (pcap(captured=2**32 - 1), "offset 40 should have 4294967295 bytes"),
    "block of no length": (section("<") + bytes(12), "offset 28 says it has 0 bytes"),
    "block cut short": (section("<") + interface("<", 1)[:-1], "offset 28"),
    "no such interface": (section("<") + packet("<", 0, 5), "offset 28: no such interface"),
    "packet beyond its block": (
        section("<") + interface("<", 1) + packet("<", 0, 5, captured=500), "offset 48",
    ),
    "option beyond its block": (
        section("<") + interface("<", 1, options=struct.pack("<HH", 9, 900)), "offset 28",
    ),
    "no byte order": (block("<", 0x0A0D0D0A, bytes(16)), "byte order"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_names_the_place(name: str) -> None:
    file, message = BROKEN[name]
    with pytest.raises(CaptureFileError, match=message):
        list(read_frames(file))


def header(link_type: int, data: bytes) -> tuple[int, bytes, int]:
    """The Ethernet type, what follows it, and the length on the wire without the header."""
    framed, length = as_ethernet(Frame(link_type, 0, data, len(data) + 5), 2048)
    return int.from_bytes(framed[12:14], "big"), framed[14:], length - 14


LINK_HEADERS = [
    (0, struct.pack("<I", 2), 0x0800),
    (0, struct.pack(">I", 30), 0x86DD),
    (0, struct.pack("<I", 7), 0xFFFF),
    (108, struct.pack(">I", 24), 0x86DD),
    (9, b"\x00\x21", 0x0800),
    (50, b"\xff\x03\x00\x57", 0x86DD),
    (50, b"\xff\x03\xc0\x21", 0xFFFF),
    (113, bytes(14) + b"\x08\x06", 0x0806),
    (276, b"\x86\xdd" + bytes(18), 0x86DD),
    (10, bytes(13), 0),
    (101, b"", 0x0800),
    (228, b"", 0x0800),
    (229, b"", 0x86DD),
]


@pytest.mark.parametrize(("link_type", "head", "kind"), LINK_HEADERS)
def test_each_link_header_becomes_an_ethernet_header(
    link_type: int, head: bytes, kind: int
) -> None:
    assert is_known(link_type)
    assert header(link_type, head + DATA) == (kind, DATA, len(DATA) + 5)
    if head:
        assert as_ethernet(Frame(link_type, 0, head[:-1], 60), 2048) == (b"", 60)


def test_a_frame_is_cut_to_the_limit() -> None:
    assert as_ethernet(Frame(1, 0, bytes(90), 100), 64) == (bytes(64), 100)
    cut, length = as_ethernet(Frame(228, 0, bytes(90), 100), 64)
    assert (len(cut), length) == (64, 114)
    assert not is_known(105)
