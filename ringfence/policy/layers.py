"""The layers of Kubernetes' own policies: what each pod is bound to besides."""

from collections.abc import Collection, Iterable, Iterator

from ringfence.inventory.living import Alteration, Living
from ringfence.model.policy import Direction
from ringfence.policy.fronts import Fronts
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.translate import KubernetesTranslator
from ringfence.policy.program import ProgramId
from ringfence.policy.sets import AddressSets
from ringfence.policy.shared import Programs
from ringfence.policy.translate import Chain, Widening

_CHAINS = {Direction.INBOUND: Chain.INBOUND, Direction.OUTBOUND: Chain.OUTBOUND}


class Layers:
    """What pods are bound to by layers, in order, over an inventory that changes.

    Sets and fronts are brought up to date first.
    """

    def __init__(
        self,
        layers: Iterable[KubernetesLayer],
        living: Living,
        programs: Programs,
        sets: AddressSets,
        fronts: Fronts,
    ) -> None:
        self._programs = programs
        self._translators = [KubernetesTranslator(one, living, sets, fronts) for one in layers]
        self._bound: list[dict[Chain, dict[int, ProgramId]]] = [
            {chain: {} for chain in _CHAINS.values()} for _ in self._translators
        ]
        for number, translator in enumerate(self._translators):
            self._renew(number, translator.pods)

    def follow(self, alterations: Collection[Alteration]) -> set[int] | None:
        """The inventory has changed so; the positions that are bound to something else.

        None, with nothing of it holding any more, where all must be made anew.
        """
        changed = set[int]()
        for number, translator in enumerate(self._translators):
            stale = translator.follow(alterations)
            if stale is None:
                return None
            changed |= self._renew(number, stale)
        return changed

    def _renew(self, number: int, pods: Collection[int]) -> set[int]:
        changed = set[int]()
        for direction, chain in _CHAINS.items():
            bound = self._bound[number][chain]
            rules = self._translators[number].rules(direction, pods)
            alike = {id(some): some for some in rules.values()}
            names = {which: self._programs.share(some) for which, some in alike.items()}
            for at in pods:
                name = names[id(rules[at])] if at in rules else None
                if name == bound.get(at):
                    continue
                changed.add(at)
                if name is None:
                    del bound[at]
                else:
                    bound[at] = name
        return changed

    @property
    def widened_anew(self) -> bool:
        """Whether the inventory's last change gave other widenings."""
        return any(one.widened_anew for one in self._translators)

    @property
    def widenings(self) -> Iterator[Widening]:
        """What the rules admit beyond their policies."""
        for translator in self._translators:
            yield from translator.widenings

    def used(self) -> Iterator[ProgramId]:
        """The names of all programs that somebody is bound to."""
        for bound in self._bound:
            for names in bound.values():
                yield from names.values()

    def of(self, chain: Chain, at: int) -> tuple[ProgramId, ...]:
        """What the workload at the position is bound to in a direction of pods."""
        return tuple(bound[chain][at] for bound in self._bound if at in bound[chain])
