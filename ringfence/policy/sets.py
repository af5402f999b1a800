"""Sets of addresses, named by what they stand for.

A name outlives its elements: when a pod comes or goes, the rules that refer to the set stay as
they are and only its elements change.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from pyroaring import BitMap

from ringfence.inventory.living import Alteration
from ringfence.inventory.snapshot import View
from ringfence.model.address import Address, Network, host_network, is_v4, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ranges import AddressRange, blocks, spans, subtract
from ringfence.policy.program import SetId

_DIGEST = 16
_MAPPED = parse_network("0.0.0.0/0")
_V4 = ((_MAPPED.first, _MAPPED.last),)
_NOT_V4 = ((0, _MAPPED.first - 1), (_MAPPED.last + 1, 2**128 - 1))
EVERYWHERE: tuple[AddressRange, ...] = ((0, 2**128 - 1),)


class AddressSets:
    """The sets that the rules of one inventory refer to."""

    def __init__(self, snapshot: View) -> None:
        self._snapshot = snapshot
        self._ranges: dict[SetId, tuple[AddressRange, ...]] = {}
        self._networks: dict[SetId, tuple[Network, ...]] = {}
        self._named: set[SetId] = set()
        """Since the inventory changed last; only among these equal meanings have equal ranges."""
        self.altered: set[SetId] = set()
        """Those that were named anew with other ranges since the inventory changed last."""
        self._held = sorted(
            (int.from_bytes(address), at)
            for at in snapshot.subjects
            for address in snapshot.items[at].addresses
        )

    def follow(self, alterations: Iterable[Alteration]) -> None:
        """The inventory has changed so: sets are named anew where they may have changed."""
        self._named.clear()
        self.altered.clear()
        for one in alterations:
            for item in filter(None, (one.before,)):
                self._let_go(one.at, item.addresses)
            if one.after and one.at in self._snapshot.subjects:
                for address in one.after.addresses:
                    insort(self._held, (int.from_bytes(address), one.at))

    def _let_go(self, at: int, addresses: Iterable[Address]) -> None:
        for address in addresses:
            held = int.from_bytes(address), at
            spot = bisect_left(self._held, held)
            if self._held[spot : spot + 1] == [held]:
                del self._held[spot]

    def __len__(self) -> int:
        """How many sets there are, among them such as nothing refers to any more."""
        return len(self._ranges)

    def name(self, meaning: str, ranges: tuple[AddressRange, ...]) -> SetId:
        """The set that stands for `meaning`.

        Raises InputError where equal meanings come with other ranges.
        """
        name = SetId("s" + hashlib.sha256(meaning.encode()).hexdigest()[:_DIGEST])
        known = self._ranges.get(name)
        if known != ranges:
            if name in self._named:
                raise InputError(f"two sets of addresses for {meaning}")
            if known is not None:
                self.altered.add(name)
                self._networks.pop(name, None)
            self._ranges[name] = ranges
        self._named.add(name)
        return name

    def ranges(self, name: SetId) -> tuple[AddressRange, ...]:
        """The elements of a set, disjoint and sorted."""
        return self._ranges[name]

    def both(self, one: SetId, other: SetId) -> SetId:
        """The set of what is in both sets."""
        ranges = self._ranges[one]
        common = subtract(ranges, subtract(ranges, self._ranges[other]))
        return self.name(f"both {one} and {other}", common)

    def networks(self, name: SetId) -> tuple[Network, ...]:
        """The elements of a set as blocks, disjoint within each family.

        ::/0 stands for all IPv6 addresses, as it does on the wire, though its 16 bytes hold
        the mapped IPv4 ones.
        """
        if name not in self._networks:  # each node that has it asks
            self._networks[name] = _networks(self._ranges[name])
        return self._networks[name]

    def of_items(self, positions: Iterable[int]) -> tuple[AddressRange, ...]:
        """All addresses of the items at the positions."""
        items = self._snapshot.items
        return of_addresses(address for at in positions for address in items[at].addresses)

    def holders(self, ranges: tuple[AddressRange, ...]) -> BitMap:
        """The positions of the workloads that hold an address in the ranges."""
        found = BitMap()
        for first, last in ranges:
            begin = bisect_left(self._held, (first, -1))
            end = bisect_left(self._held, (last + 1, -1))
            found.update(at for _, at in self._held[begin:end])
        return found


def of_addresses(addresses: Iterable[Address]) -> tuple[AddressRange, ...]:
    """The addresses as ranges, disjoint and sorted."""
    return spans(map(host_network, addresses))


def family_of(address: Address) -> tuple[AddressRange, ...]:
    """All addresses of its family."""
    return _V4 if is_v4(address) else _NOT_V4


def within(address: Address, ranges: tuple[AddressRange, ...]) -> bool:
    """Whether one of the ranges, disjoint and sorted, holds the address."""
    number = int.from_bytes(address)
    spot = bisect_right(ranges, (number, 2**128)) - 1
    return spot >= 0 and number <= ranges[spot][1]


def _networks(ranges: tuple[AddressRange, ...]) -> tuple[Network, ...]:
    v4, v6 = subtract(ranges, _NOT_V4), subtract(ranges, _V4)
    if v6 == _NOT_V4:
        v6 = EVERYWHERE
    return tuple(block for span in (*v4, *v6) for block in blocks(span))
