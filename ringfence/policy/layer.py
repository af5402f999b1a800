"""Layers: the form that every source of policy takes before anything is judged by it.

A layer is a list of stages, a stage a list of rules in order. Within a stage the first rule that
matches counts: ALLOW and DENY end the matter for the layer, PASS leaves it to the next stage. What
a stage ends with for a workload and direction is a rule too, the last one, of everyone. An end is
allowed only if each layer that governs it allows.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import Decision
from ringfence.policy.ends import ANYONE, ResolvedEnd


@dataclass(frozen=True)
class OrderedRule:
    """One rule at its place (`decision.place`) in the order.

    `members` are the positions at which it decides. `direction` is None for a policy, which
    decides in both: outbound at its consumer, inbound at its provider. `ports` are destination
    ports, those of the Service where the provider is one; of ICMP, type * 256 + code. A policy
    may come to several rules, next to each other: they share their decision, and so its place.
    """

    decision: Decision
    members: BitMap
    consumer: ResolvedEnd = ANYONE
    provider: ResolvedEnd = ANYONE
    protocol: int | None = None
    ports: tuple[PortRange, ...] = ()
    direction: Direction | None = None
    expires_ns: int | None = None
    """When it ceases to be one, epoch ns."""
    rejects: bool = False
    """Whether what it denies is answered."""

    @property
    def action(self) -> Action:
        """What the rule says."""
        return self.decision.action

    @property
    def identity(self) -> Hashable:
        """What tells it from all other rules, wherever in the order it stands."""
        parts = self.consumer.part, self.provider.part
        return replace(self.decision, place=0), self.direction, parts

    def decides(self, direction: Direction) -> bool:
        """Whether the rule takes part in that direction."""
        return self.direction in (None, direction)


class RuleLayer(Protocol):
    """What the evaluators judge by."""

    @property
    def snapshot(self) -> Snapshot:
        """The inventory whose positions the rules name."""

    @property
    def rules(self) -> tuple[OrderedRule, ...]:
        """All rules in order; those of one stage stand together."""

    @property
    def governed(self) -> BitMap:
        """The positions of the workloads that the layer decides for."""

    @property
    def own_nodes(self) -> NDArray[np.int32]:
        """For each position that of its node; see `ends.own_nodes`."""
