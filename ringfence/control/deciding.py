"""Which rules decided and logged many connections, kept as numbers until somebody asks."""

from collections import Counter
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
            places = verdicts.deciding(role)
            numbers = np.full(len(layer.rules) + 1, NOBODY, np.int32)
            for place in np.flatnonzero(np.bincount(places[places >= 0])).tolist():
                numbers[place] = self._number(layer.rules[place].decision)
            found = numbers[places]  # nobody's place, -1, finds the last number
            denies = np.array([one.action is Action.DENY for one in self.rules] + [False])
            before = self.numbers[role][rows]
            later = ~denies[before] & denies[found]
            takes = (found != NOBODY) & ((before == NOBODY) | later)
            self.numbers[role][rows[takes]] = found[takes]

    def denied(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """At which of these an end denies, once all layers have decided."""
        denies = np.array([one.action is Action.DENY for one in self.rules] + [False])
        ends = [denies[numbers[rows]] for numbers in self.numbers.values()]
        return np.asarray(np.logical_or.reduce(ends))

    def spare(self, rows: NDArray[np.intp], role: EndRole, decision: Decision) -> None:
        """Let what lets pass whatever policies say decide where they deny these at an end."""
        denies = np.array([one.action is Action.DENY for one in self.rules] + [False])
        spared = rows[denies[self.numbers[role][rows]]]
        if len(spared):
            self.numbers[role][spared] = self._number(decision)

    def _number(self, decision: Decision) -> int:
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


class Logging:
    """The rules that log each of n connections."""

    def __init__(self, count: int) -> None:
        self.rules: list[tuple[Decision, ...]] = [()]
        """What logs, by number: nothing first."""
        self.numbers = np.zeros(count, np.int32)
        self._known = {self.rules[0]: 0}

    def __getitem__(self, row: int) -> tuple[Decision, ...]:
        """What logs one connection."""
        return self.rules[int(self.numbers[row])]

    def add(self, decision: Decision, rows: NDArray[np.intp]) -> None:
        """One more rule logs these."""
        before, which = np.unique(self.numbers[rows], return_inverse=True)
        after = [self._also(number, decision) for number in before.tolist()]
        self.numbers[rows] = np.array(after, np.int32)[which]

    def _also(self, number: int, decision: Decision) -> int:
        rules = self.rules[number]
        if decision in rules:
            return number
        number = self._known.setdefault((*rules, decision), len(self.rules))
        if number == len(self.rules):
            self.rules.append((*rules, decision))
        return number

    def spread(self, which: NDArray[np.int64]) -> "Logging":
        """The same of more connections, each of which is one of these."""
        more = Logging(0)
        more.rules, more._known, more.numbers = self.rules, self._known, self.numbers[which]
        return more

    def counts(self, chosen: NDArray[np.bool_]) -> dict[Decision, int]:
        """How many of the chosen connections each rule logs, by place in the order."""
        found: Counter[Decision] = Counter()
        times = np.bincount(self.numbers[chosen], minlength=len(self.rules)).tolist()
        for rules, count in zip(self.rules, times, strict=True):
            found.update(dict.fromkeys(rules, count))
        return dict(sorted(found.items(), key=lambda one: one[0].place))
