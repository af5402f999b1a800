"""Why connections among a folder's workloads are allowed or denied: the policies and their rules.

Told of a NetworkPolicy that allows is its first rule that does. A denial by NetworkPolicy has no
rule: told are all policies that isolate the pod, and how far each came to allowing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np

from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import Stage
from ringfence.policy.kubernetes.axes import Mask
from ringfence.policy.kubernetes.connectivity import Connectivity, Pair
from ringfence.policy.kubernetes.ingress import Publisher
from ringfence.policy.kubernetes.policies import KubernetesPolicy, PolicyRule
from ringfence.policy.kubernetes.rules import ISOLATION
from ringfence.policy.layer import OrderedRule


class Effect(StrEnum):
    """What an object does about a connection."""

    ALLOWS = "allows"
    DENIES = "denies"
    PASSES = "passes"
    HAS_NO_RULES = "isolates, and has no rules"
    OMITS_PEER = "isolates, and no rule names the peer"
    OMITS_PORTS = "isolates, and the rule is of other ports"
    UNKNOWN_PORT_NAME = "isolates, and the rule's port names are not the destination's"
    PUBLISHES = "publishes"
    PUBLISHES_OTHER_PORTS = "publishes other ports"


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """What one object does; `rule` is told where one does it, `service` of what publishes one."""

    kind: str
    name: str
    effect: Effect
    rule: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """What one end decides, and why: the last reason decides, those before it pass.

    By default everything is allowed: with no reason, or where all of them pass.
    """

    allowed: bool
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Connections with the same reasons."""

    ports: Mapping[int, Sequence[PortRange]]
    """By protocol, the ranges of ports."""
    whole: bool
    """Whether they are all that there are."""
    outbound: End
    inbound: End

    @property
    def allowed(self) -> bool:
        """Whether the connections pass."""
        return self.outbound.allowed and self.inbound.allowed

    @property
    def is_default(self) -> bool:
        """Whether no object has a part in it."""
        return not self.outbound.reasons and not self.inbound.reasons


@dataclass(frozen=True, slots=True)
class Explanation:
    """All connections between two ends, or those in focus, by what decides them."""

    source: str
    target: str
    parts: Sequence[Part]


_BY_DEFAULT = End(True)
_Decided = list[tuple[End, Mask]]
_Undecided = list[tuple[tuple[Reason, ...], Mask]]
_EFFECTS = {Action.ALLOW: Effect.ALLOWS, Action.DENY: Effect.DENIES, Action.PASS: Effect.PASSES}


class Explainer:
    """Explains what a folder's policies permit and deny."""

    def __init__(self, read: Connectivity) -> None:
        self._read = read
        self._policies = {one.display: one for one in read.policies}
        self._everything = np.ones(len(read.ports), dtype=np.bool_)
        self._end = cache(self._judge)

    def explain(self, pair: Pair) -> Explanation:
        """Why the pair may talk on some ports and not on others."""
        outbound = self._end(Direction.OUTBOUND, pair.consumer, pair.provider)
        inbound = self._end(Direction.INBOUND, pair.provider, pair.consumer)
        if pair.published:
            inbound = list(self._published(inbound, self._read.published[pair.published]))
        cells: dict[tuple[End, End], Mask] = {}
        for out, first in outbound:
            for into, second in inbound:
                both = first & second & self._read.focus
                if both.any():
                    cells[out, into] = cells.get((out, into), False) | both
        return Explanation(
            pair.source,
            pair.target,
            [
                Part(self._read.ports.ranges(mask), bool(mask.all()), *ends)
                for ends, mask in cells.items()
            ],
        )

    def _judge(self, direction: Direction, own: int, peer: int) -> _Decided:
        """What one end decides on each cell of ports."""
        if self._read.is_outside(own):
            return [(_BY_DEFAULT, self._everything)]
        rules = self._read.governing(own, direction)
        decided: _Decided = []
        undecided: _Undecided = [((), self._everything)]
        for stage, judge in (
            (Stage.ADMIN, self._tier),
            (Stage.NETWORK_POLICY, self._network_policies),
            (Stage.BASELINE, self._tier),
        ):
            listed = [one for one in rules if one.decision.stage is stage]
            following: _Undecided = []
            for passed, cells in undecided:
                found = judge(listed, direction, peer, cells)
                for end, mask in found:
                    told = End(end.allowed, passed + end.reasons)
                    if end.reasons and end.reasons[-1].effect is not Effect.PASSES:
                        decided.append((told, mask))
                    else:
                        following.append((told.reasons, mask))
            undecided = following
        return decided + [(End(True, passed), cells) for passed, cells in undecided]

    def _tier(
        self, rules: Sequence[OrderedRule], _: Direction, peer: int, cells: Mask
    ) -> Iterator[tuple[End, Mask]]:
        """The first rule that speaks of a cell."""
        for rule in rules:
            peers, ports = self._read.spoken_of(rule)
            hit = cells & ports
            if peers[peer] and hit.any():
                yield End(rule.action is not Action.DENY, (self._reason(rule),)), hit
                cells = cells & ~hit
        if cells.any():
            yield _BY_DEFAULT, cells

    def _reason(self, rule: OrderedRule) -> Reason:
        policy = self._policies[rule.decision.policy or ""]
        stated = next(one for one in policy.rules if one.name == rule.decision.rule)
        return _of(policy, _EFFECTS[rule.action], stated)

    def _network_policies(
        self, rules: Sequence[OrderedRule], direction: Direction, peer: int, cells: Mask
    ) -> Iterator[tuple[End, Mask]]:
        """All policies that allow a cell; if none does, all that isolate."""
        isolating = sorted(
            {one.decision.policy or "" for one in rules if one.decision.rule == ISOLATION}
        )
        if not isolating:
            yield _BY_DEFAULT, cells
            return
        allowing: list[Reason] = []
        allowed: list[Mask] = []
        for name in isolating:
            for reason, mask in self._allows(self._policies[name], rules, direction, peer):
                allowing.append(reason)
                allowed.append(mask)
        for which, mask in _alike(np.array(allowed, dtype=np.bool_), cells):
            if which:
                yield End(True, tuple(allowing[at] for at in which)), mask
            else:
                denying = (
                    self._denies(self._policies[name], rules, direction, peer) for name in isolating
                )
                yield End(False, tuple(denying)), mask

    def _allows(
        self,
        policy: KubernetesPolicy,
        rules: Sequence[OrderedRule],
        direction: Direction,
        peer: int,
    ) -> Iterator[tuple[Reason, Mask]]:
        """The cells that a policy's rules allow, each for the first rule that does."""
        left = self._everything
        for rule in policy.rules:
            mask = left & self._cells(policy, rule.name, rules, peer)
            if rule.direction is direction and mask.any():
                yield _of(policy, Effect.ALLOWS, rule), mask
                left = left & ~mask

    def _cells(
        self, policy: KubernetesPolicy, name: str, rules: Sequence[OrderedRule], peer: int
    ) -> Mask:
        """The cells that a rule of a policy speaks of towards a peer."""
        found = np.zeros_like(self._everything)
        for rule in rules:
            if (rule.decision.policy, rule.decision.rule) == (policy.display, name):
                peers, ports = self._read.spoken_of(rule)
                if peers[peer]:
                    found |= ports
        return found

    def _denies(
        self,
        policy: KubernetesPolicy,
        rules: Sequence[OrderedRule],
        direction: Direction,
        peer: int,
    ) -> Reason:
        """How far a policy came to allowing: told is its first rule that names the peer."""
        listed = [one for one in policy.rules if one.direction is direction]
        for rule in listed:
            named = self._read.layer.resolve(rule.peers, rule.action)
            if self._read.peers(named)[peer]:
                known = self._cells(policy, rule.name, rules, peer).any()
                return _of(policy, Effect.OMITS_PORTS if known else Effect.UNKNOWN_PORT_NAME, rule)
        return _of(policy, Effect.OMITS_PEER if listed else Effect.HAS_NO_RULES)

    def _published(
        self, inbound: _Decided, by: Mapping[Publisher, Iterable[int]]
    ) -> Iterator[tuple[End, Mask]]:
        """What the end decides where, besides, an Ingress or Route has to publish the port."""
        publishers = sorted(by)
        masks = np.array([self._read.single_ports(by[one]) for one in publishers])
        for end, cells in inbound:
            for which, mask in _alike(masks, cells):
                effect = Effect.PUBLISHES if which else Effect.PUBLISHES_OTHER_PORTS
                told = tuple(
                    Reason(one.kind, one.name, effect, service=one.service)
                    for at, one in enumerate(publishers)
                    if at in which or not which
                )
                yield End(end.allowed and bool(which), end.reasons + told), mask


def _alike(masks: Mask, cells: Mask) -> Iterator[tuple[list[int], Mask]]:
    """The cells in groups: those of which the same masks, by number, hold."""
    if not len(masks):
        yield [], cells
        return
    columns, group = np.unique(masks[:, cells], axis=1, return_inverse=True)
    at = np.flatnonzero(cells)
    for number, column in enumerate(columns.T):
        mask = np.zeros_like(cells)
        mask[at[group.ravel() == number]] = True
        yield np.flatnonzero(column).tolist(), mask


def _of(policy: KubernetesPolicy, effect: Effect, rule: PolicyRule | None = None) -> Reason:
    name = "/".join(part for part in (policy.namespace, policy.name) if part)
    return Reason(policy.kind, name, effect, _title(rule) if rule else "")


def _title(rule: PolicyRule) -> str:
    """What the author calls the rule, else its number among those of its direction, from 1."""
    return rule.title or f"#{int(rule.name[rule.name.index('[') + 1 : -1]) + 1}"
