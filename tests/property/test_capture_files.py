"""Capture files are read as they were written; damaged ones as far as they go, or not at all."""

import struct
from collections.abc import Callable
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.flows.linktype import as_ethernet, is_known
from ringfence.flows.pcap import CaptureFileError, Frame, read_frames

Given = list[tuple[int, bytes]]
"""Link types and what was captured."""

LIMIT = 64
SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, PACKET = 0x0A0D0D0A, 1, 2, 3, 6
UNKNOWN = 147  # LINKTYPE_USER0
LINK_TYPES = (0, 1, 9, 10, 50, 101, 108, 113, 228, 229, 276, UNKNOWN)

link_types = st.sampled_from(LINK_TYPES)
orders = st.sampled_from("<>")
frames = st.lists(st.tuples(link_types, st.binary(max_size=40)), max_size=8)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def pcap(order: str, given: Given) -> bytes:
    network = given[0][0] if given else 1
    file = struct.pack(order + "IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, network)
    for _, data in given:
        file += struct.pack(order + "IIII", 1, 2, len(data), len(data)) + data
    return file


def packet(order: str, kind: int, number: int, data: bytes) -> bytes:
    size = len(data)
    head = {
        OLD_PACKET: struct.pack(order + "HHIIII", number, 0, 0, 9, size, size),
        SIMPLE_PACKET: struct.pack(order + "I", size),
        PACKET: struct.pack(order + "IIIII", number, 0, 9, size, size),
    }[kind]
    return block(order, kind, head + data)


def pcapng(order: str, given: Given) -> bytes:
    """One interface for each link type; blocks of all kinds in turn."""
    file = block(order, SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link_type in LINK_TYPES:
        options = struct.pack(order + "HHB3xHHqI", 9, 1, 9, 14, 8, link_type, 0)
        file += block(order, INTERFACE, struct.pack(order + "HHI", link_type, 0, 0) + options)
    for at, (link_type, data) in enumerate(given):
        kinds = (PACKET, OLD_PACKET) + (SIMPLE_PACKET,) * (link_type == LINK_TYPES[0])
        file += packet(order, kinds[at % len(kinds)], LINK_TYPES.index(link_type), data)
    return file


@given(orders, frames)
def test_a_file_is_read_as_it_was_written(order: str, given: Given) -> None:
    assert [(each.link_type, each.data) for each in read_frames(pcapng(order, given))] == given
    assert [each.data for each in read_frames(pcap(order, given))] == [data for _, data in given]


formats = st.sampled_from([pcap, pcapng])
places = st.integers(0, 999)  # in a file, modulo its length
damages = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)


@given(formats, orders, frames, places)
def test_what_is_read_of_a_file_that_breaks_off_is_whole(
    write: Callable[[str, Given], bytes], order: str, given: Given, place: int
) -> None:
    file = write(order, given)
    found = list[Frame]()
    with suppress(CaptureFileError):
        found.extend(read_frames(file[: place % len(file)]))
    assert [each.data for each in found] == [data for _, data in given[: len(found)]]


@given(formats, orders, frames, damages)
def test_a_damaged_file_is_read_or_refused(
    write: Callable[[str, Given], bytes],
    order: str,
    given: Given,
    damages: list[tuple[int, int]],
) -> None:
    file = bytearray(write(order, given))
    for where, value in damages:
        file[where % len(file)] = value
    found = list[Frame]()
    with suppress(CaptureFileError):
        found.extend(read_frames(bytes(file)))
    assert sum(len(frame.data) for frame in found) <= len(file)
    for frame in found:
        assert 0 <= frame.time_ns < 2**63
        assert frame.length >= len(frame.data)
        if is_known(frame.link_type):
            data, length = as_ethernet(frame, LIMIT)
            assert len(data) <= min(LIMIT, length)


@given(link_types.filter(is_known), st.binary(max_size=40), st.integers(0, 2**32 - 1))
@example(101, b"\x45", 2**32 - 1)
def test_any_length_that_a_file_can_tell_can_be_passed_on(
    link_type: int, data: bytes, told: int
) -> None:
    frame = Frame(link_type, 0, data, max(told, len(data)))
    _, length = as_ethernet(frame, LIMIT)
    assert abs(length - frame.length) <= LIMIT
    struct.pack("=I", length)  # as the flow program takes it
