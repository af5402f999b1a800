"""News of flows that were stored, for those who watch them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ringfence.control.times import Window
from ringfence.model.ids import TenantId

_TOGETHER_SECONDS = 1.0
"""How long news is gathered: the agents of all nodes report a window at much the same time."""


class Listener:
    """Gathers the windows of batches that were stored since it was last asked."""

    def __init__(self) -> None:
        self._windows: set[Window] = set()
        self._news = asyncio.Event()

    def tell(self, window: Window) -> None:
        """A batch of this window was stored."""
        self._windows.add(window)
        self._news.set()

    def wake(self) -> None:
        """Wait no longer, without news."""
        self._news.set()

    async def windows(self, patience: float) -> set[Window]:
        """The windows of new batches, none if for `patience` seconds there is no news."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._news.wait()
            await asyncio.sleep(_TOGETHER_SECONDS)
        self._news.clear()
        windows, self._windows = self._windows, set()
        return windows


class Arrivals:
    """Tells listeners of what is stored for their tenant."""

    def __init__(self) -> None:
        self._listeners: dict[Listener, str] = {}

    @contextmanager
    def listen(self, tenant: TenantId) -> Iterator[Listener]:
        """Hear of every batch that is stored within the ``with`` block."""
        listener = Listener()
        self._listeners[listener] = tenant
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def tell(self, tenant: str, window: Window) -> None:
        """A batch was stored."""
        for listener, listening in self._listeners.items():
            if listening == tenant:
                listener.tell(window)
