"""Policy as nftables rules, in a table of our own beside everybody else's.

Base chains sit at priority -150: after conntrack (-200), without which `ct state` matches
nothing, and before NAT (-100) and every rule of filter priority. An `accept` here ends our own
base chain only, so other tables still have their say; a `drop` is final.

Every packet walks a base chain in this order: established connections and errors about them
pass; fail-safes pass; TCP packets that do not open a connection are dropped, since conntrack
would otherwise adopt the rest of a connection that was cut; then the program of the packet's
family decides. Whatever drops goes to a chain of its own that writes the tuple into a bounded set
with counters; what finds no room falls to the chain's last rule, whose counter is the overflow.
The packet is marked there, so that who listens to drops knows it for ours.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ringfence.model.address import Address, Network, format_address, is_v4
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP, PortRange, format_protocol
from ringfence.policy.backends.interface import DropSet, Ruleset, UnsupportedError
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import (
    Exposure,
    NodePolicy,
    PodBinding,
    ProgramId,
    Rule,
    SetId,
)

TABLE = "inet ringfence"
PRIORITY = -150
DROP_SET_SIZE = 1024
"""Distinct tuples that one denying rule remembers at a time, per family."""
DROP_TIMEOUT = "10m"
"""A tuple that no packet hits for so long makes room; many times the interval of reports."""
OVERFLOW = "overflow"
DROP_MARK = 0x52464452
"""What we drop dies with this packet mark: OUR_DROP in bpf/drop.bpf.c."""

_PORT_MATCH = {
    TCP: "tcp dport",
    UDP: "udp dport",
    SCTP: "sctp dport",
    ICMP: "icmp type . icmp code",
    ICMPV6: "icmpv6 type . icmpv6 code",
}
_FAMILY_OF = {ICMP: 4, ICMPV6: 6}
"""Where nftables knows the types of ICMP."""
_HANDLE = re.compile(r"[A-Za-z0-9_.:/%~+-]{1,100}")
_SET_ID = re.compile(r"[A-Za-z0-9_]{1,64}")

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
        "udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
    ),
    Direction.OUTBOUND: (
        "udp sport 68 udp dport 67 accept",
        "ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept",
    ),
}
_MARK = f"meta mark set {DROP_MARK:#x}"
_OPENS_NOTHING = "tcp flags & (fin | syn | rst | ack) != syn"


@dataclass(frozen=True, slots=True)
class _Family:
    number: int
    header: str
    type: str


_FAMILIES = (_Family(4, "ip", "ipv4_addr"), _Family(6, "ip6", "ipv6_addr"))


class Nftables:
    """The back end for kernels with nftables' inet family."""

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        """The rules of a pod's namespace; raises UnsupportedError."""
        text = _Text(policy)
        for hook, direction, program in (
            ("input", Direction.INBOUND, binding.inbound),
            ("output", Direction.OUTBOUND, binding.outbound),
        ):
            if program is not None:
                safe = _fail_safes(direction, binding.addresses, policy.control_plane)
                text.own_end(hook, direction, program, safe)
        return text.ruleset()

    def render_node(self, policy: NodePolicy) -> Ruleset:
        """The rules of the node's own namespace; raises UnsupportedError."""
        text, binding = _Text(policy), policy.binding
        for hook, direction, program, rules in (
            ("input", Direction.INBOUND, binding.inbound, binding.fail_safes_in),
            ("output", Direction.OUTBOUND, binding.outbound, binding.fail_safes_out),
        ):
            if program is not None:
                safe = _fail_safes(direction, binding.addresses, policy.control_plane)
                stated = (text.rule(rule, direction, f) for rule in rules for f in _FAMILIES)
                text.own_end(hook, direction, program, dict.fromkeys((*safe, *stated)))
        if binding.received is not None:
            text.received(binding.received, binding.exposures, policy.control_plane)
        return text.ruleset()

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


@dataclass
class _Text:
    """A table in the making."""

    policy: NodePolicy
    chains: list[str] = field(default_factory=list)
    sets: dict[SetId, None] = field(default_factory=dict)
    drop_sets: list[DropSet] = field(default_factory=list)
    drop_types: list[str] = field(default_factory=list)

    def own_end(
        self, hook: str, direction: Direction, program: ProgramId, fail_safes: Iterable[str]
    ) -> None:
        """The chain that judges what the namespace itself opens or is sent."""
        chains = [(family, f"{hook}_{family.number}") for family in _FAMILIES]
        away = (
            _by_family(family, f"{_OPENS_NOTHING} goto rf_{chain}_mid_stream")
            for family, chain in chains
        )
        to_program = (_by_family(family, f"goto rf_{chain}") for family, chain in chains)
        self.base_chain(hook, hook, (*_ESTABLISHED, *fail_safes, *away, *to_program))
        for family, chain in chains:
            self.mid_stream(f"{chain}_mid_stream", direction, family)
        self.program(hook, direction, program)

    def received(
        self,
        program: ProgramId,
        exposures: Iterable[Exposure],
        control_plane: Iterable[tuple[Address, int]],
    ) -> None:
        """The chains that judge, before DNAT, what the node is sent or dials for Services."""
        judged = tuple(self.exposure(exposed, f) for exposed in exposures for f in _FAMILIES)
        safe = (*_ESTABLISHED, *_control_plane(control_plane))
        self.base_chain("received", "prerouting", (*safe, *judged))
        self.base_chain("received_local", "output", (*safe, *judged))
        self.program("received", Direction.INBOUND, program)

    def exposure(self, exposed: Exposure, family: _Family) -> str:
        where = (
            _by_family(family, "fib daddr type local")
            if exposed.local is None
            else f"{family.header} daddr @{self.set_name(exposed.local, family)}"
        )
        dialled = _protocol_match(exposed.protocol, exposed.ports)
        return f"{where} {dialled} goto rf_received_{family.number}"

    def base_chain(self, name: str, hook: str, lines: Iterable[str]) -> None:
        head = f"type filter hook {hook} priority {PRIORITY}; policy accept;"
        self.chain(name, (head, *lines))

    def program(self, name: str, direction: Direction, program: ProgramId) -> None:
        """One chain of rules for each family, and one for each denying rule."""
        rules = self.policy.programs[program].rules
        for family in _FAMILIES:
            chain = f"{name}_{family.number}"
            lines = []
            for place, rule in enumerate(rules):
                if (
                    rule.ports
                    and _FAMILY_OF.get(rule.protocol or 0, family.number) != family.number
                ):
                    continue
                denies = f"{chain}_deny{place}" if rule.action is Action.DENY else ""
                lines.append(self.rule(rule, direction, family, denies))
                if denies:
                    self.denial(denies, rule, direction, family)
            self.chain(chain, lines)

    def rule(self, rule: Rule, direction: Direction, family: _Family, denies: str = "") -> str:
        """One rule as text; `denies` is the chain that a denying one goes to."""
        if not _HANDLE.fullmatch(rule.handle):
            raise UnsupportedError(f"rule {rule.handle!r}: not a handle that nftables can show")
        if rule.ports and rule.protocol not in _PORT_MATCH:
            name = format_protocol(rule.protocol)
            raise UnsupportedError(f"rule {rule.handle}: nftables has no ports for {name}")
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
            words.append(_protocol_match(rule.protocol, rule.ports))
        verdict = f"goto rf_{denies}" if denies else "accept"
        return " ".join([*words, "counter", verdict, f'comment "{rule.handle}"'])

    def denial(self, chain: str, rule: Rule, direction: Direction, family: _Family) -> None:
        """The chain that remembers a denied tuple and drops; an ICMP type stands as a port."""
        key, kind = _tuple(family)
        name = f"rf_{chain}"
        self.chain(
            chain,
            (
                _MARK,
                (
                    f"meta l4proto {{ tcp, udp, sctp }} update @{name}"
                    f" {{ {key} . th dport counter }} drop"
                ),
                # The first two bytes: type and code.
                (
                    f"meta l4proto {{ icmp, ipv6-icmp }} update @{name}"
                    f" {{ {key} . @th,0,16 counter }} drop"
                ),
                (
                    "meta l4proto != { icmp, tcp, udp, ipv6-icmp, sctp }"
                    f" update @{name}_other {{ {key} counter }} drop"
                ),
                f'counter drop comment "{OVERFLOW}"',
            ),
        )
        self.remember(name, f"{kind} . inet_service", rule.handle, direction)
        self.remember(f"{name}_other", kind, rule.handle, direction)

    def mid_stream(self, chain: str, direction: Direction, family: _Family) -> None:
        """The chain that remembers and drops TCP packets which open nothing."""
        key, kind = _tuple(family)
        name = f"rf_{chain}"
        self.chain(
            chain,
            (
                _MARK,
                f"update @{name} {{ {key} . tcp dport counter }} drop",
                f'counter drop comment "{OVERFLOW}"',
            ),
        )
        self.remember(name, f"{kind} . inet_service", MID_STREAM, direction)

    def remember(self, name: str, type_: str, handle: str, direction: Direction) -> None:
        self.drop_sets.append(DropSet(name, handle, direction))
        self.drop_types.append(type_)

    def chain(self, name: str, lines: Iterable[str]) -> None:
        body = "".join(f"\t\t{line}\n" for line in lines)
        self.chains.append(f"\tchain rf_{name} {{\n{body}\t}}\n")

    def set_name(self, held: SetId, family: _Family) -> str:
        if not _SET_ID.fullmatch(held):
            raise UnsupportedError(f"set {held!r}: not a name that nftables takes")
        self.sets[held] = None
        return f"rf_{held}_{family.number}"

    def ruleset(self) -> Ruleset:
        """The table as it stands."""
        declared = "".join(self._declarations())
        return Ruleset(
            frame=f"table {TABLE} {{\n{declared}{''.join(self.chains)}}}\n",
            sets={
                self.set_name(held, family): _elements_of(self.policy.sets[held], family)
                for held in sorted(self.sets)
                for family in _FAMILIES
            },
            drop_sets=tuple(self.drop_sets),
        )

    def _declarations(self) -> Iterator[str]:
        for held in sorted(self.sets):
            for family in _FAMILIES:
                name = self.set_name(held, family)
                yield f"\tset {name} {{ type {family.type}; flags interval; }}\n"
        for drops, type_ in zip(self.drop_sets, self.drop_types, strict=True):
            yield (
                f"\tset {drops.name} {{ type {type_}; size {DROP_SET_SIZE};"
                f" flags dynamic,timeout; timeout {DROP_TIMEOUT}; }}\n"
            )


def _tuple(family: _Family) -> tuple[str, str]:
    """The key that drop sets have in common, and its type."""
    ip, type_ = family.header, family.type
    return f"{ip} saddr . {ip} daddr . meta l4proto", f"{type_} . {type_} . inet_proto"


def _by_family(family: _Family, rest: str) -> str:
    return f"meta nfproto ipv{family.number} {rest}"


def _protocol_match(protocol: int, ports: tuple[PortRange, ...]) -> str:
    if not ports:
        return f"meta l4proto {protocol}"
    written = map(_messages if protocol in _FAMILY_OF else str, ports)
    return f"{_PORT_MATCH[protocol]} {{ {', '.join(written)} }}"


def _messages(ports: PortRange) -> str:
    """Messages of one type of ICMP, kept as type * 256 + code."""
    codes = PortRange(ports.first & 0xFF, ports.last & 0xFF)
    return f"{ports.first >> 8} . {codes}"


def _fail_safes(
    direction: Direction,
    addresses: tuple[Address, ...],
    control_plane: tuple[tuple[Address, int], ...],
) -> tuple[str, ...]:
    """What passes whatever the policy says, for the holder of the addresses."""
    always = (*_NEIGHBOURS, *_PATH_MTU, *_DHCP[direction])
    if direction is Direction.OUTBOUND:
        return ('oifname "lo" accept', *always, *_control_plane(control_plane))
    own = tuple(
        f"{header} saddr {text} {header} daddr {text} accept"
        for header, text in map(_header, addresses)
    )
    held_here = (end for end in control_plane if end[0] in addresses)
    return ('iifname "lo" accept', *own, *always, *_control_plane(held_here))


def _control_plane(ends: Iterable[tuple[Address, int]]) -> tuple[str, ...]:
    return tuple(
        f"{header} daddr {text} tcp dport {port} accept"
        for address, port in ends
        for header, text in (_header(address),)
    )


def _header(address: Address) -> tuple[str, str]:
    return ("ip" if is_v4(address) else "ip6"), format_address(address)


def _elements_of(networks: Iterable[Network], family: _Family) -> frozenset[str]:
    v4 = family.header == "ip"
    return frozenset(_element(network) for network in networks if network.is_v4 == v4)


def _element(network: Network) -> str:
    whole = network.prefix == 128  # noqa: PLR2004
    return format_address(network.address) if whole else str(network)


def _change(verb: str, name: str, elements: frozenset[str]) -> str:
    if not elements:
        return ""
    return f"{verb} element {TABLE} {name} {{ {', '.join(sorted(elements))} }}\n"
