"""What is still to be sent in one conversation with the control plane."""

import asyncio

from ringfence.model.ids import ItemKey
from ringfence.model.workload import Item

Untold = dict[ItemKey, tuple[int, Item | None]]
"""When each item changed (epoch ns), and to what; None means gone."""


class Outbox:
    """Changes not yet sent. Of one item only the last counts, so a slow link stays bounded."""

    def __init__(self) -> None:
        self._untold: Untold = {}
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, key: ItemKey, at_ns: int, item: Item | None) -> None:
        """Leave a change to be sent."""
        if not self._closed:
            self._untold[key] = (at_ns, item)
            self._wake.set()

    async def take(self) -> Untold:
        """Wait for changes and take them all; empty once the outbox is closed."""
        await self._wake.wait()
        if self._closed:
            return {}
        self._wake.clear()
        taken, self._untold = self._untold, {}
        return taken

    def close(self) -> None:
        """The conversation is over: whoever takes gets nothing more."""
        self._closed = True
        self._wake.set()
