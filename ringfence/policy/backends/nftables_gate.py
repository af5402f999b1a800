"""The gate before new pods, in the node's table.

Of whatever has an address of the node's pods, only what was released passes, and only by the
interface that it was released behind: who comes to its address later finds the gate shut. What
such addresses send meets it where the node forwards and where it receives; what they are sent, by
the node too, in postrouting, since only there the node's own packets have been through DNAT.
Nothing established is spared: the node may remember connections of an address's last holder.
Neighbours may be found, but not through the node, where the hop limit is one less.

A link-local address is no pod's more than anybody's. So what says such a thing to the node, or is
told so by it, passes where its interface is of no kind that leads to pods, or was released.

The rules themselves name the networks: what a set of ranges holds shows an instant after the rules
that ask it, and here an empty one would be an open gate.
"""

import re
from collections.abc import Iterable

from ringfence.model.address import format_address, is_v4
from ringfence.model.policy import Direction
from ringfence.policy.backends.interface import UnsupportedError
from ringfence.policy.backends.nftables_table import (
    FAMILIES,
    FROM_LOOPBACK,
    NEIGHBOURS,
    TO_LOOPBACK,
    Family,
    Table,
    elements_of,
)
from ringfence.policy.handle import NEW_POD
from ringfence.policy.program import LINK_LOCAL, LINKS_TO_PODS, Gate, Passage

_RELEASED = tuple(f"rf_released_{family.number}" for family in FAMILIES)
_LINKS = "rf_released_links"
RELEASED = (*_RELEASED, _LINKS)
"""The sets of what may pass."""
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_ENDS = {
    Direction.OUTBOUND: ("from", "saddr", "iif"),
    Direction.INBOUND: ("to", "daddr", "oif"),
}


def write_gate(table: Table, gate: Gate, released: Iterable[Passage]) -> None:
    """Write the gate's chains and sets; raises UnsupportedError."""
    passages = sorted(released)
    for family, name in zip(FAMILIES, _RELEASED, strict=True):
        kind = family.type
        elements = frozenset(_element(one) for one in passages if _of_family(one, family))
        table.own_set(name, f"type ifname . {kind};", elements)
    links = frozenset(interface(one.interface) for one in passages if _is_link(one))
    table.own_set(_LINKS, "type ifname;", links)
    sent, received = (_jumps(gate, direction) for direction in _ENDS)
    from_link, to_link = (_link(table, direction) for direction in _ENDS)
    table.base_chain("gate_forward", "forward", sent)
    table.base_chain("gate_input", "input", (FROM_LOOPBACK, *NEIGHBOURS, *sent, from_link))
    table.base_chain("gate_to", "postrouting", (TO_LOOPBACK, *NEIGHBOURS, *received, to_link))
    for direction, (way, end, by) in _ENDS.items():
        for family, name in zip(FAMILIES, _RELEASED, strict=True):
            released_by = f"{by}name . {family.header} {end} @{name}"
            shut = table.denied(NEW_POD, direction)
            table.chain(f"gate_{way}_{family.number}", (f"{released_by} return", shut))


def _jumps(gate: Gate, direction: Direction) -> tuple[str, ...]:
    way, end, _ = _ENDS[direction]
    return tuple(
        f"{family.header} {end} {network} jump rf_gate_{way}_{family.number}"
        for family in FAMILIES
        for network in sorted(elements_of(gate.networks, family))
    )


def _link(table: Table, direction: Direction) -> str:
    _, end, by = _ENDS[direction]
    kinds = ", ".join(f'"{kind}"' for kind in LINKS_TO_PODS)
    to_pods = f"meta {by}kind {{ {kinds} }} {by}name != @{_LINKS}"
    return f"ip6 {end} {LINK_LOCAL} {to_pods} {table.denied(NEW_POD, direction)}"


def _of_family(passage: Passage, family: Family) -> bool:
    return is_v4(passage.address) == (family.header == "ip") and not _is_link(passage)


def _is_link(passage: Passage) -> bool:
    return passage.address == LINK_LOCAL.address


def _element(passage: Passage) -> str:
    return f"{interface(passage.interface)} . {format_address(passage.address)}"


def interface(name: str) -> str:
    """The name of an interface as nftables reads it; raises UnsupportedError."""
    if not _INTERFACE.fullmatch(name):
        raise UnsupportedError(f"interface {name!r}: not a name that nftables takes")
    return f'"{name}"'
