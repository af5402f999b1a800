"""Which rule decided at each end of many connections, kept as numbers until somebody asks."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ringfence.model.policy import Action
from ringfence.model.verdict import Decision, EndRole
from ringfence.policy.evaluate import Verdicts
from ringfence.policy.layer import RuleLayer

NOBODY = -1
"""Stands for the number of a rule at an end that nothing governs."""


class Deciding:
    """The deciding rules of n connections; each is a mapping from its governed ends."""

    def __init__(self, count: int) -> None:
        self.rules: list[Decision] = []
        """The rules by number."""
        self.numbers = {role: np.full(count, NOBODY, np.int32) for role in EndRole}
        self._known: dict[Decision, int] = {}

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.numbers[EndRole.CONSUMER])

    def __getitem__(self, row: int) -> dict[EndRole, Decision]:
        """What decided one connection."""
        found = {role: int(numbers[row]) for role, numbers in self.numbers.items()}
        return {role: self.rules[at] for role, at in found.items() if at != NOBODY}

    def __iter__(self) -> Iterator[dict[EndRole, Decision]]:
        """What decided each of them."""
        return (self[row] for row in range(len(self)))

    def add(self, rows: NDArray[np.intp], layer: RuleLayer, verdicts: Verdicts) -> None:
        """Add what one more layer decides of these; of layers one that denies counts first."""
        for role in EndRole:
            places, which = np.unique(verdicts.deciding(role), return_inverse=True)
            numbers = [self._number(layer, place) for place in places.tolist()]
            found = np.array(numbers, np.int32)[which]
            denies = np.array([one.action is Action.DENY for one in self.rules] + [False])
            before = self.numbers[role][rows]
            later = ~denies[before] & denies[found]
            takes = (found != NOBODY) & ((before == NOBODY) | later)
            self.numbers[role][rows[takes]] = found[takes]

    def _number(self, layer: RuleLayer, place: int) -> int:
        if place < 0:
            return NOBODY
        decision = layer.rules[place].decision
        number = self._known.setdefault(decision, len(self.rules))
        if number == len(self.rules):
            self.rules.append(decision)
        return number

    def spread(self, which: NDArray[np.int64]) -> "Deciding":
        """The same of more connections, each of which is one of these."""
        more = Deciding(0)
        more.rules, more._known = self.rules, self._known
        more.numbers = {role: numbers[which] for role, numbers in self.numbers.items()}
        return more
