"""The names by which clients found addresses, as DNS told them.

What a client was answered last counts, for an address may have many names. It counts for longer
than its TTL: programs resolve a name once and go on connecting to what they were told, and a
connection outlives the answer that led to it. So a name is kept for an hour after it was last
told or last used.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.dns import Resolved
from ringfence.flows.keys import Bytes, join, spots
from ringfence.model.address import Address

KEPT_NS = 3600 * 10**9
"""For how long a name is kept at least; longer if its TTL is."""

_ANYBODY = Address(bytes(16))
"""In the place of a client: whoever asked."""


class Names:
    """Which name each client knows an address by. Holds `most` pairs of them."""

    def __init__(self, most: int = 32_768) -> None:
        self._most = most
        self._known: dict[bytes, tuple[int, str]] = {}
        """Until when (epoch ns) and which name, by client and address; the last told or used is
        the last one."""
        self.forgotten = 0
        """Names for which there was no room before their time was up."""

    def learn(self, client: Address, at_ns: int, answer: Resolved) -> None:
        """Take note of what a client was answered. Answers come in the order of their times."""
        until_ns = at_ns + max(answer.ttl * 10**9, KEPT_NS)
        for address in answer.addresses:
            for asker in (client, _ANYBODY):
                self._keep(asker + address, until_ns, answer.name)
        while len(self._known) > self._most:
            oldest = next(iter(self._known))
            self.forgotten += self._known.pop(oldest)[0] > at_ns

    def of(
        self,
        consumers: NDArray[np.uint8],
        dialled: NDArray[np.uint8],
        here: Collection[Address],
        now_ns: int,
    ) -> NDArray[np.object_]:
        """The name by which each of n consumers knew the address it dialled, empty for none.

        Addresses have shape (n, 16). A consumer that is `here`, on this node, but was seen to ask
        for none of the address's names, has the one that any client asked for last.
        """
        self._known = {key: told for key, told in self._known.items() if told[0] > now_ns}
        if not self._known:
            return np.full(len(consumers), "", dtype=object)
        keys = list(self._known)
        known = np.array(keys, dtype="S32")
        own = _places(join(consumers, dialled), known)
        others = _places(join(np.zeros_like(consumers), dialled), known)
        local = _places(join(consumers), np.array([*here], dtype="S16")) >= 0
        places = np.where(own >= 0, own, np.where(local, others, -1))
        for place in np.unique(places[places >= 0]).tolist():
            until_ns, name = self._known[keys[place]]
            self._keep(keys[place], max(until_ns, now_ns + KEPT_NS), name)
        names = [*(self._known[key][1] for key in keys), ""]
        return np.array(names, dtype=object)[places]

    def _keep(self, key: bytes, until_ns: int, name: str) -> None:
        self._known.pop(key, None)
        self._known[key] = until_ns, name


def _places(rows: Bytes, among: Bytes) -> NDArray[np.int64]:
    """Where each row is among others, -1 where it is not."""
    order = np.argsort(among)
    spot = spots(rows, among[order])
    return np.where(spot >= 0, np.append(order, -1)[spot], -1)
