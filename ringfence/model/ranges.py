"""Stretches of addresses: unions and differences of blocks, on integers of 128 bits."""

from collections.abc import Iterable

from ringfence.model.address import Network, parse_network

AddressRange = tuple[int, int]
"""First and last address of 128 bits, both included."""

_V4 = parse_network("0.0.0.0/0")


def spans(networks: Iterable[Network]) -> tuple[AddressRange, ...]:
    """The addresses in any of the blocks, disjoint and sorted.

    An IPv6 block never holds an IPv4 address: `::/0` is every IPv6 address and no other.
    """
    spanned: list[AddressRange] = []
    for network in networks:
        block = ((network.first, network.last),)
        spanned += block if network.is_v4 else subtract(block, ((_V4.first, _V4.last),))
    return union(spanned)


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
