"""What lint tells: kinds of findings, and findings."""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.ids import PolicyId, WorkspaceName


class Oddity(StrEnum):
    """The kinds of findings."""

    SHADOWED = "shadowed"
    CONTRADICTORY = "contradictory"
    REDUNDANT = "redundant"
    TOO_BROAD = "too-broad"
    UNUSED = "unused"
    EXPIRED = "expired"
    EXPIRING = "expiring"
    MATCHES_NOTHING = "matches-nothing"
    NO_SUCH_SERVICE = "no-such-service"


ODDITIES = {
    Oddity.SHADOWED: "Policies that are read before decide all its connections, as it says.",
    Oddity.CONTRADICTORY: "Policies before decide all its connections, and not as it says.",
    Oddity.REDUNDANT: "What would decide in its place says the same.",
    Oddity.TOO_BROAD: "It allows any port to or from everybody.",
    Oddity.UNUSED: "No connection was observed that it decides.",
    Oddity.EXPIRED: "It counts no more.",
    Oddity.EXPIRING: "Soon it counts no more.",
    Oddity.MATCHES_NOTHING: "Something that it names is nothing: an end, a port, an exception.",
    Oddity.NO_SUCH_SERVICE: "The inventory has no such Service.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about a policy; `others` are policies, WORKSPACE/POLICY, that make it so."""

    kind: Oddity
    workspace: WorkspaceName
    policy: PolicyId
    why: str
    others: tuple[str, ...] = ()
