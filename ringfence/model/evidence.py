"""What was seen that a policy was proposed for; it is for people, and decides nothing."""

from dataclasses import dataclass

from ringfence.model.errors import InputError


@dataclass(frozen=True, slots=True)
class Evidence:
    """Conversations of one kind, in how many slots of time, and how sure that makes.

    `sources` counts the distinct consumers, `bytes` go both ways, first and last are epoch ns.
    `confidence` is from 0 to 1; `why` says why the policy is as broad as it is.
    """

    conversations: int
    intervals: int
    sources: int
    bytes: int
    first_ns: int
    last_ns: int
    confidence: float
    why: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise InputError("confidence is a number from 0 to 1")
        if min(self.conversations, self.intervals, self.sources, self.bytes) < 0:
            raise InputError("conversations, intervals, sources and bytes are counts, from 0 on")
