"""Addresses and networks as 16 bytes, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2).

One width for both families keeps flows, sets and tables free of a case distinction.
"""

import ipaddress
from dataclasses import dataclass
from typing import NewType

from ringfence.model.errors import InputError

Address = NewType("Address", bytes)
"""16 bytes in network order."""

V4_MAPPED = bytes(10) + b"\xff\xff"
_V4_PREFIX = 96


def parse_address(text: str) -> Address:
    """Read an IPv4 or IPv6 address; raises InputError."""
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError as error:
        raise InputError(f"{text!r} is not an IP address") from error
    return Address(packed if len(packed) == 16 else V4_MAPPED + packed)  # noqa: PLR2004


def is_v4(address: Address) -> bool:
    """Whether the address is an IPv4 one."""
    return address.startswith(V4_MAPPED)


def format_address(address: Address) -> str:
    """The address as people write it (RFC 5952 for IPv6)."""
    if is_v4(address):
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def int_address(number: int) -> Address:
    """The address that an integer of 128 bits is."""
    return Address(number.to_bytes(16))


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A CIDR block: `address` with its host bits clear, `prefix` in 0..128 over the 16 bytes."""

    address: Address
    prefix: int

    def __str__(self) -> str:
        """The block as people write it, such as 10.0.0.0/8."""
        length = self.prefix - _V4_PREFIX if self.is_v4 else self.prefix
        return f"{format_address(self.address)}/{length}"

    @property
    def is_v4(self) -> bool:
        """Whether the block lies in IPv4."""
        return self.prefix >= _V4_PREFIX and is_v4(self.address)

    @property
    def first(self) -> int:
        """The lowest address as an integer."""
        return int.from_bytes(self.address)

    @property
    def last(self) -> int:
        """The highest address as an integer."""
        return self.first | ((1 << (128 - self.prefix)) - 1)

    def __contains__(self, address: Address) -> bool:
        """Whether the block holds the address, which is of its family: `::/0` holds no IPv4 one."""
        number = int.from_bytes(address)
        return self.first <= number <= self.last and self.is_v4 == is_v4(address)


def parse_network(text: str) -> Network:
    """Read a CIDR block or a single address; raises InputError on host bits or nonsense."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not a CIDR block: {error}{_meant(text)}") from error
    if isinstance(network, ipaddress.IPv4Network):
        packed, prefix = V4_MAPPED + network.network_address.packed, network.prefixlen + _V4_PREFIX
    else:
        packed, prefix = network.network_address.packed, network.prefixlen
    return Network(Address(packed), prefix)


def _meant(text: str) -> str:
    """What to write where only host bits are wrong."""
    try:
        return f"; write {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        return ""


def network_of(address: Address, prefix: int) -> Network:
    """The block of this length, in 0..128, that holds an address."""
    host_bits = 128 - prefix
    return Network(int_address(int.from_bytes(address) >> host_bits << host_bits), prefix)


def host_network(address: Address) -> Network:
    """The block that holds just this address."""
    return Network(address, 128)
