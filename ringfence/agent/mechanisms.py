"""The mechanisms of the kernel that rules can be written in, and which one a node takes."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ringfence.agent.errors import AgentError
from ringfence.kernel import iptables, nft
from ringfence.kernel.rules import Door
from ringfence.policy.backends.interface import Backend
from ringfence.policy.backends.iptables import Iptables
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.proof import reading, reading_iptables
from ringfence.policy.proof.prove import Reader


class Kind(StrEnum):
    """What the agent may be told to write rules with."""

    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What writes rules, what loads and lists them, and what reads the list for the proof."""

    backend: Callable[[], Backend]
    door: Door
    read: Reader


MECHANISMS = {
    Kind.NFTABLES: Mechanism(Nftables, nft, reading.read),
    Kind.IPTABLES_NFT: Mechanism(Iptables, iptables.NFT, reading_iptables.read),
    Kind.IPTABLES_LEGACY: Mechanism(Iptables, iptables.LEGACY, reading_iptables.read),
}
_FIRST_CHOICES = (Kind.NFTABLES, Kind.IPTABLES_LEGACY)
"""Where nothing was said. Whoever has iptables-nft has nftables."""


def choose(kind: Kind | None) -> Kind:
    """The one that was asked for, else the first that the machine has; raises AgentError."""
    for each in (kind,) if kind else _FIRST_CHOICES:
        if MECHANISMS[each].door.usable():
            return each
    wanted = kind or "nftables, nor iptables with ipset"
    raise AgentError(
        f"this machine has no {wanted}: install nftables, or iptables and ipset, and give the"
        " kernel the modules that they need"
    )


def others(kind: Kind | None) -> tuple[Door, ...]:
    """The doors of the others that the machine has: a predecessor may have left rules there."""
    doors = (one.door for name, one in MECHANISMS.items() if name is not kind)
    return tuple(door for door in doors if door.usable())
