"""How long to wait before trying again, so that many clients do not come back all at once."""

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from `first` to at most `most` seconds, each cut at random to half.

    `draw` gives numbers from [0, 1).
    """

    def __init__(
        self,
        first: float = 0.5,
        most: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._most, self._draw = first, most, draw
        self._next = first

    def delay(self) -> float:
        """The seconds to wait now."""
        whole, self._next = self._next, min(self._next * 2, self._most)
        return whole * (1 + self._draw()) / 2

    def reset(self) -> None:
        """It worked: begin with the shortest delay again."""
        self._next = self._first
