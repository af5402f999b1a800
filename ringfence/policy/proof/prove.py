"""Whether rules read back from a kernel let through what the policy says, and nothing else."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ringfence.policy.errors import UnprovableError
from ringfence.policy.program import (
    NO_GUARDED,
    Guarded,
    NodeBinding,
    NodePolicy,
    Passage,
    PodBinding,
)
from ringfence.policy.proof.classes import disagreement
from ringfence.policy.proof.matches import Json
from ringfence.policy.proof.meaning import meaning, own_numbers
from ringfence.policy.proof.packets import Outcome, Packet, Table, judge
from ringfence.policy.proof.reading import read as read_nft
from ringfence.policy.proof.shared import Agreed

Reader = Callable[[Iterable[Json], int], Table]
"""Reads what a kernel lists, as far as packets of one family meet it; raises UnprovableError."""
_FAMILIES = (4, 6)
_MOST_PACKETS = 200
"""Packets that are looked at to name what differs."""
_MOST_TOLD = 4
_WORDS = {
    Outcome.ACCEPT: "lets it pass",
    Outcome.DROP: "drops it",
    Outcome.RESET: "resets it",
    Outcome.PROHIBITED: "rejects it",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet that meets something else in the kernel than its policy says."""

    hook: str
    packet: Packet
    kernel: Outcome
    rule: str
    policy: Outcome
    handle: str

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.hook}: {self.packet}: the kernel {_tell(self.kernel)} by {self.rule},"
            f" the policy {_tell(self.policy)} by {self.handle}"
        )


def _tell(outcome: Outcome) -> str:
    """What may happen, as people say it."""
    return " or ".join(words for one, words in _WORDS.items() if one in outcome)


@dataclass(frozen=True, slots=True)
class Proof:
    """All packets in classes, and where kernel and policy differ: one for each pair of rules."""

    classes: int
    differing: int
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        """What is wrong, for people; empty if nothing is."""
        if not self.differing:
            return ""
        told = "; ".join(map(str, self.differences))
        return f"{self.differing} of {self.classes} classes of packets differ: {told}"


def prove(
    policy: NodePolicy,
    binding: PodBinding | NodeBinding,
    listed: Iterable[Json],
    read: Reader = read_nft,
    released: Collection[Passage] = (),
    guarded: Guarded = NO_GUARDED,
    agreed: Agreed | None = None,
) -> Proof:
    """Hold the rules of one namespace, as the kernel lists them, against what its binding means.

    Through the node's gate goes what was `released`; pods are `guarded` at these interfaces.
    What is among the `agreed` is not looked at again, nor are its classes counted.
    Raises UnprovableError where the table holds anything whose meaning is not known: then nothing
    is proved.
    """
    objects = list(listed)
    sockets = (one["packet_sockets"] for one in objects if "packet_sockets" in one)
    if isinstance(binding, PodBinding) and not all(one["closed"] for one in sockets):
        raise UnprovableError("packet sockets may send past the rules")
    classes = differing = 0
    found: dict[tuple[str, str, str], Difference] = {}
    for family in _FAMILIES:
        kernel, means = read(objects, family), meaning(policy, binding, family, released, guarded)
        own = own_numbers(binding, family)
        for hook in sorted({*kernel.hooks, *means.hooks}):
            if agreed and agreed.agree(kernel, means, hook, own):
                continue
            told = disagreement(kernel, means, hook, _MOST_PACKETS)
            classes, differing = classes + told.classes, differing + told.differing
            for packet in told.packets:
                (does, rule), (should, handle) = (judge(t, hook, packet) for t in (kernel, means))
                difference = Difference(hook, packet, does, rule, should, handle)
                found.setdefault((hook, rule, handle), difference)
    return Proof(classes, differing, tuple(found.values())[:_MOST_TOLD])
