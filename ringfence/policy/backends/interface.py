"""What every back end does: write a node's policy as rules of one kernel mechanism.

A back end is pure. It renders one ruleset for each network namespace, and the smallest
transaction that leads from one ruleset to the next; what it cannot express it refuses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ringfence.model.policy import Direction
from ringfence.policy.errors import PolicyError
from ringfence.policy.program import NO_GUARDED, Guarded, NodePolicy, Passage, PodBinding


class UnsupportedError(PolicyError):
    """A back end cannot express a rule; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class Denial:
    """What drops: a rule of a program, or one of the back end's own, by its handle."""

    handle: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of one namespace: `frame` is all but the elements of `sets`, by set name.

    It is empty where nothing is governed.
    Tuples that it drops are collected in `drop_sets`, each with the mark of what dropped it.
    How those sets are declared that are made ahead of the rules, `ahead` tells.
    """

    frame: str
    sets: Mapping[str, frozenset[str]]
    drop_sets: tuple[str, ...]
    denials: Mapping[int, Denial]
    ahead: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """One kernel mechanism."""

    @property
    def keeps_drops(self) -> bool:
        """Whether drop sets that stay keep what they hold when the frame changes."""

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        """The rules of a pod's namespace; raises UnsupportedError."""

    def render_node(
        self, policy: NodePolicy, released: Iterable[Passage] = (), guarded: Guarded = NO_GUARDED
    ) -> Ruleset:
        """The rules of the node's own namespace; raises UnsupportedError.

        The gate lets through what was `released`, and nothing else of its networks. What comes
        and goes by an interface of a `guarded` pod is judged by the pod's programs.
        """

    def sayable(self, policy: NodePolicy) -> NodePolicy:
        """The policy as the back end can express it, where what it leaves out is told of as wider.

        What it renders is proved against this one.
        """

    def transaction(self, desired: Ruleset, previous: Ruleset | None) -> str:
        """Commands that lead from `previous`, None if unknown, to `desired`, all or nothing.

        Empty if there is nothing to do.
        """

    def text(self, ruleset: Ruleset) -> str:
        """The rules as people read them and compare them with others."""
