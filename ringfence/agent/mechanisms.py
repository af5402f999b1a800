"""The mechanisms of the kernel that rules can be written in, and which one a node takes."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from ringfence.agent.enforce import Enforcer
from ringfence.agent.errors import AgentError
from ringfence.agent.inspect import Inspect, inspect, inspect_iptables
from ringfence.kernel import iptables, nft
from ringfence.kernel.nft_watch import MANGLE, TableWatch
from ringfence.kernel.rules import Door, Watch
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
    """What writes rules, loads and lists them, reads the list for the proof, and tells of it."""

    backend: Callable[..., Backend]
    """Makes one; given a salt, of an agent whose sets stand beside those of the one before."""
    door: Door
    read: Reader
    inspect: Inspect
    listen: Callable[[Path], Watch] | None = None
    """Hears of changes, where the mechanism tells of them."""


def _ipsets(salt: bytes = b"") -> Iptables:  # noqa: ARG001 - named for what they hold, for ever
    return Iptables()


def _iptables(
    variant: iptables.Iptables, listen: Callable[[Path], Watch] | None = None
) -> Mechanism:
    asks = partial(inspect_iptables, variant)
    return Mechanism(_ipsets, variant, reading_iptables.read, asks, listen)


MECHANISMS = {
    Kind.NFTABLES: Mechanism(Nftables, nft, reading.read, inspect, TableWatch),
    Kind.IPTABLES_NFT: _iptables(iptables.NFT, partial(TableWatch, tables=MANGLE)),
    Kind.IPTABLES_LEGACY: _iptables(iptables.LEGACY),
}
_FIRST_CHOICES = (Kind.NFTABLES, Kind.IPTABLES_LEGACY)
"""Where nothing was said. Whoever has iptables-nft has nftables."""


def choose(name: str) -> Kind:
    """The one of this name, empty for the first that the machine has; raises AgentError."""
    try:
        wanted = (Kind(name),) if name else _FIRST_CHOICES
    except ValueError:
        raise AgentError(f"{name!r} is no back end: write {', '.join(Kind)}, or nothing") from None
    for kind in wanted:
        if MECHANISMS[kind].door.usable():
            return kind
    raise AgentError(
        f"this machine has no {' and no '.join(wanted)}: nftables needs its library (libnftables1),"
        " iptables its tools, ipset and the capability NET_RAW, and both the kernel's support"
    )


def enforcer(kind: Kind) -> Enforcer:
    """What writes rules with this mechanism, and takes away what others left."""
    chosen = MECHANISMS[kind]
    rest = tuple(one.door for other, one in MECHANISMS.items() if other is not kind)
    return Enforcer(
        chosen.backend(secrets.token_bytes(8)), chosen.door, chosen.read, rest, chosen.listen
    )
