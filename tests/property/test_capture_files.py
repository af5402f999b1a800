"""No bytes make the reader of capture files do anything but read, or say where they are wrong."""

import struct
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from ringfence.flows.linktype import as_ethernet, is_known
from ringfence.flows.pcap import CaptureFileError, Frame, read_frames

LIMIT = 64
PCAP = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113)
SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
INTERFACE = struct.pack("<IIHHII", 1, 20, 0, 0, 0, 20)

fields = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([1, 2, 3, 6, 12, 16, 20, 32, 0x0A0D0D0A]).map(lambda n: struct.pack("<I", n)),
)
heads = st.sampled_from([b"", PCAP, SECTION, SECTION + INTERFACE, PCAP[:4]])


@given(heads, st.lists(fields, max_size=40).map(b"".join))
def test_any_file_is_read_or_refused(head: bytes, rest: bytes) -> None:
    file = head + rest
    frames = list[Frame]()
    with suppress(CaptureFileError):
        frames.extend(read_frames(file))
    assert sum(len(frame.data) for frame in frames) <= len(file)
    for frame in frames:
        assert 0 <= frame.time_ns < 2**63
        assert frame.length >= len(frame.data)
        if is_known(frame.link_type):
            data, length = as_ethernet(frame, LIMIT)
            assert len(data) <= min(LIMIT, length)
