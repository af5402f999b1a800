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
    """A list of rules within a layer; FAIL_SAFE is none: it passes what every layer denies."""

    ABSOLUTE = "absolute"
    DEFAULT = "default"
    CATCH_ALL = "catch-all"
    ADMIN = "admin"
    NETWORK_POLICY = "network-policy"
    BASELINE = "baseline"
    FAIL_SAFE = "fail-safe"


class EndRole(StrEnum):
    """Which end decides; NODE is the receiving node of a NodePort or LoadBalancer."""

    CONSUMER = "consumer"
    PROVIDER = "provider"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Decision:
    """One rule that matched. `policy` is None for what no policy says; `place` counts from 0.

    In the Kubernetes layer `policy` is `kind/namespace/name`, `rule` the rule of it that matched,
    such as `ingress[0]`, empty where the policy decides as a whole. There is no scope, and
    workspace and version only of policies that were imported. A fail-safe has none of these and
    names itself in `rule`.
    """

    layer: Layer
    stage: Stage
    scope: ScopeName
    workspace: WorkspaceName
    version: Version
    policy: PolicyId | None
    place: int
    action: Action
    rule: str = ""


@dataclass(frozen=True, slots=True)
class EndVerdict:
    """What one end decides: every matching rule in order, layer after layer.

    Of a layer the first one counts, but PASS leaves the matter to the first of a later stage, and
    LOG is told only.
    An end that nothing governs has no decisions and does not decide.
    """

    role: EndRole
    direction: Direction
    workload: ItemKey
    matching: tuple[Decision, ...]

    @property
    def deciding(self) -> Decision | None:
        """The rule that counts, one that denies before others; None for an end not governed."""
        counting = [one for one in map(self.deciding_in, Layer) if one]
        return next((one for one in counting if one.action is Action.DENY), None) or next(
            iter(counting), None
        )

    @property
    def denies(self) -> bool:
        """Whether this end stops the connection."""
        return any(one and one.action is Action.DENY for one in map(self.deciding_in, Layer))

    def deciding_in(self, layer: Layer) -> Decision | None:
        """The rule of the layer that counts, None if the layer does not govern the end."""
        passed: set[Stage] = set()
        for decision in self.matching:
            if decision.layer is not layer or decision.stage in passed:
                continue
            if decision.action is Action.LOG:
                continue
            if decision.action is not Action.PASS:
                return decision
            passed.add(decision.stage)
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one connection: it passes only if no end denies it."""

    ends: tuple[EndVerdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether the connection passes."""
        return not any(end.denies for end in self.ends)
