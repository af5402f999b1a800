"""Stretches of addresses: unions and differences of blocks, on integers of 128 bits."""

from collections.abc import Iterable, Iterator

from ringfence.model.address import Network, int_address, parse_network

AddressRange = tuple[int, int]
"""First and last address of 128 bits, both included."""


def range_of(network: Network) -> AddressRange:
    """The addresses of a block."""
    return network.first, network.last


_V4 = range_of(parse_network("0.0.0.0/0"))


def block_of(span: AddressRange) -> Network | None:
    """The CIDR block that a range is, None where it is none."""
    first, last = span
    bits = (first ^ last).bit_length()
    if first & ((1 << bits) - 1) or last != first | ((1 << bits) - 1):
        return None
    return Network(int_address(first), 128 - bits)


def blocks(span: AddressRange) -> Iterator[Network]:
    """The fewest CIDR blocks that are the range, sorted."""
    first, last = span
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else 128
        bits = min(aligned, (last - first + 1).bit_length() - 1)
        yield Network(int_address(first), 128 - bits)
        first += 1 << bits


def spans(networks: Iterable[Network]) -> tuple[AddressRange, ...]:
    """The addresses in any of the blocks, disjoint and sorted.

    An IPv6 block never holds an IPv4 address: `::/0` is every IPv6 address and no other.
    """
    return of_families(map(range_of, networks))


def of_families(ranges: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
    """The addresses in any of the ranges, as `spans` has those of blocks."""
    parted: list[AddressRange] = []
    for one in ranges:
        is_v4 = _V4[0] <= one[0] and one[1] <= _V4[1]
        parted += (one,) if is_v4 else subtract((one,), (_V4,))
    return union(parted)


def union(ranges: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
    """The addresses in any of the ranges, disjoint and sorted."""
    merged: list[AddressRange] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def subtract(
    ranges: tuple[AddressRange, ...], holes: tuple[AddressRange, ...]
) -> tuple[AddressRange, ...]:
    """The ranges without the holes, disjoint and sorted as `ranges` are."""
    holes, left, spot = union(holes), list[AddressRange](), 0
    for start, last in ranges:
        first = start
        while spot < len(holes) and holes[spot][1] < first:
            spot += 1
        at = spot
        while at < len(holes) and holes[at][0] <= last:
            if first < holes[at][0]:
                left.append((first, holes[at][0] - 1))
            first = holes[at][1] + 1
            at += 1
        if first <= last:
            left.append((first, last))
    return tuple(left)
