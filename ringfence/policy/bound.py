"""What workloads are bound to: the rules of entries, put in order, as programs."""

from collections.abc import Iterable, Mapping

from ringfence.policy.program import ProgramId, Rule
from ringfence.policy.shared import Programs
from ringfence.policy.translate import Chain

Rules = tuple[Rule, ...]
Made = Mapping[Chain, Mapping[int, Rules]]
"""What an entry of the order became at workloads, by their positions."""
NOTHING: Made = {chain: {} for chain in Chain}


class Bound:
    """The program of each chain of each workload, by its position."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._rules: dict[Chain, dict[int, dict[int, Rules]]] = {chain: {} for chain in Chain}
        """For each chain and workload, the rules of each entry by its place."""
        self._stale: dict[Chain, set[int]] = {chain: set() for chain in Chain}
        self.programs: dict[Chain, dict[int, ProgramId]] = {chain: {} for chain in Chain}

    def put(self, place: int, before: Made, now: Made) -> None:
        """An entry has become something else at some workloads."""
        for chain in Chain:
            was, has = before[chain], now[chain]
            held = self._rules[chain]
            for at in was.keys() - has.keys():
                del held[at][place]
                self._stale[chain].add(at)
            for at, rules in has.items():
                known = was.get(at)
                if known is not rules and known != rules:
                    held.setdefault(at, {})[place] = rules
                    self._stale[chain].add(at)

    def renew(self) -> set[int]:
        """Bring the programs up to date; the workloads that have another one now."""
        changed = set[int]()
        for chain, stale in self._stale.items():
            bound = self.programs[chain]
            for at in stale:
                name = self._program(self._rules[chain][at])
                if name != bound.get(at):
                    changed.add(at)
                if name is None:
                    del self._rules[chain][at]
                    bound.pop(at, None)
                else:
                    bound[at] = name
            stale.clear()
        return changed

    def used(self) -> Iterable[ProgramId]:
        """The names of all programs that somebody is bound to."""
        return (name for bound in self.programs.values() for name in bound.values())

    def _program(self, by_place: Mapping[int, Rules]) -> ProgramId | None:
        if not by_place:
            return None
        return self._programs.share(rule for place in sorted(by_place) for rule in by_place[place])
