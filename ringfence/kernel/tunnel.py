"""Which UDP ports carry tunnels, besides the registered ones that the flow program knows."""

import struct
from collections.abc import Collection
from enum import IntEnum
from typing import NamedTuple

MAX_DECODE_AS = 8


class Tunnel(IntEnum):
    """What a UDP port can be decoded as: enum tunnel in bpf/tunnel.h."""

    VXLAN = 1
    GENEVE = 2
    GRE = 3
    GTP = 4
    TEREDO = 5
    VXLAN_GPE = 6


class DecodeAs(NamedTuple):
    """Packets to or from this UDP port are this tunnel's."""

    port: int
    tunnel: Tunnel


def encode(ports: Collection[DecodeAs]) -> bytes:
    """The array `decode_as` of bpf/tunnel.h; the first MAX_DECODE_AS are heeded."""
    numbers = [number for pair in list(ports)[:MAX_DECODE_AS] for number in pair]
    return struct.pack(f"={len(numbers)}H", *numbers).ljust(4 * MAX_DECODE_AS, b"\0")
