"""Which namespaces' rules another had changed, and when they were whole again."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from ringfence.agent.pods import Place
from ringfence.model.repair import Damage, Repair
from ringfence.wire.limits import MOST_REPAIRS


@dataclass
class Repairs:
    """Of MOST_REPAIRS namespaces the last one each, the latest last."""

    _noticed: dict[Place, Damage] = field(default_factory=dict)
    _made: dict[str, Repair] = field(default_factory=dict)

    def notice(self, place: Place, damage: Damage) -> None:
        """Another has changed a namespace's rules: they are to be written again."""
        self._noticed.setdefault(place, damage)

    def made(self, whole: Iterable[Place], failing: Container[Place], now_ns: int) -> None:
        """The rules of these namespaces are in force; those that fail are not, others are gone."""
        for place in whole:
            if damage := self._noticed.pop(place, None):
                before = self._made.pop(place.uid, None)
                times = before.times + 1 if before else 1
                self._made[place.uid] = Repair(place.uid, damage, now_ns, times)
        self._noticed = {place: how for place, how in self._noticed.items() if place in failing}
        while len(self._made) > MOST_REPAIRS:
            del self._made[next(iter(self._made))]

    def told(self) -> list[Repair]:
        """Those to tell, the latest last."""
        return list(self._made.values())
