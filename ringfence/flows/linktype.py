"""Captured frames as Ethernet frames, which is what the flow program reads.

Numbers and layouts: the registry of link types that draft-ietf-opsawg-linktype describes.
"""

from collections.abc import Callable

from ringfence.flows.pcap import Bytes, Frame

_NULL, _ETHERNET, _PPP, _FDDI, _PPP_HDLC, _RAW, _CISCO_HDLC, _LOOP = 0, 1, 9, 10, 50, 101, 104, 108
_DLT_RAW = 12, 14  # what some systems wrote for raw IP
_LINUX_COOKED, _IPV4, _IPV6, _LINUX_COOKED_2 = 113, 228, 229, 276

_IP4, _IP6, _NONE = 0x0800, 0x86DD, 0xFFFF  # Ethernet types; the last is reserved
_LONGEST = 2**32 - 1  # that a capture file, and the flow program, can tell
_FAMILIES = {2: _IP4, 10: _IP6, 24: _IP6, 28: _IP6, 30: _IP6}
"""AF_INET, and AF_INET6 as the systems number it that write loopback captures."""
_PPP_PROTOCOLS = {0x0021: _IP4, 0x0057: _IP6}


def _raw(data: Bytes) -> tuple[int, int]:
    return {4: _IP4, 6: _IP6}.get(data[0] >> 4, _NONE), 0


def _null(data: Bytes) -> tuple[int, int]:
    family = bytes(data[:4])
    value = min(int.from_bytes(family, "little"), int.from_bytes(family, "big"))
    return _FAMILIES.get(value, _NONE), 4


def _ppp(data: Bytes) -> tuple[int, int]:
    start = 2 if bytes(data[:2]) == b"\xff\x03" else 0  # RFC 1662: may be left out
    return _PPP_PROTOCOLS.get(_be16(data, start), _NONE), start + 2


def _be16(data: Bytes, offset: int) -> int:
    return data[offset] << 8 | data[offset + 1]


# Link type: the Ethernet type of what a frame carries, and where that starts. A type below 1,501
# is the length of an LLC header and what follows it.
_HEADERS: dict[int, Callable[[Bytes], tuple[int, int]]] = {
    _NULL: _null,
    _LOOP: _null,
    _RAW: _raw,
    **dict.fromkeys((*_DLT_RAW, _IPV4), _raw),
    _IPV6: lambda _: (_IP6, 0),
    _CISCO_HDLC: lambda data: (_be16(data, 2), 4),
    _LINUX_COOKED: lambda data: (_be16(data, 14), 16),
    _LINUX_COOKED_2: lambda data: (_be16(data, 0), 20),
    _PPP: _ppp,
    _PPP_HDLC: _ppp,
    _FDDI: lambda _: (0, 13),
}


def is_known(link_type: int) -> bool:
    """Whether `as_ethernet` can read frames of this type."""
    return link_type == _ETHERNET or link_type in _HEADERS


def as_ethernet(frame: Frame, limit: int) -> tuple[bytes, int]:
    """What was captured of the frame under an Ethernet header, at most `limit` bytes.

    And how many bytes there were on the wire, at most 2^32 - 1: what a damaged file tells may be
    any number below. Of a frame that ends within its link header nothing is left.
    """
    if frame.link_type == _ETHERNET:
        return bytes(frame.data[:limit]), frame.length
    try:
        kind, start = _HEADERS[frame.link_type](frame.data)
    except IndexError:
        start = len(frame.data) + 1
    if start > len(frame.data):
        return b"", frame.length
    header = bytes(12) + kind.to_bytes(2, "big")
    length = min(14 + max(frame.length - start, 0), _LONGEST)
    return header + frame.data[start:][: limit - 14], length
