"""Which addresses DNS told for names, and for how long: what a name in a policy means at a time.

An address has a name from the answer on, for its TTL and LINGER_NS more; while it is in use under
that name, for IN_USE_NS after it was last seen. Answers can be hostile: there is a most of them for
each name and for each node that tells them, and what finds no room is refused, so that a flood of
names takes none away that hold. What is over makes room for what holds.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ringfence.model.address import Address
from ringfence.model.fqdn import fqdn_matches

LINGER_NS = 60 * 10**9
"""In which an answer travels to those who judge by it, and a connection is opened."""
IN_USE_NS = 600 * 10**9
"""An open connection is cut where its address has the name no more, so idle ones keep it."""
KEPT_NS = 24 * 3600 * 10**9
"""For how long after its end a name is known, to judge connections of then."""

Names = Mapping[str, frozenset[Address]]
"""By name, in lower case and without the last dot, the addresses that it has at one time."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """An address has a name in [from_ns, until_ns), epoch ns; `teller` is the node that said so."""

    name: str
    address: Address
    from_ns: int
    until_ns: int
    teller: str


@dataclass(slots=True)
class _Room:
    """The pairs of one name, or those that one node told: `most` of them at a time."""

    most: int
    pairs: dict[tuple[str, Address], Resolution] = field(default_factory=dict)
    full_until_ns: int = 0
    """The first end of all when none was over yet; room is only ever made by what is."""

    def is_full(self) -> bool:
        return len(self.pairs) >= self.most

    def over(self, at_ns: int) -> list[Resolution]:
        """The earlier half of what is over: the rest stays to judge connections of then."""
        if at_ns < self.full_until_ns:
            return []
        ends = sorted(self.pairs.values(), key=lambda one: one.until_ns)
        self.full_until_ns = ends[0].until_ns
        over = [one for one in ends if one.until_ns <= at_ns]
        return over[: (len(over) + 1) // 2]


class Resolutions:
    """The last life of each pair of name and address. Not thread-safe."""

    def __init__(self, most_of_name: int = 1_024, most_of_teller: int = 8_192) -> None:
        self._names = defaultdict[str, _Room](lambda: _Room(most_of_name))
        self._tellers = defaultdict[str, _Room](lambda: _Room(most_of_teller))
        self._displaced: dict[tuple[str, Address], Resolution] = {}
        """By what needed their room, since `forget` last told."""
        self.refused = 0
        """Pairs for which there was no room."""

    def learn(self, told: Resolution) -> Resolution | None:
        """Enter what was told; the life as it now is if that changes anything."""
        before = self._life(told.name, told.address)
        if before and told.from_ns <= before.until_ns:
            longer = replace(before, until_ns=max(before.until_ns, told.until_ns))
            return None if longer == before else self._keep(longer)
        if before:
            self._forget(before)
        if not self._make_room(told):
            self.refused += 1
            return None
        return self._keep(told)

    def _make_room(self, told: Resolution) -> bool:
        """Whether there is room for one more pair; what is over leaves where there is none."""
        for rooms, name in ((self._names, told.name), (self._tellers, told.teller)):
            room = rooms.get(name)
            if room and room.is_full():
                for one in room.over(told.from_ns):
                    self._forget(one)
                    self._displaced[one.name, one.address] = one
                if room.is_full():
                    return False
        return True

    def used(self, name: str, address: Address, at_ns: int) -> Resolution | None:
        """A connection to the address was seen under a name that it has; as `learn`."""
        life = self._life(name, address)
        if life is None or not life.from_ns <= at_ns < life.until_ns + IN_USE_NS:
            return None
        return self.learn(replace(life, until_ns=at_ns + IN_USE_NS))

    def as_of(self, at_ns: int, patterns: Collection[str] | None = None) -> Names:
        """The addresses of each name at a time; only names that a pattern means, if any are given.

        There may be as many names as agents tell, so who asks often asks for few.
        """
        found = {
            name: frozenset(one.address for one in room.pairs.values() if _alive(one, at_ns))
            for name, room in self._names.items()
            if patterns is None or any(fqdn_matches(pattern, name) for pattern in patterns)
        }
        return {name: addresses for name, addresses in found.items() if addresses}

    def known(self) -> frozenset[str]:
        """The names of which an address is known, now or of late."""
        return frozenset(name for name, room in self._names.items() if room.pairs)

    def instants(self, patterns: Iterable[str]) -> Iterator[int]:
        """When an address gets or loses a name that one of the patterns means, epoch ns."""
        patterns = tuple(patterns)
        for name, room in self._names.items():
            if any(fqdn_matches(pattern, name) for pattern in patterns):
                for one in room.pairs.values():
                    yield from (one.from_ns, one.until_ns)

    def forget(self, now_ns: int) -> list[Resolution]:
        """Forget, and give, what nobody asks for any more, or had to make room."""
        lives = (one for room in self._names.values() for one in room.pairs.values())
        over = [one for one in lives if one.until_ns + KEPT_NS <= now_ns]
        for one in over:
            self._forget(one)
        over += self._displaced.values()
        self._displaced = {}
        return over

    def _life(self, name: str, address: Address) -> Resolution | None:
        room = self._names.get(name)
        return room.pairs.get((name, address)) if room else None

    def _keep(self, one: Resolution) -> Resolution:
        pair = one.name, one.address
        self._names[one.name].pairs[pair] = self._tellers[one.teller].pairs[pair] = one
        self._displaced.pop(pair, None)
        return one

    def _forget(self, one: Resolution) -> None:
        for rooms, name in ((self._names, one.name), (self._tellers, one.teller)):
            del rooms[name].pairs[one.name, one.address]
            if not rooms[name].pairs:
                del rooms[name]


def _alive(one: Resolution, at_ns: int) -> bool:
    return one.from_ns <= at_ns < one.until_ns
