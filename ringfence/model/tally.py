"""How many conversations of a time a version of policies met with which verdict."""

from dataclasses import dataclass, replace

from ringfence.model.flow import Category
from ringfence.model.verdict import Decision, EndRole

UNTOWARD = (Category.ESCAPED, Category.MISDROPPED)
"""What ought not to be where the version is enforced."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why conversations got the verdict that they got: of what makes many one.

    `rules` are the deciding rules by end, wherever in the order they stood (their `place` is 0).
    The ends' roles, protocol and port are told of `UNTOWARD` categories alone.
    """

    category: Category
    rules: tuple[tuple[EndRole, Decision], ...]
    consumer: str = ""
    provider: str = ""
    protocol: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Conversations of one cause, and when the last one was seen, epoch ns."""

    cause: Cause
    conversations: int
    last_ns: int


def placeless(decision: Decision) -> Decision:
    """The rule, wherever in the order it stands."""
    return replace(decision, place=0)
