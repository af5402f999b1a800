"""Frames made by hand, for what no socket sends. Checksums stay zero: nobody checks them."""

import ipaddress
import struct

A4, B4 = "10.1.1.1", "10.1.1.2"
A6, B6 = "fd01::1", "fd01::2"


def packed(address: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d: as flow records have it."""
    parsed = ipaddress.ip_address(address)
    return b"\0" * 10 + b"\xff\xff" + parsed.packed if parsed.version == 4 else parsed.packed


def ethernet(protocol: int, payload: bytes, vlans: tuple[int, ...] = ()) -> bytes:
    tags = b"".join(
        struct.pack("!HH", 0x88A8 if i < len(vlans) - 1 else 0x8100, vlan)
        for i, vlan in enumerate(vlans)
    )
    return bytes(12) + tags + struct.pack("!H", protocol) + payload


def ipv4(
    protocol: int,
    payload: bytes,
    options: bytes = b"",
    fragment: int = 0,
    identification: int = 1,
) -> bytes:
    """`fragment`: the flags and the offset, as they stand in the header."""
    ihl = 5 + len(options) // 4
    return (
        struct.pack(
            "!BBHHHBBH",
            0x40 | ihl,
            0,
            ihl * 4 + len(payload),
            identification,
            fragment,
            64,
            protocol,
            0,
        )
        + ipaddress.ip_address(A4).packed
        + ipaddress.ip_address(B4).packed
        + options
        + payload
    )


def ipv6(protocol: int, payload: bytes, extensions: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """`extensions`: (its number, its bytes after the first, which names the next header)."""
    numbers = [number for number, _ in extensions] + [protocol]
    body = b"".join(
        bytes([following]) + rest
        for (_, rest), following in zip(extensions, numbers[1:], strict=True)
    )
    return (
        struct.pack("!IHBB", 6 << 28, len(body) + len(payload), numbers[0], 64)
        + ipaddress.ip_address(A6).packed
        + ipaddress.ip_address(B6).packed
        + body
        + payload
    )


def tcp(
    sport: int, dport: int, flags: int, payload: bytes = b"", options: bytes = b"", seq: int = 0
) -> bytes:
    offset = (5 + len(options) // 4) << 4
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, 0, offset, flags, 0, 0, 0)
    return header + options + payload


def udp(sport: int, dport: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def icmp(kind: int, code: int) -> bytes:
    return struct.pack("!BBHHH", kind, code, 0, 0, 0)
