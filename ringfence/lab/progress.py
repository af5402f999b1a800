"""How long-running lab work tells what it is doing, without printing anything itself."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Note = Callable[[str], None]
"""Says what a step is at right now, in a few words."""


class Progress(Protocol):
    """Receives the steps of the work. Steps of several threads may overlap."""

    def step(self, title: str) -> AbstractContextManager[Note]:
        """Open a step; it ends, well or badly, with the ``with`` block."""
