"""The text of one nftables table: chains, the sets that they ask, and what they drop.

Whatever is denied goes to one of two chains, of which one answers. Both have the tuple remembered
in a bounded set with counters. Which rule it was is told by the packet's mark, set on the way
there; the packet dies with a mark of ours, so that who listens to drops knows it. What the
namespace itself sent is to vanish without a word: the agent writes that rule into the chain that
drops (`ringfence/kernel/silence.py`), for nft's language has none.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv6Address

from ringfence.model.address import Address, Network, format_address
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP, PortRange, format_protocol
from ringfence.policy.backends.groups import Box, Shape, grouped
from ringfence.policy.backends.interface import Denial, Ruleset, UnsupportedError
from ringfence.policy.backends.marks import DROP_MARK, SILENCED_MARK, Marks, check_handle
from ringfence.policy.program import NodePolicy, ProgramId, Rule, SetId

TABLE = "inet ringfence"
TAG = 8
"""Digits after the name of a set, which tell what rules ask it."""
PRIORITY = -150
DROP_SET_SIZE = 4096
"""Distinct tuples that a namespace remembers at a time, of each family."""
DROP_TIMEOUT = "10m"
"""A tuple that no packet hits for so long makes room; many times the interval of reports."""

# RFC 4890 section 4.4.1: traffic that must not be dropped, with the hop limits of RFC 4861
# and RFC 2710. Routers are on the link; neighbours may have any address.
NEIGHBOURS = (
    (
        "ip6 daddr { fe80::/10, ff02::/16 } icmpv6 type { nd-router-solicit, nd-router-advert }"
        " ip6 hoplimit 255 accept"
    ),
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
    (
        "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done,"
        " mld2-listener-report } ip6 hoplimit 1 accept"
    ),
)
# By their type: a privileged pod can give any interface the name of the loopback.
FROM_LOOPBACK, TO_LOOPBACK = "meta iiftype loopback accept", "meta oiftype loopback accept"

_MOST_DENIALS = 65536
_DROP, _REJECT, _DENIED = "rf_drop", "rf_reject", "rf_denied"
_PORT_MATCH = {
    TCP: "tcp dport",
    UDP: "udp dport",
    SCTP: "sctp dport",
    ICMP: "icmp type . icmp code",
    ICMPV6: "icmpv6 type . icmpv6 code",
}
_PORT_TYPE = {
    TCP: "inet_service",
    UDP: "inet_service",
    SCTP: "inet_service",
    ICMP: "icmp_type . icmp_code",
    ICMPV6: "icmpv6_type . icmpv6_code",
}
_FAMILY_OF = {ICMP: 4, ICMPV6: 6}
"""Where nftables knows the types of ICMP."""
_ANY_CODE = " . 0-255"
_SET_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
_MARKED = f"meta mark set {DROP_MARK:#x}"
_ENDS = {
    _DROP: (f"{_MARKED} drop",),
    # RFC 1812 section 5.2.7.1 and RFC 4443 section 3.1 have a code for it.
    _REJECT: (
        f"meta l4proto tcp {_MARKED} reject with tcp reset",
        f"{_MARKED} reject with icmpx type admin-prohibited",
    ),
}
"""How a denied packet ends, by the chain that it is sent to."""
_SILENCED = f"meta mark {SILENCED_MARK:#x} {_MARKED} drop"
"""What is to vanish before this hook, and is given back by who listens to that."""
_COUNTED = "_counted"
"""How the name of a set ends whose elements count."""
_SILENCED_AT = {"output", "postrouting"}
"""The hooks that a namespace's own packets meet."""


@dataclass(frozen=True, slots=True)
class Family:
    """IPv4 or IPv6, as nftables calls them."""

    number: int
    header: str
    type: str


FAMILIES = (Family(4, "ip", "ipv4_addr"), Family(6, "ip6", "ipv6_addr"))


@dataclass(frozen=True, slots=True)
class _Written:
    """A lookup with its boxes as text, each with the handle of the rule that denies or widens."""

    shape: Shape
    action: Action
    rejects: bool
    boxes: tuple[tuple[str, str], ...]


class Programs:
    """The programs of a policy in groups, worked out once for all namespaces that share them."""

    def __init__(self, policy: NodePolicy) -> None:
        self.policy = policy
        self._groups: dict[tuple[ProgramId, Family], tuple[Rule | _Written, ...]] = {}

    def groups(self, program: ProgramId, family: Family) -> tuple[Rule | _Written, ...]:
        """The groups for packets of one family; raises UnsupportedError."""
        key = program, family
        if key not in self._groups:
            rules = [r for r in self.policy.programs[program].as_dialled if _of_family(r, family)]
            for rule in rules:
                _check(rule)
            found = grouped(rules, self.policy.sets, v4=family.number == FAMILIES[0].number)
            self._groups[key] = tuple(
                group
                if isinstance(group, Rule)
                else _Written(
                    group.shape,
                    group.action,
                    group.rejects,
                    tuple((_box(box, family), box.handle) for box in group.boxes),
                )
                for group in found
            )
        return self._groups[key]


@dataclass
class Table:
    """A table in the making."""

    programs: Programs
    silent: bool = False
    """Whether what is written now drops what policies reject: no hook after routing can answer."""
    _chains: list[str] = field(default_factory=list)
    _shared: dict[SetId, None] = field(default_factory=dict)
    _own: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """What one rule asks: declaration and elements, by set name."""
    _filled: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """The same of sets without ranges, which change with the rules."""
    _marks: Marks = field(default_factory=Marks)
    _ends: set[str] = field(default_factory=set)
    """The chains that denied packets are sent to."""
    _hooks: set[str] = field(default_factory=set)

    def chain(self, name: str, lines: Iterable[str]) -> None:
        """A chain that holds the lines."""
        body = "".join(f"\t\t{line}\n" for line in lines)
        self._chains.append(f"\tchain rf_{name} {{\n{body}\t}}\n")

    def base_chain(
        self, name: str, hook: str, lines: Iterable[str], priority: int = PRIORITY
    ) -> None:
        """A chain that packets meet at a hook."""
        self._hooks.add(hook)
        head = f"type filter hook {hook} priority {priority}; policy accept;"
        self.chain(name, (head, *lines))

    def own_set(self, name: str, declared: str, elements: frozenset[str]) -> None:
        """A set without ranges that the table has besides those of the policy."""
        self._filled[name] = f"set {name} {{ {declared} }}", elements

    def program(
        self, name: str, direction: Direction, program: ProgramId, allows: str = "accept"
    ) -> None:
        """The chains that judge by the program, one for each family, with the verdict to allow."""
        for family in FAMILIES:
            chain = f"{name}_{family.number}"
            lines = [
                self.rule(group, direction, family, allows)
                if isinstance(group, Rule)
                else self._lookup(group, f"rf_{chain}_{place}", direction, family, allows)
                for place, group in enumerate(self.programs.groups(program, family))
            ]
            self.chain(chain, lines)

    def rule(self, rule: Rule, direction: Direction, family: Family, allows: str = "accept") -> str:
        """One rule as text."""
        _check(rule)
        inbound = direction is Direction.INBOUND
        words = [
            f"{family.header} {side} @{self.set_name(held, family)}"
            for side, held in (
                ("saddr" if inbound else "daddr", rule.peers),
                ("daddr" if inbound else "saddr", rule.local),
            )
            if held is not None
        ]
        if rule.protocol is not None:
            words.append(self.dialled(rule.protocol, rule.ports))
        denies = rule.action is Action.DENY
        verdict = (
            self.denied(rule.handle, direction, rejects=rule.rejects)
            if denies
            else f"counter {allows}"
        )
        return " ".join([*words, verdict, f'comment "{rule.handle}"'])

    def denied(self, handle: str, direction: Direction, *, rejects: bool = False) -> str:
        """The words that send a packet to be dropped or rejected, and reported."""
        mark = self._marks.of(Denial(handle, direction))
        return f"meta mark set {mark:#x} counter {self._end(rejects=rejects)}"

    def _end(self, *, rejects: bool) -> str:
        chain = _REJECT if rejects and not self.silent else _DROP
        self._ends.add(chain)
        return f"goto {chain}"

    def dialled(self, protocol: int, ports: tuple[PortRange, ...]) -> str:
        """What matches packets of the protocol to one of the ports, to any if there are none."""
        if not ports:
            return f"meta l4proto {protocol}"
        written = tuple(map(_messages if protocol in _FAMILY_OF else str, ports))
        if len(written) == 1 and protocol not in _FAMILY_OF:
            return f"{_PORT_MATCH[protocol]} {written[0]}"
        if len(written) == 1 and written[0].endswith(_ANY_CODE):
            return f"{format_protocol(protocol).lower()} type {ports[0].first >> 8}"
        if not any("-" in one for one in written):
            return f"{_PORT_MATCH[protocol]} {{ {', '.join(written)} }}"
        name = ports_name(protocol, ports)
        declared = f"set {name} {{ type {_PORT_TYPE[protocol]}; flags interval; }}"
        self._own[name] = declared, frozenset(written)
        return f"{_PORT_MATCH[protocol]} @{name}"

    def set_name(self, held: SetId, family: Family) -> str:
        """The name of a set of the policy, which the table then holds."""
        self._shared[held] = None
        return f"rf_{held}_{family.number}"

    def _lookup(
        self, lookup: _Written, name: str, direction: Direction, family: Family, allows: str
    ) -> str:
        """A rule that stands for many: a set of what is allowed, a map to marks of the denied.

        The set counts what each element allows if some allow more than their policies.
        """
        peer = f"{family.header} {'saddr' if direction is Direction.INBOUND else 'daddr'}"
        key = " . ".join(_by_shape(lookup.shape, peer, ("meta l4proto", "th dport")))
        type_ = " . ".join(_by_shape(lookup.shape, family.type, ("inet_proto", "inet_service")))
        if lookup.action is Action.ALLOW:
            counts = any(whose for _, whose in lookup.boxes)
            name += _COUNTED if counts else ""
            does = " counter;" if counts else ""
            declared = f"set {name} {{ type {type_}; flags interval;{does} }}"
            elements = (
                f'{text} comment "{whose}"' if whose else text for text, whose in lookup.boxes
            )
            self._own[name] = declared, frozenset(elements)
            return f"{key} @{name} counter {allows}"
        declared = f"map {name} {{ type {type_} : mark; flags interval; }}"
        marked = (
            f"{text} : {self._marks.of(Denial(whose, direction)):#x}"
            for text, whose in lookup.boxes
        )
        self._own[name] = declared, frozenset(marked)
        return f"meta mark set {key} map @{name} counter {self._end(rejects=lookup.rejects)}"

    def ruleset(self) -> Ruleset:
        """The table as it stands."""
        shared = {
            self.set_name(held, family): (family, held)
            for held in sorted(self._shared)
            for family in FAMILIES
        }
        ahead = {
            name: f"set {name} {{ type {family.type}; flags interval; }}"
            for name, (family, _) in shared.items()
        }
        declared = [text for text, _ in self._filled.values()]
        if self._marks.given:
            for chain in sorted(self._ends):
                self.chain(chain.removeprefix("rf_"), (f"jump {_DENIED}", *_ENDS[chain]))
            self.chain(_DENIED.removeprefix("rf_"), _denied_lines())
            for hook in sorted(self._hooks & _SILENCED_AT):
                self.base_chain(f"silenced_{hook}", hook, (_SILENCED,), PRIORITY + 1)
            declared += (f"set {name} {{ {text} }}" for name, text in _DROP_SETS.items())
        sets = "".join(f"\t{text}\n" for text in declared)
        elements = {
            name: elements_of(self.programs.policy.sets[held], family)
            for name, (family, held) in shared.items()
        }
        return Ruleset(
            frame=f"table {TABLE} {{\n{sets}{''.join(self._chains)}}}\n" if self._chains else "",
            sets=elements | {name: held for name, (_, held) in (self._own | self._filled).items()},
            drop_sets=tuple(_DROP_SETS) if self._marks.given else (),
            denials={mark: denial for denial, mark in self._marks.given.items()},
            ahead=ahead | {name: text for name, (text, _) in self._own.items()},
        )


def _drop_sets() -> dict[str, str]:
    """The sets that denied tuples are remembered in, by name, as they are declared."""
    forgets = f"size {DROP_SET_SIZE}; flags dynamic,timeout; timeout {DROP_TIMEOUT};"
    lost = f"size {_MOST_DENIALS}; flags dynamic,timeout; timeout {DROP_TIMEOUT};"
    found = {f"{_DROP}_lost": f"type mark; {lost}"}
    for family in FAMILIES:
        name, kind = f"{_DROP}_{family.number}", f"{family.type} . {family.type} . inet_proto"
        found[name] = f"type {kind} . inet_service . mark; {forgets}"
        found[f"{name}_other"] = f"type {kind} . mark; {forgets}"
    return found


_DROP_SETS = _drop_sets()


def _denied_lines() -> Iterator[str]:
    """The chain that remembers a denied tuple; an ICMP type stands as a port.

    A set without room ends its rule: then the packet is counted as lost.
    """
    for family in FAMILIES:
        ip, name = family.header, f"{_DROP}_{family.number}"
        key = f"{ip} saddr . {ip} daddr . meta l4proto"
        for protocols, suffix, port in (
            ("{ tcp, udp, sctp }", "", " . th dport"),
            # The first two bytes: type and code.
            ("{ icmp, ipv6-icmp }", "", " . @th,0,16"),
            ("!= { icmp, tcp, udp, ipv6-icmp, sctp }", "_other", ""),
        ):
            yield (
                f"meta nfproto ipv{family.number} meta l4proto {protocols}"
                f" update @{name}{suffix} {{ {key}{port} . meta mark counter }} return"
            )
    yield f"update @{_DROP}_lost {{ meta mark counter }}"


def ports_name(protocol: int, ports: tuple[PortRange, ...]) -> str:
    """The name of the set of several ports of which some are ranges."""
    said = f"{protocol} {' '.join(map(str, ports))}"
    return f"rf_p{blake2b(said.encode(), digest_size=8).hexdigest()}"


def _check(rule: Rule) -> None:
    """Raise UnsupportedError for what nftables could not say, or would misread."""
    check_handle(rule.handle, "nftables")
    if rule.ports and rule.protocol not in _PORT_MATCH:
        name = format_protocol(rule.protocol)
        raise UnsupportedError(f"rule {rule.handle}: nftables has no ports for {name}")
    for held in filter(None, (rule.peers, rule.local)):
        if not _SET_ID.fullmatch(held):
            raise UnsupportedError(f"set {held!r}: not a name that nftables takes")


def _of_family(rule: Rule, family: Family) -> bool:
    return not rule.ports or _FAMILY_OF.get(rule.protocol or 0, family.number) == family.number


def _messages(ports: PortRange) -> str:
    """Messages of one type of ICMP, kept as type * 256 + code."""
    codes = PortRange(ports.first & 0xFF, ports.last & 0xFF)
    return f"{ports.first >> 8} . {codes}"


def _by_shape(shape: Shape, peer: str, ports: tuple[str, str]) -> tuple[str, ...]:
    return {Shape.PEERS: (peer,), Shape.PORTS: ports, Shape.BOTH: (peer, *ports)}[shape]


def _box(box: Box, family: Family) -> str:
    parts = []
    if box.first is not None and box.last is not None:
        first, last = (_number(one, family) for one in (box.first, box.last))
        parts.append(first if first == last else f"{first}-{last}")
    if box.protocol is not None:
        parts += [format_protocol(box.protocol).lower(), str(box.ports)]
    return " . ".join(parts)


def _number(address: int, family: Family) -> str:
    """An address as its family writes it: a mapped IPv4 one among IPv6 ones is no IPv4 address."""
    packed = address.to_bytes(16)
    return format_address(Address(packed)) if family.number == 4 else str(IPv6Address(packed))  # noqa: PLR2004


def elements_of(networks: Iterable[Network], family: Family) -> frozenset[str]:
    """Blocks of one family as the elements of a set of intervals."""
    v4 = family.header == "ip"
    return frozenset(_element(network) for network in networks if network.is_v4 == v4)


def _element(network: Network) -> str:
    whole = network.prefix == 128  # noqa: PLR2004
    return format_address(network.address) if whole else str(network)
