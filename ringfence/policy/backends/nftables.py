"""Policy as nftables rules, in a table of our own beside everybody else's.

Base chains sit at priority -150: after conntrack (-200), without which `ct state` matches
nothing, and before NAT (-100) and every rule of filter priority. An `accept` here ends our own
base chain only, so other tables still have their say; a `drop` is final.

Every packet walks a base chain in this order: established connections and errors about them
pass; fail-safes pass; TCP packets that do not open a connection are dropped, since conntrack
would otherwise adopt the rest of a connection that was cut; then the program of the packet's
family decides (`nftables_table.py`).
"""

from collections.abc import Iterable, Sequence

from ringfence.model.address import Address, format_address, is_v4
from ringfence.model.policy import Direction
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables_table import (
    FAMILIES,
    TABLE,
    Family,
    Programs,
    Table,
    protocol_match,
)
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import Exposure, NodePolicy, PodBinding, ProgramId

PRIORITY = -150

_ESTABLISHED = (
    "ct state established accept",
    # Only errors: a connection that a protocol helper expects is judged like any other.
    "ct state related meta l4proto { icmp, ipv6-icmp } accept",
)
# RFC 4890 section 4.4.1: traffic that must not be dropped, with the hop limits of RFC 4861
# and RFC 2710.
_NEIGHBOURS = (
    (
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit,"
        " nd-neighbor-advert } ip6 hoplimit 255 accept"
    ),
    (
        "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done,"
        " mld2-listener-report } ip6 hoplimit 1 accept"
    ),
)
_PATH_MTU = (
    "icmp type destination-unreachable icmp code frag-needed accept",
    "icmpv6 type packet-too-big accept",
)
_DHCP = {
    Direction.INBOUND: (
        "meta nfproto ipv4 udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
    ),
    Direction.OUTBOUND: (
        "meta nfproto ipv4 udp sport 68 udp dport 67 accept",
        "ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept",
    ),
}
# The answer to a connection that is rejected: only errors, and resets, are made in its name.
_OWN_RESET = "ct state related tcp flags & rst == rst accept"
# By their type: a privileged pod can give any interface the name of the loopback.
_FROM_LOOPBACK, _TO_LOOPBACK = "meta iiftype loopback accept", "meta oiftype loopback accept"
_OPENS_NOTHING = "tcp flags & (fin | syn | rst | ack) != syn"


class Nftables:
    """The back end for kernels with nftables' inet family."""

    def __init__(self) -> None:
        self._programs: Programs | None = None

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        """The rules of a pod's namespace; raises UnsupportedError."""
        table = self._table(policy)
        for hook, direction, programs in (
            ("input", Direction.INBOUND, binding.inbound),
            ("output", Direction.OUTBOUND, binding.outbound),
        ):
            if programs:
                safe = _fail_safes(direction, binding.addresses, policy.control_plane)
                _own_end(table, hook, direction, programs, safe)
        return table.ruleset()

    def render_node(self, policy: NodePolicy) -> Ruleset:
        """The rules of the node's own namespace; raises UnsupportedError."""
        table, binding = self._table(policy), policy.binding
        for hook, direction, program, rules in (
            ("input", Direction.INBOUND, binding.inbound, binding.fail_safes_in),
            ("output", Direction.OUTBOUND, binding.outbound, binding.fail_safes_out),
        ):
            if program is not None:
                safe = _fail_safes(direction, binding.addresses, policy.control_plane)
                stated = (table.rule(rule, direction, f) for rule in rules for f in FAMILIES)
                _own_end(table, hook, direction, (program,), dict.fromkeys((*safe, *stated)))
        if binding.received is not None:
            _received(table, binding.received, binding.exposures, policy.control_plane)
        return table.ruleset()

    def transaction(self, desired: Ruleset, previous: Ruleset | None) -> str:
        """The nft commands from `previous` to `desired`: set elements alone where that does.

        Another's tables are never touched.
        """
        if previous is None or previous.frame != desired.frame:
            fresh = "".join(_change("add", name, held) for name, held in desired.sets.items())
            # Adding it first makes the deletion of a table that may not be there succeed.
            return f"add table {TABLE}\ndelete table {TABLE}\n{desired.frame}{fresh}"
        changed = [(name, previous.sets[name], held) for name, held in desired.sets.items()]
        gone = "".join(_change("delete", name, old - new) for name, old, new in changed)
        return gone + "".join(_change("add", name, new - old) for name, old, new in changed)

    def _table(self, policy: NodePolicy) -> Table:
        if self._programs is None or self._programs.policy is not policy:
            self._programs = Programs(policy)
        return Table(self._programs)


def _own_end(
    table: Table,
    hook: str,
    direction: Direction,
    programs: Sequence[ProgramId],
    fail_safes: Iterable[str],
) -> None:
    """The chains that judge what the namespace itself opens or is sent, by each program.

    What one allows is for the next to judge: it returns, and the last one accepts.
    """
    away = f"{_OPENS_NOTHING} {table.denied(MID_STREAM, direction)}"
    *before, last = (hook if not at else f"{hook}_then{at}" for at in range(len(programs)))
    to_programs = [
        _by_family(family, f"{verb} rf_{name}_{family.number}")
        for name, verb in (*((name, "jump") for name in before), (last, "goto"))
        for family in FAMILIES
    ]
    _base_chain(table, hook, hook, (*_ESTABLISHED, *fail_safes, away, *to_programs))
    for name, program in zip((*before, last), programs, strict=True):
        table.program(name, direction, program, "accept" if name == last else "return")


def _received(
    table: Table,
    program: ProgramId,
    exposures: Iterable[Exposure],
    control_plane: Iterable[tuple[Address, int]],
) -> None:
    """The chains that judge, before DNAT, what the node is sent or dials for Services."""
    judged = [_exposure(table, exposed, f) for exposed in exposures for f in FAMILIES]
    safe = (*_ESTABLISHED, *_control_plane(control_plane))
    _base_chain(table, "received", "prerouting", (*safe, *judged))
    _base_chain(table, "received_local", "output", (*safe, *judged))
    table.program("received", Direction.INBOUND, program)


def _exposure(table: Table, exposed: Exposure, family: Family) -> str:
    where = (
        _by_family(family, "fib daddr type local")
        if exposed.local is None
        else f"{family.header} daddr @{table.set_name(exposed.local, family)}"
    )
    dialled = protocol_match(exposed.protocol, exposed.ports)
    return f"{where} {dialled} goto rf_received_{family.number}"


def _base_chain(table: Table, name: str, hook: str, lines: Iterable[str]) -> None:
    head = f"type filter hook {hook} priority {PRIORITY}; policy accept;"
    table.chain(name, (head, *lines))


def _by_family(family: Family, rest: str) -> str:
    return f"meta nfproto ipv{family.number} {rest}"


def _fail_safes(
    direction: Direction,
    addresses: tuple[Address, ...],
    control_plane: tuple[tuple[Address, int], ...],
) -> tuple[str, ...]:
    """What passes whatever the policy says, for the holder of the addresses."""
    always = (*_NEIGHBOURS, *_PATH_MTU, *_DHCP[direction])
    if direction is Direction.OUTBOUND:
        return (_OWN_RESET, _TO_LOOPBACK, *always, *_control_plane(control_plane))
    own = tuple(
        f"{header} saddr {text} {header} daddr {text} accept"
        for header, text in map(_header, addresses)
    )
    held_here = (end for end in control_plane if end[0] in addresses)
    return (_FROM_LOOPBACK, *own, *always, *_control_plane(held_here))


def _control_plane(ends: Iterable[tuple[Address, int]]) -> tuple[str, ...]:
    return tuple(
        f"{header} daddr {text} tcp dport {port} accept"
        for address, port in ends
        for header, text in (_header(address),)
    )


def _header(address: Address) -> tuple[str, str]:
    return ("ip" if is_v4(address) else "ip6"), format_address(address)


def _change(verb: str, name: str, elements: frozenset[str]) -> str:
    if not elements:
        return ""
    return f"{verb} element {TABLE} {name} {{ {', '.join(sorted(elements))} }}\n"
