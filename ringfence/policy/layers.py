"""The layers of Kubernetes' own policies, compiled whole: what each pod is bound to besides."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from ringfence.model.address import Network
from ringfence.model.ids import ItemKey
from ringfence.model.policy import Direction
from ringfence.policy.fronts import Fronts
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.translate import KubernetesTranslator
from ringfence.policy.program import ProgramId, SetId
from ringfence.policy.sets import AddressSets
from ringfence.policy.shared import Programs
from ringfence.policy.translate import Chain, Widening

K = TypeVar("K")
V = TypeVar("V")
_CHAINS = {Direction.INBOUND: Chain.INBOUND, Direction.OUTBOUND: Chain.OUTBOUND}


class Layers:
    """What pods are bound to by layers of one inventory, in order."""

    def __init__(self, layers: Sequence[KubernetesLayer], programs: Programs) -> None:
        self.programs: dict[Chain, dict[ItemKey, tuple[ProgramId, ...]]] = {
            chain: {} for chain in _CHAINS.values()
        }
        self.sets: dict[SetId, tuple[Network, ...]] = {}
        self.widenings: tuple[Widening, ...] = ()
        if not layers:
            return
        sets, fronts = AddressSets(layers[0].snapshot), Fronts(layers[0].snapshot)
        for layer in layers:
            items = layer.snapshot.items
            translator = KubernetesTranslator(layer, sets, fronts)
            for direction, chain in _CHAINS.items():
                bound = self.programs[chain]
                for at, rules in translator.rules(direction).items():
                    name = programs.share(rules)
                    bound[items[at].key] = (*bound.get(items[at].key, ()), name)
                    for used in programs.sets(name):
                        self.sets[used] = sets.networks(used)
            self.widenings += translator.widenings

    def differing(self, other: "Layers") -> set[ItemKey]:
        """The pods that are bound to something else."""
        return {
            key for chain in _CHAINS.values() for key in _differing(self.of(chain), other.of(chain))
        }

    def altered(self, other: "Layers") -> set[SetId]:
        """The sets that hold something else."""
        return _differing(self.sets, other.sets)

    def used(self) -> Iterator[ProgramId]:
        """The names of all programs that somebody is bound to."""
        for bound in self.programs.values():
            for names in bound.values():
                yield from names

    def of(self, chain: Chain) -> Mapping[ItemKey, tuple[ProgramId, ...]]:
        """What pods are bound to in a direction."""
        return self.programs.get(chain, {})


def _differing(one: Mapping[K, V], other: Mapping[K, V]) -> set[K]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
