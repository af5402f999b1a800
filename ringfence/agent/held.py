"""What the agent knows of the rules in one namespace, and what came of an order as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ringfence.agent.plan import bindings
from ringfence.agent.pods import Place
from ringfence.kernel.rules import Listing
from ringfence.policy.backends.interface import Denial, Ruleset
from ringfence.policy.errors import UnprovableError
from ringfence.policy.program import NO_GUARDED, Guarded, NodePolicy, Passage
from ringfence.policy.proof.prove import Reader, prove
from ringfence.policy.proof.shared import Agreed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an order: the pods whose rules are in force, and what went wrong where."""

    revision: int
    programmed: frozenset[str]
    problems: Mapping[Place, str]

    @property
    def problem(self) -> str:
        """Why the order is not in force everywhere; empty where it is."""
        if not self.problems:
            return ""
        told = "; ".join(sorted(set(self.problems.values())))
        return f"revision {self.revision} is not in force in {len(self.problems)} places: {told}"


@dataclass(frozen=True, slots=True)
class Asked:
    """By whose words rules were written: a policy, and whom the node knew then."""

    policy: NodePolicy
    released: frozenset[Passage] = frozenset()
    guarded: Guarded = field(default_factory=lambda: NO_GUARDED)

    def refuted(self, place: Place, table: Listing, read: Reader, agreed: Agreed) -> str:
        """Why what a namespace holds is not proved to be what was asked; empty if it is."""
        binding = bindings(self.policy).get(place.uid)
        if binding is None:
            return ""
        try:
            known = self.released, self.guarded, agreed
            return str(prove(self.policy, binding, table, read, *known))
        except UnprovableError as error:
            return f"not proved: {error}"


@dataclass(slots=True)
class Held:
    """What a namespace was found or made to hold; `ruleset` None means nothing of ours."""

    ruleset: Ruleset | None
    asked: Asked | None = None
    """What the rules are held against: where newer ones are refused, it stays."""
    frame: bytes = b""
    """Fingerprint of the table but for what its sets hold, as it was read back; empty before."""
    whole: bytes = b""
    """Fingerprint of the table with the elements of its sets."""
    denials: Mapping[int, Denial] = field(default_factory=dict)
    """By the marks in drop sets, those too that there were since the last reading."""
    problem: str = ""
    """Why what was read back is not proved to be what was asked; empty if it is."""
