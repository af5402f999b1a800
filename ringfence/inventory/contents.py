"""What address sets hold, and held: what a set's name in a policy means at a time.

A flow is judged by what its sets held then. Of each set the last contents are kept; whoever asks
for a time before the first of them gets that one, so that a set that is new can be tried on flows
that are old.
"""

import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

from ringfence.model.address_set import AddressSet, Written
from ringfence.model.ids import AddressSetName
from ringfence.model.ranges import AddressRange, of_families

MOST_KEPT = 64
"""Contents of one set, the last ones; an hourly list that changes each time fills them in days."""
_WIDTH = 16

Sets = Mapping[AddressSetName, tuple[AddressRange, ...]]
"""What each set holds at one time, disjoint and sorted; a new one may hold nothing yet."""


def sets_with(now: Sets, given: Iterable[AddressSet]) -> Sets:
    """What sets hold, with those that are given in their place.

    What does not stand in a document is what the set holds now.
    """
    return {**now, **{one.name: _said(one, now) for one in given}}


def _said(one: AddressSet, now: Sets) -> tuple[AddressRange, ...]:
    if isinstance(one.source, Written):
        return of_families(one.source.ranges)
    return now.get(one.name, ())


@dataclass(frozen=True, slots=True)
class Content:
    """What a set holds from a time on, epoch ns; `packed` as `pack` makes it."""

    name: AddressSetName
    from_ns: int
    packed: bytes

    @property
    def count(self) -> int:
        """How many ranges it is."""
        return len(zlib.decompress(self.packed)) // (2 * _WIDTH)


def pack(ranges: Collection[AddressRange]) -> bytes:
    """Ranges in little room; equal ranges are equal bytes."""
    return zlib.compress(b"".join(end.to_bytes(_WIDTH) for span in ranges for end in span))


@lru_cache(maxsize=64)
def unpack(packed: bytes) -> tuple[AddressRange, ...]:
    """The ranges again."""
    plain = zlib.decompress(packed)
    ends = [int.from_bytes(plain[at : at + _WIDTH]) for at in range(0, len(plain), _WIDTH)]
    return tuple(zip(ends[::2], ends[1::2], strict=True))


class Contents:
    """The last contents of each set. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[AddressSetName, list[Content]] = {}

    def begin(self, name: AddressSetName) -> None:
        """There is a set of that name, perhaps with nothing in it yet."""
        self._kept.setdefault(name, [])

    def hold(self, content: Content) -> None:
        """A set holds this from now on; what is over is forgotten."""
        kept = self._kept.setdefault(content.name, [])
        self._kept[content.name] = [*kept, content][-MOST_KEPT:]

    def over(self, name: AddressSetName) -> list[Content]:
        """The contents that the next one takes the place of."""
        return self._kept.get(name, [])[: 1 - MOST_KEPT]

    def latest(self, name: AddressSetName) -> Content | None:
        """What a set holds now."""
        return next(reversed(self._kept.get(name, ())), None)

    def forget(self, name: AddressSetName) -> None:
        """There is no such set any more."""
        self._kept.pop(name, None)

    def as_of(self, at_ns: int) -> Sets:
        """What each set that there is now held at a time."""
        return {name: _at(kept, at_ns) for name, kept in self._kept.items()}

    def instants(self, names: Collection[AddressSetName]) -> Iterator[int]:
        """When one of the sets began to hold something else, epoch ns."""
        for name in names:
            yield from (content.from_ns for content in self._kept.get(name, ()))


def _at(kept: list[Content], at_ns: int) -> tuple[AddressRange, ...]:
    if not kept:
        return ()
    place = bisect_right(kept, at_ns, key=attrgetter("from_ns")) - 1
    return unpack(kept[max(place, 0)].packed)
