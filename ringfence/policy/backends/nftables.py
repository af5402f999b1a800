"""Policy as nftables rules, in a table of our own beside everybody else's.

Base chains sit at priority -150: after conntrack (-200), without which `ct state` matches
nothing, and before NAT (-100) and every rule of filter priority. An `accept` here ends our own
base chain only, so other tables still have their say; a `drop` is final.

Every packet walks a base chain in this order: established connections and errors about them
pass; fail-safes pass; TCP packets that do not open a connection are dropped, since conntrack
would otherwise adopt the rest of a connection that was cut; then the program of the packet's
family decides (`nftables_table.py`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

from ringfence.model.address import Address, format_address, is_v4
from ringfence.model.policy import Direction
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.marks import NO_PACKET_SOCKETS
from ringfence.policy.backends.nftables_behind import write_behind
from ringfence.policy.backends.nftables_gate import interface, write_gate
from ringfence.policy.backends.nftables_table import (
    FAMILIES,
    FROM_LOOPBACK,
    NEIGHBOURS,
    TABLE,
    TAG,
    TO_LOOPBACK,
    Family,
    Programs,
    Table,
)
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import (
    NO_GUARDED,
    Exposure,
    Guarded,
    NodePolicy,
    Passage,
    PodBinding,
    ProgramId,
)

_ESTABLISHED = (
    "ct state established accept",
    # Only errors: a connection that a protocol helper expects is judged like any other.
    "ct state related meta l4proto { icmp, ipv6-icmp } accept",
)
# A pod that sends to itself in another's name would make conntrack take what it then sends to that
# other for answers. What opens nothing may have foreign sources: proxies' answers, translated, and
# the resets by which rules reject.
# At the input hook `fib` does not know a link-local address for the pod's own.
_FOREIGN_LOOPBACK = "ct state new meta oiftype loopback fib saddr type != local drop"
# Of nodes and hosts alone: what renews a pod's lease within its namespace needs a policy.
_DHCP = {
    Direction.INBOUND: (
        "meta nfproto ipv4 udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
    ),
    Direction.OUTBOUND: (
        "meta nfproto ipv4 udp sport 68 udp dport 67 accept",
        *(
            f"ip6 daddr {to} udp sport 546 udp dport 547 accept"
            for to in ("fe80::/10", "ff02::1:2")
        ),
    ),
}
_INTERFACE = {Direction.OUTBOUND: "iifname", Direction.INBOUND: "oifname"}
# The answer to a connection that is rejected: only errors, and resets, are made in its name.
_OWN_RESET = "ct state related tcp flags & rst == rst accept"
_ASKED = re.compile(r"@(rf_\w+)")
_OPENS_NOTHING = "tcp flags & (fin | syn | rst | ack) != syn"


class Nftables:
    """The back end for kernels with nftables' inet family.

    With a salt of its own each process calls its sets otherwise than the one before, so that they
    are loaded beside those and not in their place.
    """

    keeps_drops = True

    def __init__(self, salt: bytes = b"") -> None:
        self._salt = salt
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
                base = partial(table.base_chain, hook, hook)
                if direction is Direction.OUTBOUND:
                    safe = (_FOREIGN_LOOPBACK, *safe)
                _own_end(base, table, hook, direction, programs, safe)
        ruleset = table.ruleset()
        return (
            replace(ruleset, frame=ruleset.frame + NO_PACKET_SOCKETS) if ruleset.frame else ruleset
        )

    def render_node(
        self, policy: NodePolicy, released: Iterable[Passage] = (), guarded: Guarded = NO_GUARDED
    ) -> Ruleset:
        """The rules of the node's own namespace; raises UnsupportedError."""
        table, binding = self._table(policy), policy.binding
        for hook, direction, program, rules in (
            ("input", Direction.INBOUND, binding.inbound, binding.fail_safes_in),
            ("output", Direction.OUTBOUND, binding.outbound, binding.fail_safes_out),
        ):
            if program is not None:
                safe = _fail_safes(direction, binding.addresses, policy.control_plane)
                stated = (table.rule(rule, direction, f) for rule in rules for f in FAMILIES)
                base = partial(table.base_chain, hook, hook)
                safe = tuple(dict.fromkeys((*safe, *_DHCP[direction], *stated)))
                _own_end(base, table, hook, direction, (program,), safe)
        if binding.received is not None:
            _received(table, binding.received, binding.exposures, policy.control_plane)
        write_behind(table, policy, _ESTABLISHED, guarded)
        if policy.gate is not None:
            write_gate(table, policy.gate, released)
        pods = [pod for pod in policy.pods if pod.guarded and guarded.get(pod.uid)]
        for hook, direction in (
            ("prerouting", Direction.OUTBOUND),
            ("postrouting", Direction.INBOUND),
        ):
            _guard(table, hook, direction, pods, guarded)
        return table.ruleset()

    def sayable(self, policy: NodePolicy) -> NodePolicy:
        """The whole policy."""
        return policy

    def transaction(self, desired: Ruleset, previous: Ruleset | None) -> str:
        """The nft commands from `previous` to `desired`: set elements alone where that does.

        Else the sets of ranges, named after the rules that are to ask them, and then those rules:
        the kernel shows what such a set holds an instant after rules of the same transaction.
        """
        tag = f"_{sha256(self._salt + desired.frame.encode()).hexdigest()[:TAG]}"
        if previous is None or previous.frame != desired.frame:
            return _whole(desired, tag, () if previous else desired.drop_sets)
        changed = [
            (_tagged(name, desired, tag), previous.sets[name], held)
            for name, held in desired.sets.items()
        ]
        gone = "".join(_change("delete", name, old - new) for name, old, new in changed)
        return gone + "".join(_change("add", name, new - old) for name, old, new in changed)

    def text(self, ruleset: Ruleset) -> str:
        """What is loaded where nothing is, but for what names sets after the rules."""
        return _whole(ruleset, "", ())

    def _table(self, policy: NodePolicy) -> Table:
        if self._programs is None or self._programs.policy is not policy:
            self._programs = Programs(policy)
        return Table(self._programs)


def _guard(
    table: Table,
    hook: str,
    direction: Direction,
    pods: Sequence[PodBinding],
    guarded: Guarded,
) -> None:
    """The chains by which the node judges what pods send, or are sent, by their interfaces.

    In prerouting and postrouting, where it has not been translated yet, and has been: as the pods'
    own namespaces see it, but for masquerading, which comes last. What is denied is dropped.
    """
    outbound = direction is Direction.OUTBOUND
    table.silent = True
    to_pods = []
    for place, pod in enumerate(pods):
        if programs := pod.outbound if outbound else pod.inbound:
            name = f"guard_{direction}_{place}"
            safe = _fail_safes(direction, pod.addresses, table.programs.policy.control_plane)
            _own_end(partial(table.chain, name), table, name, direction, programs, safe)
            names = sorted(map(interface, guarded[pod.uid]))
            to_pods.append(f"{_INTERFACE[direction]} {{ {', '.join(names)} }} goto rf_{name}")
    if to_pods:
        table.base_chain(f"guard_{direction}", hook, to_pods)


def _own_end(
    write: Callable[[Iterable[str]], None],
    table: Table,
    hook: str,
    direction: Direction,
    programs: Sequence[ProgramId],
    fail_safes: Iterable[str],
) -> None:
    """The chains that judge what the namespace itself opens or is sent, by each program.

    `write` writes the first one. What one allows is for the next to judge: it returns, and the
    last one accepts.
    """
    away = f"{_OPENS_NOTHING} {table.denied(MID_STREAM, direction)}"
    *before, last = (hook if not at else f"{hook}_then{at}" for at in range(len(programs)))
    to_programs = [
        _by_family(family, f"{verb} rf_{name}_{family.number}")
        for name, verb in (*((name, "jump") for name in before), (last, "goto"))
        for family in FAMILIES
    ]
    write((*_ESTABLISHED, *fail_safes, away, *to_programs))
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
    table.base_chain("received", "prerouting", (*safe, *judged))
    table.base_chain("received_local", "output", (*safe, *judged))
    table.program("received", Direction.INBOUND, program)


def _exposure(table: Table, exposed: Exposure, family: Family) -> str:
    where = (
        _by_family(family, "fib daddr type local")
        if exposed.local is None
        else f"{family.header} daddr @{table.set_name(exposed.local, family)}"
    )
    dialled = table.dialled(exposed.protocol, exposed.ports)
    return f"{where} {dialled} goto rf_received_{family.number}"


def _by_family(family: Family, rest: str) -> str:
    return f"meta nfproto ipv{family.number} {rest}"


def _fail_safes(
    direction: Direction,
    addresses: tuple[Address, ...],
    control_plane: tuple[tuple[Address, int], ...],
) -> tuple[str, ...]:
    """What passes whatever the policy says, for the holder of the addresses."""
    if direction is Direction.OUTBOUND:
        return (_OWN_RESET, TO_LOOPBACK, *NEIGHBOURS, *_control_plane(control_plane))
    own = tuple(
        f"{header} saddr {text} {header} daddr {text} accept"
        for header, text in map(_header, addresses)
    )
    held_here = (end for end in control_plane if end[0] in addresses)
    return (FROM_LOOPBACK, *own, *NEIGHBOURS, *_control_plane(held_here))


def _control_plane(ends: Iterable[tuple[Address, int]]) -> tuple[str, ...]:
    return tuple(
        f"{header} daddr {text} tcp dport {port} accept"
        for address, port in ends
        for header, text in (_header(address),)
    )


def _header(address: Address) -> tuple[str, str]:
    return ("ip" if is_v4(address) else "ip6"), format_address(address)


def _whole(ruleset: Ruleset, tag: str, begun_anew: Iterable[str]) -> str:
    """The whole table, in the sections that `kernel/nft.py` loads one after the other."""
    ahead = [
        f"add {declared.replace(name, f'{TABLE} {name}{tag}', 1)}\n"
        f"{_change('add', name + tag, ruleset.sets[name])}"
        for name, declared in ruleset.ahead.items()
    ]
    frame = _ASKED.sub(lambda met: f"@{_tagged(met[1], ruleset, tag)}", ruleset.frame)
    filled = [name for name in ruleset.sets if name not in ruleset.ahead]
    emptied = "".join(f"flush set {TABLE} {name}\n" for name in (*filled, *begun_anew))
    fresh = "".join(_change("add", name, ruleset.sets[name]) for name in filled)
    return f"# sets\n{''.join(ahead)}# rules\n{frame}{emptied}{fresh}"


def _tagged(name: str, ruleset: Ruleset, tag: str) -> str:
    return f"{name}{tag}" if name in ruleset.ahead else name


def _change(verb: str, name: str, elements: frozenset[str]) -> str:
    if not elements:
        return ""
    return f"{verb} element {TABLE} {name} {{ {', '.join(sorted(elements))} }}\n"
