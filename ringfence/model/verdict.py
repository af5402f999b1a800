"""Verdicts: what each end of a connection decides, and which policy made it so."""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.ids import ItemKey, PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, Direction


class Layer(StrEnum):
    """A source of policy; every layer that governs an end must allow."""

    RINGFENCE = "ringfence"
    KUBERNETES = "kubernetes"


class Stage(StrEnum):
    """A list of rules within a layer."""

    ABSOLUTE = "absolute"
    DEFAULT = "default"
    CATCH_ALL = "catch-all"
    ADMIN = "admin"
    NETWORK_POLICY = "network-policy"
    BASELINE = "baseline"


class EndRole(StrEnum):
    """Which end decides; NODE is the receiving node of a NodePort, LoadBalancer or hostPort."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Decision:
    """One rule that matched. `policy` is None for a catch-all; `place` counts from 0 in order."""

    layer: Layer
    stage: Stage
    scope: ScopeName
    workspace: WorkspaceName
    version: Version
    policy: PolicyId | None
    place: int
    action: Action


@dataclass(frozen=True, slots=True)
class EndVerdict:
    """What one end decides: every matching rule in order; the first one counts.

    An end that nothing governs has no decisions and does not decide.
    """

    role: EndRole
    direction: Direction
    workload: ItemKey
    matching: tuple[Decision, ...]

    @property
    def deciding(self) -> Decision | None:
        """The rule that counts, None for an end that is not governed."""
        return self.matching[0] if self.matching else None

    @property
    def denies(self) -> bool:
        """Whether this end stops the connection."""
        return bool(self.matching) and self.matching[0].action is Action.DENY


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one connection: it passes only if no end denies it."""

    ends: tuple[EndVerdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether the connection passes."""
        return not any(end.denies for end in self.ends)
