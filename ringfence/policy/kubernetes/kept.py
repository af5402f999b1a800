"""What each policy of a Kubernetes cluster came to, made again where a change touches it.

A policy's rules depend on whom it selects, on whom its peers are and on who declares the ports that
it names. So of many policies those alone are made again that are others, or of which one of these
is another (`LiveCluster.follow`); all begin that way.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.inventory.living import Alteration, Living
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Stage
from ringfence.model.workload import ItemKind
from ringfence.policy.kubernetes.cluster import Fact, LiveCluster
from ringfence.policy.kubernetes.held import hold
from ringfence.policy.kubernetes.policies import KubernetesPolicy
from ringfence.policy.kubernetes.rules import TIERS, Meaning, Source, depends_on, place_of
from ringfence.policy.layer import OrderedRule
from ringfence.policy.program import Rule

_Place = tuple[tuple[int, int, str, str], int]
"""Where a policy stands; the number tells several by one name apart."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A rule of the layer, and what it says in a pod's own namespace.

    Of the rule for the pod's own node, whose addresses differ from pod to pod, that is of anybody.
    """

    rule: OrderedRule
    said: Rule


@dataclass(frozen=True, slots=True)
class _Kept:
    place: _Place
    policy: KubernetesPolicy
    subjects: BitMap
    rules: dict[Direction, list[Stated]]
    isolation: dict[Direction, list[Stated]]
    whole: bool
    """Whether all its rules are of all whom it selects."""


class KeptPolicies:
    """The policies of a cluster as an inventory changes, those that it has from the beginning.

    `state` tells what a rule says in a pod's namespace, for as long as it says the same.
    """

    def __init__(
        self,
        cluster: LiveCluster[Living],
        policies: Iterable[KubernetesPolicy],
        source: Source,
        state: Callable[[OrderedRule], Stated],
    ) -> None:
        self._cluster, self._source, self._state = cluster, source, state
        self._kept: dict[_Place, _Kept] = {}
        self._readers: dict[Fact, set[_Place]] = {}
        self._selecting: dict[int, list[_Kept]] = {}
        """For each pod the policies that select it, in order."""
        meaning = Meaning(cluster, source)
        for policy in policies:
            place, number = place_of(policy), 0
            while (place, number) in self._kept:
                number += 1
            self._put(self._make((place, number), policy, meaning))
        self._several = any(number for _, number in self._kept)
        self._own_node = state(meaning.own_node())
        self._otherwise = {one: state(meaning.otherwise(one)) for one in Direction}

    def follow(self, alterations: Iterable[Alteration]) -> set[int] | None:
        """The inventory has changed so; the pods for which other rules may count now.

        None, with nothing of it holding any more, where there are several policies by one name.
        """
        alterations = list(alterations)
        facts = self._cluster.follow(alterations)
        gone, come = self._changed(alterations)
        again = {place for fact in facts for place in self._readers.get(fact, ())} - gone
        if (gone or come) and self._several:
            return None
        pods = set[int]()
        for place in gone:
            pods.update(self._remove(place))
        meaning = Meaning(self._cluster, self._source)
        for place in again:
            policy = self._kept[place].policy
            pods.update(self._remove(place))
            come.append((place, policy))
        for place, policy in come:
            if place in self._kept:
                return None
            made = self._make(place, policy, meaning)
            self._put(made)
            pods.update(made.subjects)
        return pods

    @property
    def pods(self) -> Collection[int]:
        """Those that a policy selects."""
        return self._selecting.keys()

    def counting(self, at: int, direction: Direction) -> list[Stated]:
        """The rules of the layer that count for a pod, in order."""
        selecting, found = self._selecting.get(at, ()), list[Stated]()
        for stage in TIERS:
            if stage is Stage.NETWORK_POLICY and direction is Direction.INBOUND:
                found.append(self._own_node)
            of_stage = [one for one in selecting if one.policy.stage is stage]
            for kept in of_stage:
                rules = kept.rules[direction]
                found += rules if kept.whole else [one for one in rules if at in one.rule.members]
            for kept in of_stage:
                found += kept.isolation[direction]
        return [*found, self._otherwise[direction]]

    def _changed(
        self, alterations: Iterable[Alteration]
    ) -> tuple[set[_Place], list[tuple[_Place, KubernetesPolicy]]]:
        """Which policies are no more, and which are there now."""
        gone, come = set[_Place](), list[tuple[_Place, KubernetesPolicy]]()
        for one in alterations:
            theirs = one.sides[0].cluster == self._cluster.name
            if one.kind is not ItemKind.KUBERNETES_POLICY or not theirs or one.before == one.after:
                continue
            if one.before:
                (held,) = hold([one.before.manifest])
                gone.add((place_of(held.policy), 0))
            if one.after:
                (held,) = hold([one.after.manifest])
                come.append(((place_of(held.policy), 0), held.policy))
        return gone, come

    def _make(self, place: _Place, policy: KubernetesPolicy, meaning: Meaning) -> _Kept:
        rules, isolation = (
            {direction: list[Stated]() for direction in Direction} for _ in range(2)
        )
        subjects, whole = self._cluster.select(policy.subject), True
        for held, said in ((rules, meaning.of(policy)), (isolation, meaning.isolation(policy))):
            for rule in said:
                assert rule.direction is not None
                held[rule.direction].append(self._state(rule))
                whole &= rule.members == subjects
        return _Kept(place, policy, subjects, rules, isolation, whole)

    def _put(self, kept: _Kept) -> None:
        self._kept[kept.place] = kept
        for fact in depends_on(kept.policy):
            self._readers.setdefault(fact, set()).add(kept.place)
        for at in kept.subjects:
            held = self._selecting.setdefault(at, [])
            if held and kept.place < held[-1].place:
                insort(held, kept, key=_place)
            else:  # as all of them come in the beginning
                held.append(kept)

    def _remove(self, place: _Place) -> BitMap:
        """Whom the policy selected."""
        kept = self._kept.pop(place)
        for fact in set(depends_on(kept.policy)):
            self._readers[fact].discard(place)
            if not self._readers[fact]:
                del self._readers[fact]
                self._cluster.forget(fact)
        for at in kept.subjects:
            spot = bisect_left(self._selecting[at], place, key=_place)
            del self._selecting[at][spot]
            if not self._selecting[at]:
                del self._selecting[at]
        return kept.subjects


def _place(kept: _Kept) -> _Place:
    return kept.place


def denies(counting: Iterable[Stated]) -> bool:
    """Whether any of the rules may deny something."""
    return any(one.rule.action is Action.DENY for one in counting)
