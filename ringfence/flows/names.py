"""The names by which clients found addresses, as DNS told them.

What a client was answered last counts, for an address may have many names. It counts for longer
than its TTL: programs resolve a name once and go on connecting to what they were told, and a
connection outlives the answer that led to it. So a name is kept for an hour after it was last
told or last used.
"""

from collections import OrderedDict
from collections.abc import Collection
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.dns import Resolved
from ringfence.flows.keys import join, spots
from ringfence.model.address import Address

KEPT_NS = 3600 * 10**9
"""For how long a name is kept at least; longer if its TTL is."""


class _Told(NamedTuple):
    """What a client was told of an address."""

    name: str
    at_ns: int
    until_ns: int
    """When its time is up; epoch ns, as `at_ns`."""


class Names:
    """Which name each client knows an address by.

    Holds `most` pairs of client and address, and `most_each` of one client, so that one which asks
    much leaves room for others.
    """

    def __init__(self, most: int = 32_768, most_each: int = 4_096) -> None:
        self._most = most
        self._most_each = most_each
        self._known: OrderedDict[Address, OrderedDict[bytes, _Told]] = OrderedDict()
        """By client, then by client and address; in either, what was told or used last is last."""
        self._pairs = 0
        self.forgotten = 0
        """Names for which there was no room before their time was up."""

    def learn(self, client: Address, at_ns: int, answer: Resolved) -> None:
        """Take note of what a client was answered. Answers come in the order of their times."""
        told = _Told(answer.name, at_ns, at_ns + max(answer.ttl * 10**9, KEPT_NS))
        for address in answer.addresses:
            self._keep(client + address, told)
            if len(self._known[client]) > self._most_each:
                self._forget_one(client, at_ns)
            elif self._pairs > self._most:
                self._forget_one(next(iter(self._known)), at_ns)

    def of(
        self,
        consumers: NDArray[np.uint8],
        dialled: NDArray[np.uint8],
        here: Collection[Address],
        now_ns: int,
    ) -> NDArray[np.object_]:
        """The name by which each of n consumers knew the address it dialled, empty for none.

        Addresses have shape (n, 16). A consumer that is `here`, on this node, but was seen to ask
        for none of the address's names, has the one that any client here was told last.
        """
        self._expire(now_ns)
        pairs = [*chain.from_iterable(self._known.values())]
        told = [*chain.from_iterable(known.values() for known in self._known.values())]
        keys = np.frombuffer(b"".join(pairs), dtype="S32")
        clients, addresses = keys.view("S16").reshape(-1, 2).T
        local = np.array([*here], dtype="S16")

        order = np.argsort(keys)
        own = _at(order, spots(join(consumers, dialled), keys[order]))

        latest = np.argsort([each.at_ns for each in told], kind="stable")[::-1]
        latest = latest[np.isin(clients[latest], local)]
        sites, first = np.unique(addresses[latest], return_index=True)
        others = _at(latest[first], spots(join(dialled), sites))

        chosen = np.where(own >= 0, own, np.where(np.isin(join(consumers), local), others, -1))
        used, which = np.unique(chosen, return_inverse=True)
        names = [self._use(pairs[i], told[i], now_ns) if i >= 0 else "" for i in used.tolist()]
        return np.array(names, dtype=object)[which]

    def _use(self, pair: bytes, told: _Told, now_ns: int) -> str:
        """A name, which is kept for longer for that."""
        name, at_ns, until_ns = told
        self._keep(pair, _Told(name, at_ns, max(until_ns, now_ns + KEPT_NS)))
        return name

    def _keep(self, pair: bytes, told: _Told) -> None:
        """Know what a client was told of an address, as the last of all."""
        client = Address(pair[:16])
        known = self._known.setdefault(client, OrderedDict())
        self._pairs += pair not in known
        known[pair] = told
        known.move_to_end(pair)
        self._known.move_to_end(client)

    def _forget_one(self, client: Address, at_ns: int) -> None:
        """Forget what a client was told or used longest ago."""
        known = self._known[client]
        _, told = known.popitem(last=False)
        self._pairs -= 1
        self.forgotten += told.until_ns > at_ns
        if not known:
            del self._known[client]

    def _expire(self, now_ns: int) -> None:
        for client, known in [*self._known.items()]:
            for pair in [pair for pair, told in known.items() if told.until_ns <= now_ns]:
                del known[pair]
                self._pairs -= 1
            if not known:
                del self._known[client]


def _at(places: NDArray[np.int64], spot: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place at each spot, -1 where there is none."""
    return np.append(places, -1)[spot]
