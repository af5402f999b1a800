"""Reading capture files: pcap and pcapng, whole in memory or mapped, and whatever is in them.

A file is input from strangers. Nothing in it is trusted: each length is held against what is
left of the file, and what does not fit is an error that names the offset.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.model.errors import RingfenceError

Bytes = bytes | memoryview

_PCAP = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # magic: nanoseconds in a unit of the times
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D
_END_OF_OPTIONS, _TIME_RESOLUTION, _TIME_OFFSET = 0, 9, 14
_LATEST_NS = 2**63 - 1


class CaptureFileError(RingfenceError):
    """The bytes are not a capture file, or stop being one at the offset that is named."""


class Frame(NamedTuple):
    """One frame of a capture."""

    link_type: int
    """LINKTYPE_ number of the interface."""
    time_ns: int
    data: Bytes
    """What was captured of it."""
    length: int
    """Bytes on the wire, at least `len(data)`."""


def read_frames(file: Bytes) -> Iterator[Frame]:
    """The frames of a capture file, in its order. Raises CaptureFileError on the way."""
    magic = _unpack("<I", file, 0, "the file")[0]
    for order in "<>":
        if magic == _SECTION or struct.unpack(order + "I", bytes(file[:4]))[0] in _PCAP:
            return _read_pcapng(file) if magic == _SECTION else _read_pcap(file, order)
    raise CaptureFileError(f"neither a pcap nor a pcapng file: it starts with {magic:#010x}")


def _unpack(form: str, file: Bytes, offset: int, what: str) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, file, offset)
    except struct.error as error:
        raise CaptureFileError(f"{what} at offset {offset} is cut short") from error


def _slice(file: Bytes, offset: int, size: int, what: str) -> Bytes:
    if offset + size > len(file):
        left = len(file) - offset
        raise CaptureFileError(f"{what} at offset {offset} should have {size} bytes, {left} left")
    return file[offset : offset + size]


def _frame(link_type: int, time_ns: int, data: Bytes, length: int) -> Frame:
    return Frame(link_type, min(max(time_ns, 0), _LATEST_NS), data, max(length, len(data)))


def _read_pcap(file: Bytes, order: str) -> Iterator[Frame]:
    magic, *_, network = _unpack(order + "IHHiIII", file, 0, "the file header")
    offset = 24
    while offset < len(file):
        seconds, fraction, captured, length = _unpack(
            order + "IIII", file, offset, "a frame's header"
        )
        data = _slice(file, offset + 16, captured, "a frame")
        time_ns = seconds * 10**9 + fraction * _PCAP[magic]
        yield _frame(network & 0xFFFF, time_ns, data, length)  # above: whether there is an FCS
        offset += 16 + captured


@dataclass(frozen=True)
class _Interface:
    link_type: int
    snapshot: int
    """Bytes kept of a frame; 0 for all."""
    units: int
    """Time units in a second."""
    start: int
    """Seconds to add to each time."""

    def time_ns(self, high: int, low: int) -> int:
        return (high << 32 | low) * 10**9 // self.units + self.start * 10**9


def _read_pcapng(file: Bytes) -> Iterator[Frame]:
    offset, order, interfaces = 0, "<", list[_Interface]()
    while offset < len(file):
        if _unpack("<I", file, offset, "a block")[0] == _SECTION:
            order, interfaces = _byte_order(file, offset), []
        kind, size = _unpack(order + "II", file, offset, "a block")
        if size < 12 or size % 4:  # noqa: PLR2004 - its own type and length, twice
            raise CaptureFileError(f"a block at offset {offset} says it has {size} bytes")
        block = _slice(file, offset, size, "a block")
        body = block[8:-4]
        try:
            if kind == _INTERFACE:
                interfaces.append(_interface(order, body))
            elif kind in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                yield _packet(order, kind, body, interfaces)
        except (CaptureFileError, IndexError) as error:
            wrong = "no such interface" if isinstance(error, IndexError) else error
            raise CaptureFileError(f"in the block at offset {offset}: {wrong}") from error
        offset += size


def _byte_order(file: Bytes, offset: int) -> str:
    for order in "<>":
        if _unpack(order + "I", file, offset + 8, "a section's header")[0] == _BYTE_ORDER:
            return order
    raise CaptureFileError(f"the section at offset {offset} has no byte order mark")


def _interface(order: str, body: Bytes) -> _Interface:
    link_type, _, snapshot = _unpack(order + "HHI", body, 0, "an interface")
    units, start, offset = 10**6, 0, 8
    while offset < len(body):
        code, size = _unpack(order + "HH", body, offset, "an option")
        value = _slice(body, offset + 4, size, "an option")
        if code == _END_OF_OPTIONS:
            break
        if code == _TIME_RESOLUTION and size == 1:
            units = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        elif code == _TIME_OFFSET:
            (start,) = _unpack(order + "q", value, 0, "a time offset")
        offset += 4 + size + -size % 4
    return _Interface(link_type, snapshot, units, start)


def _packet(order: str, kind: int, body: Bytes, interfaces: list[_Interface]) -> Frame:
    what = "a packet"
    if kind == _SIMPLE_PACKET:
        interface = interfaces[0]
        (length,) = _unpack(order + "I", body, 0, what)
        captured = min(length, interface.snapshot or length)
        return _frame(interface.link_type, 0, _slice(body, 4, captured, what), length)
    form = "IIIII" if kind == _PACKET else "HxxIIII"
    number, high, low, captured, length = _unpack(order + form, body, 0, what)
    interface = interfaces[number]
    data = _slice(body, 20, captured, what)
    return _frame(interface.link_type, interface.time_ns(high, low), data, length)
