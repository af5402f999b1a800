"""Repairs of rules that another had changed at a node, as its agent tells them."""

from dataclasses import dataclass
from enum import StrEnum


class Damage(StrEnum):
    """What another had done to the rules of a namespace."""

    TAKEN_AWAY = "taken away"
    RULES = "rules changed"
    SETS = "sets changed"
    UNPROVED = "not what was asked"


@dataclass(frozen=True, slots=True)
class Repair:
    """The last one of a namespace; `uid` is its pod's, empty for the node's own."""

    uid: str
    damage: Damage
    at_ns: int
    """When the rules were whole again, epoch ns."""
    times: int
    """How often since the agent's start."""
