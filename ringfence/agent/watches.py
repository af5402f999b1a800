"""Hears, as it happens, that rules of ours were changed in a namespace by somebody else."""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ringfence.agent.pods import Place
from ringfence.kernel.errors import KernelError
from ringfence.kernel.rules import Watch

log = structlog.get_logger()


@dataclass
class Watches:
    """One watch for each namespace that holds rules.

    Where none can be had, changes are noticed by reading the rules alone.
    """

    listen: Callable[[Path], Watch] | None
    """Opens a watch, where the mechanism of the rules tells of changes."""
    open: dict[Place, Watch] = field(default_factory=dict)

    def begin(self, place: Place) -> None:
        """Hear of changes from now on."""
        try:
            if self.listen and place not in self.open:
                self.open[place] = self.listen(place.netns)
        except KernelError as error:  # no reason to go without rules
            self._deaf(place, error)

    def touched(self, place: Place) -> bool:
        """Whether there were any changes since the last call, our own too."""
        try:
            return place in self.open and self.open[place].touched()
        except KernelError as error:
            self._deaf(place, error)
            return False

    def heard(self) -> Iterator[Place]:
        """The places that were touched since the last call."""
        return (place for place in list(self.open) if self.touched(place))

    def keep(self, places: Container[Place]) -> None:
        """Hear of no other places any more."""
        for place in [one for one in self.open if one not in places]:
            self.end(place)

    def end(self, place: Place) -> None:
        """Hear of a place no more."""
        if watch := self.open.pop(place, None):
            watch.close()

    def _deaf(self, place: Place, error: KernelError) -> None:
        log.warning("changes not heard", pod=place.uid, problem=str(error))
        self.end(place)
