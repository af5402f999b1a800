"""Which addresses DNS told for names, and for how long: what a name in a policy means at a time.

An address has a name from the answer on, for its TTL and LINGER_NS more; while it is in use under
that name, for IN_USE_NS after it was last seen. Answers can be hostile: there is a most of them for
each name and for each node that tells them, and what finds no room is refused, so that a flood of
names takes none away that hold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

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


class Resolutions:
    """The last life of each pair of name and address. Not thread-safe."""

    def __init__(self, most_of_name: int = 1_024, most_of_teller: int = 8_192) -> None:
        self._most_of_name, self._most_of_teller = most_of_name, most_of_teller
        self._known: dict[str, dict[Address, Resolution]] = {}
        self._tellers: Counter[str] = Counter()
        self.refused = 0
        """Pairs for which there was no room."""

    def learn(self, told: Resolution) -> Resolution | None:
        """Enter what was told; the life as it now is if that changes anything."""
        before = self._known.get(told.name, {}).get(told.address)
        if before and told.from_ns <= before.until_ns:
            longer = replace(before, until_ns=max(before.until_ns, told.until_ns))
            return None if longer == before else self._keep(longer)
        if before:
            self._forget(before)
        of_name = self._known.get(told.name, {})
        if len(of_name) >= self._most_of_name or self._tellers[told.teller] >= self._most_of_teller:
            self.refused += 1
            return None
        return self._keep(told)

    def used(self, name: str, address: Address, at_ns: int) -> Resolution | None:
        """A connection to the address was seen under a name that it has; as `learn`."""
        life = self._known.get(name, {}).get(address)
        if life is None or not life.from_ns <= at_ns < life.until_ns + IN_USE_NS:
            return None
        return self.learn(replace(life, until_ns=at_ns + IN_USE_NS))

    def as_of(self, at_ns: int) -> Names:
        """The addresses of each name at a time."""
        found = {
            name: frozenset(one.address for one in lives.values() if _alive(one, at_ns))
            for name, lives in self._known.items()
        }
        return {name: addresses for name, addresses in found.items() if addresses}

    def instants(self, patterns: Iterable[str]) -> Iterator[int]:
        """When an address gets or loses a name that one of the patterns means, epoch ns."""
        patterns = tuple(patterns)
        for name, lives in self._known.items():
            if any(fqdn_matches(pattern, name) for pattern in patterns):
                for one in lives.values():
                    yield from (one.from_ns, one.until_ns)

    def forget(self, now_ns: int) -> list[Resolution]:
        """Forget, and give, what nobody asks for any more."""
        lives = (one for lives in self._known.values() for one in lives.values())
        over = [one for one in lives if one.until_ns + KEPT_NS <= now_ns]
        for one in over:
            self._forget(one)
        return over

    def _keep(self, one: Resolution) -> Resolution:
        lives = self._known.setdefault(one.name, {})
        self._tellers[one.teller] += one.address not in lives
        lives[one.address] = one
        return one

    def _forget(self, one: Resolution) -> None:
        del self._known[one.name][one.address]
        self._tellers[one.teller] -= 1
        if not self._known[one.name]:
            del self._known[one.name]


def _alive(one: Resolution, at_ns: int) -> bool:
    return one.from_ns <= at_ns < one.until_ns
