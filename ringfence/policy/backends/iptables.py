"""Policy as iptables rules that ask ipsets, in chains of our own in the mangle table.

That table's chains are called at priority -150, where the tables of nftables stand too: after
connection tracking, before NAT and before filter. The one touch of what others use is a jump at
the head of INPUT, OUTPUT, PREROUTING and POSTROUTING. What we let pass returns there, so that the
rest of the chain still has its say; what we drop is dropped for good. What the namespace itself
sends is let vanish, in a queue that nobody listens to (`ringfence/kernel/silence.py`); what comes
back from there is dropped in POSTROUTING.

A set never changes: its name is a hash of what it holds. So rules and all the addresses that they
ask change in one transaction for each family, and no packet meets half of a change. What is
denied is remembered in a set for each denial, since an ipset cannot hold a packet's mark.

The text is for `kernel.iptables`, in three parts: what `ipset restore` reads, then what
`iptables-restore --noflush` reads of each family.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ringfence.model.address import Address, format_address, is_v4
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP, format_protocol
from ringfence.policy.backends import ipsets
from ringfence.policy.backends.interface import Denial, Ruleset, UnsupportedError
from ringfence.policy.backends.iptables_ports import dialled
from ringfence.policy.backends.marks import (
    DROP_MARK,
    SILENCED_MARK,
    SILENT_QUEUE,
    Marks,
    check_handle,
)
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import (
    NO_GUARDED,
    Guarded,
    NodePolicy,
    Passage,
    PodBinding,
    ProgramId,
    Rule,
    SetId,
)

_DROP = "RINGFENCE-DROP"
_SILENCE, _SILENCED = "RINGFENCE-SILENCE", "RINGFENCE-SILENCED"
"""Where what the namespace sends is let vanish, and where what came back from there is dropped."""
_ANY_ICMP = 255
"""A type that iptables takes for all of them (net/netfilter/x_tables, icmp_match)."""

_ESTABLISHED = (
    "-m conntrack --ctstate ESTABLISHED -j RETURN",
    # Only errors: a connection that a protocol helper expects is judged like any other.
    f"-p {ICMP} -m conntrack --ctstate RELATED -j RETURN",
    f"-p {ICMPV6} -m conntrack --ctstate RELATED -j RETURN",
)
# What a pod sends to itself in the name of another.
_FOREIGN_LOOPBACK = "-o lo -m conntrack --ctstate NEW -m addrtype ! --src-type LOCAL -j DROP"
# The answer of the filter table to a connection that someone rejects there.
_OWN_RESET = "-p tcp -m conntrack --ctstate RELATED -m tcp --tcp-flags RST RST -j RETURN"
_OPENS_NOTHING = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN"


@dataclass(frozen=True, slots=True)
class _Family:
    """IPv4 or IPv6, and the protocol of its ICMP."""

    number: int
    icmp: int


_FAMILIES = (_Family(4, ICMP), _Family(6, ICMPV6))
# RFC 4890 section 4.4.1: traffic that must not be dropped, with the hop limits of RFC 4861
# and RFC 2710. Routers are on the link; neighbours may have any address.
_NEIGHBOURS = {
    4: (),
    6: tuple(
        f"{where}-p icmpv6 -m icmp6 --icmpv6-type {kind} -m hl --hl-eq {hops} -j RETURN"
        for places, kinds, hops in (
            (("-d fe80::/10 ", "-d ff02::/16 "), (133, 134), 255),
            (("",), (135, 136), 255),
            (("",), (130, 131, 132, 143), 1),
        )
        for where in places
        for kind in kinds
    ),
}
# Of nodes and hosts: a pod's lease is its CNI's, whose packet sockets meet no rule.
_DHCP = {
    (4, Direction.INBOUND): ("-p udp -m udp --sport 67 --dport 68 -j RETURN",),
    (4, Direction.OUTBOUND): ("-p udp -m udp --sport 68 --dport 67 -j RETURN",),
    (6, Direction.INBOUND): ("-s fe80::/10 -p udp -m udp --sport 547 --dport 546 -j RETURN",),
    (6, Direction.OUTBOUND): tuple(
        f"-d {servers} -p udp -m udp --sport 546 --dport 547 -j RETURN"
        for servers in ("fe80::/10", "ff02::1:2")
    ),
}


def lines_of(policy: NodePolicy, rule: Rule, direction: Direction) -> Iterator[str]:
    """What the lines of a rule ask, in both families, up to the comment; none if it is refused."""
    table = _Table(policy)
    with suppress(UnsupportedError):
        for family in _FAMILIES:
            for line in table.lines(rule, family, direction):
                yield line.rpartition(" -")[0]


class Iptables:
    """The back end for kernels without nftables, or whose administrators want none of it."""

    keeps_drops = False

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        """The rules of a pod's namespace; raises UnsupportedError."""
        table = _Table(policy)
        for hook, direction, programs in (
            ("INPUT", Direction.INBOUND, binding.inbound),
            ("OUTPUT", Direction.OUTBOUND, binding.outbound),
        ):
            if programs:
                table.own_end(hook, direction, programs, binding.addresses, ())
        return table.ruleset()

    def render_node(
        self,
        policy: NodePolicy,
        released: Iterable[Passage] = (),  # noqa: ARG002 - of gates
        guarded: Guarded = NO_GUARDED,
    ) -> Ruleset:
        """The rules of the node's own namespace; raises UnsupportedError, for a gate too."""
        if policy.gate is not None:
            raise UnsupportedError(
                "newPods: closed: iptables has no gate, nftables has one; a gate that nftables left"
                " on this node stays, shut to new pods"
            )
        if any(pod.guarded and guarded.get(pod.uid) for pod in policy.pods):
            raise UnsupportedError(
                "pods that may undo their rules: nftables judges them at their node, iptables not"
            )
        table, binding = _Table(policy), policy.binding
        if binding.received is not None:
            table.received(binding.received)
        for hook, direction, program, rules in (
            ("INPUT", Direction.INBOUND, binding.inbound, binding.fail_safes_in),
            ("OUTPUT", Direction.OUTBOUND, binding.outbound, binding.fail_safes_out),
        ):
            if program is not None:
                table.own_end(hook, direction, (program,), binding.addresses, rules, node=True)
        return table.ruleset()

    def sayable(self, policy: NodePolicy) -> NodePolicy:
        """The policy but for who answers behind an address: `ctorigdst` takes no sets."""
        return policy.as_dialled()

    def text(self, ruleset: Ruleset) -> str:
        """The rules and sets as they are loaded where there are none."""
        return self.transaction(ruleset, None)

    def transaction(self, desired: Ruleset, previous: Ruleset | None) -> str:
        """The sets that `previous` lacks, and all rules, unless there is nothing to do."""
        if previous is not None and previous.frame == desired.frame:
            return ""
        known = previous.sets if previous else {}
        fresh = [name for name in sorted(desired.sets) if name not in known]
        made = "".join(ipsets.made(name, desired.sets[name]) for name in fresh)
        shared = len(desired.drop_sets)
        drops = "".join(ipsets.made_for_drops(name, shared) for name in desired.drop_sets)
        return f"# sets\n{made}{drops}{desired.frame}"


@dataclass
class _Table:
    """The rules of one namespace in the making, for each family."""

    policy: NodePolicy
    _chains: dict[int, list[str]] = field(default_factory=lambda: {f.number: [] for f in _FAMILIES})
    _jumps: list[tuple[str, str]] = field(default_factory=list)
    _sets: dict[str, frozenset[str]] = field(default_factory=dict)
    _elements: dict[tuple[SetId, _Family], frozenset[str]] = field(default_factory=dict)
    _marks: Marks = field(default_factory=Marks)

    def own_end(
        self,
        hook: str,
        direction: Direction,
        programs: Sequence[ProgramId],
        addresses: tuple[Address, ...],
        stated: Sequence[Rule],
        *,
        node: bool = False,
    ) -> None:
        """The chains that judge what the namespace itself opens or is sent, by each program.

        What one allows is for the next to judge: it returns, and what the last one allows returns
        from here.
        """
        base = f"RINGFENCE-{hook}"
        self._jumps.append((hook, base))
        names = [f"{base}-{place}" for place in range(1, len(programs) + 1)]
        sends = not node and direction is Direction.OUTBOUND
        for family in _FAMILIES:
            safe = (
                *_ESTABLISHED,
                *((_FOREIGN_LOOPBACK,) if sends else ()),
                *self._fail_safes(family, direction, addresses),
                *(_DHCP[family.number, direction] if node else ()),
            )
            also = (line for rule in stated for line in self.lines(rule, family, direction))
            comment = f'-m comment --comment "{MID_STREAM}"'
            away = f"{_OPENS_NOTHING} {comment} {self._denied(MID_STREAM, direction)}"
            calls = (*(f"-j {name}" for name in names[:-1]), f"-g {names[-1]}")
            self._chain(family, base, (*dict.fromkeys((*safe, *also)), away, *calls))
            for name, program in zip(names, programs, strict=True):
                self._program(family, name, direction, program)

    def received(self, program: ProgramId) -> None:
        """The chains that judge, before DNAT, what the node is sent or dials for Services."""
        base = "RINGFENCE-RECEIVED"
        self._jumps += [("PREROUTING", base), ("OUTPUT", base)]
        for family in _FAMILIES:
            lines = [*_ESTABLISHED, *_control_plane(family, self.policy.control_plane)]
            for exposed in self.policy.binding.exposures:
                if exposed.local and not self._held(exposed.local, family):
                    continue
                where = "-m addrtype --dst-type LOCAL"
                if exposed.local is not None:
                    where = self._asked(exposed.local, family, "dst")
                lines += (
                    f"{where} {asked} -g {base}-1"
                    for asked in dialled(exposed.protocol, exposed.ports, family.icmp)
                )
            self._chain(family, base, lines)
            self._program(family, f"{base}-1", Direction.INBOUND, program)

    def ruleset(self) -> Ruleset:
        """All of it as it stands."""
        if not self._jumps:
            return Ruleset("", {}, (), {})
        drop_sets: list[str] = []
        parts: list[str] = []
        silent = any(denial.direction is Direction.OUTBOUND for denial in self._marks.given)
        if silent:
            self._jumps.append(("POSTROUTING", _SILENCED))
        for family in _FAMILIES:
            for denial, mark in self._marks.given.items():
                name = f"rf_drop_{mark:08x}_{family.number}"
                drop_sets.append(name)
                end = _SILENCE if denial.direction is Direction.OUTBOUND else _DROP
                self._chain(family, _drop_chain(mark), _remembered(name, end))
            if silent:
                vanish = f"-j NFQUEUE --queue-num {SILENT_QUEUE}"
                self._chain(family, _SILENCE, (_marked(SILENCED_MARK), vanish, f"-g {_DROP}"))
                asked = f"-m mark --mark {SILENCED_MARK:#x}"
                self._chain(family, _SILENCED, (f"{asked} -g {_DROP}",))
            self._chain(family, _DROP, (_marked(DROP_MARK), "-j DROP"))
            # Each goes to the head: the last one is asked first.
            jumps = "".join(f"-I {hook} -j {to}\n" for hook, to in reversed(self._jumps))
            chains = "".join(self._chains[family.number])
            parts.append(f"# IPv{family.number}\n*mangle\n{chains}{jumps}COMMIT\n")
        return Ruleset(
            frame="".join(parts),
            sets=self._sets,
            drop_sets=tuple(drop_sets),
            denials={mark: denial for denial, mark in self._marks.given.items()},
        )

    def _chain(self, family: _Family, name: str, lines: Iterable[str]) -> None:
        head = f":{name} - [0:0]\n"
        body = "".join(f"-A {name} {line}\n" for line in lines)
        self._chains[family.number].append(head + body)

    def _program(
        self, family: _Family, name: str, direction: Direction, program: ProgramId
    ) -> None:
        rules = self.policy.programs[program].as_dialled
        lines = (line for rule in rules for line in self.lines(rule, family, direction))
        self._chain(family, name, lines)

    def lines(self, rule: Rule, family: _Family, direction: Direction) -> Iterator[str]:
        """One rule as lines, of which any may hold; none if it means no address of the family."""
        _check(rule)
        if not all(self._held(held, family) for held in (rule.peers, rule.local) if held):
            return
        inbound = direction is Direction.INBOUND
        asked = [
            self._asked(held, family, side)
            for side, held in (
                ("src" if inbound else "dst", rule.peers),
                ("dst" if inbound else "src", rule.local),
            )
            if held is not None
        ]
        denies = rule.action is Action.DENY
        verdict = self._denied(rule.handle, direction) if denies else "-j RETURN"
        comment = f'-m comment --comment "{rule.handle}"'
        protocols = (
            [""] if rule.protocol is None else dialled(rule.protocol, rule.ports, family.icmp)
        )
        for protocol in protocols:
            yield " ".join([*filter(None, (protocol, *asked)), comment, verdict])

    def _denied(self, handle: str, direction: Direction) -> str:
        """The words that send a packet to be dropped and reported."""
        return f"-g {_drop_chain(self._marks.of(Denial(handle, direction)))}"

    def _asked(self, held: SetId, family: _Family, side: str) -> str:
        """The words that ask whether an end is in a set of the policy."""
        elements = self._held(held, family)
        name = ipsets.name_of(elements, family.number)
        self._sets[name] = elements
        return f"-m set --match-set {name} {side}"

    def _held(self, held: SetId, family: _Family) -> frozenset[str]:
        """What a set of the policy holds of one family."""
        if (held, family) not in self._elements:
            networks = self.policy.sets[held]
            self._elements[held, family] = frozenset(ipsets.elements(networks, family.number))
        return self._elements[held, family]

    def _fail_safes(
        self, family: _Family, direction: Direction, addresses: tuple[Address, ...]
    ) -> Iterator[str]:
        """What passes whatever the policy says, for the holder of the addresses."""
        held = self.policy.control_plane
        if direction is Direction.INBOUND:
            yield "-i lo -j RETURN"
            for own in _of(family, addresses):
                yield f"-s {own} -d {own} -j RETURN"
            held = tuple(end for end in held if end[0] in addresses)
        else:
            yield _OWN_RESET
            yield "-o lo -j RETURN"
        yield from _NEIGHBOURS[family.number]
        yield from _control_plane(family, held)


def _drop_chain(mark: int) -> str:
    return f"{_DROP}-{mark:08x}"


def _marked(mark: int) -> str:
    return f"-j MARK --set-xmark {mark:#x}/0xffffffff"


def _remembered(name: str, end: str) -> Iterator[str]:
    """Count a tuple that is remembered already, else remember it; the last line counts the lost.

    Each goes on to the chain that makes an end. A tuple that is added again would be counted from
    one again.
    """
    tuple_ = f"{name} src,dst,dst"
    yield f"-m set --match-set {tuple_} -g {end}"
    yield f"-j SET --add-set {tuple_}"
    yield f"-m set --match-set {tuple_} ! --update-counters -g {end}"
    yield f"-g {end}"


def _control_plane(family: _Family, ends: Iterable[tuple[Address, int]]) -> Iterator[str]:
    for address, port in ends:
        for text in _of(family, (address,)):
            yield f"-d {text} -p tcp -m tcp --dport {port} -j RETURN"


def _of(family: _Family, addresses: Iterable[Address]) -> Iterator[str]:
    v4 = family.icmp == ICMP
    return (format_address(address) for address in addresses if is_v4(address) == v4)


def _check(rule: Rule) -> None:
    """Raise UnsupportedError for what iptables could not say, or would misread."""
    check_handle(rule.handle, "iptables")
    if rule.rejects:
        raise UnsupportedError(
            f"rule {rule.handle}: iptables rejects in its filter table alone, behind translation"
            " and others' rules; let the workspace drop what it denies, or use nftables"
        )
    if rule.protocol == 0:
        raise UnsupportedError(f"rule {rule.handle}: iptables takes protocol 0 for every one")
    if rule.ports and rule.protocol not in (TCP, UDP, SCTP, ICMP, ICMPV6):
        name = format_protocol(rule.protocol)
        raise UnsupportedError(f"rule {rule.handle}: iptables has no ports for {name}")
    if rule.protocol == ICMP and any(ports.last >> 8 == _ANY_ICMP for ports in rule.ports):
        raise UnsupportedError(f"rule {rule.handle}: iptables takes ICMP type 255 for every one")
