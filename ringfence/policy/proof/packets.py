"""Packets as rules tell them apart, and rules as matches in order.

What a kernel holds and what a policy means are both written in these words, so that one can be
held against the other. Every axis is exact: what rules may ask of a packet that stands on none of
them cannot be said here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from ringfence.model.address import V4_MAPPED, Address, format_address
from ringfence.model.protocol import ICMP, ICMPV6, TCP, format_port, format_protocol

Ranges = tuple[tuple[int, int], ...]
"""Numbers from a first to a last one, disjoint and sorted."""
TRANSLATED_OUTPUT = "translated output"
"""What a namespace itself sends, at the output hook, once it is translated."""
FIN_SYN_RST_ACK, SYN, RST = 0x17, 0x02, 0x04
_LONGEST_NAME = 16
"""Bytes of an interface's name, IFNAMSIZ."""


class Axis(Enum):
    """What is asked of a packet; a packet has one number on each."""

    STATE = "state"
    """A `State` of connection tracking."""
    FROM_LOOPBACK = "from loopback"
    TO_LOOPBACK = "to loopback"
    TO_OWN = "to an address of the namespace's own"
    FROM_OWN = "from an address of the namespace's own"
    PROTOCOL = "protocol"
    FLAGS = "TCP flags"
    """Byte 13 of the transport header."""
    HOPS = "hop limit"
    HEAD = "head"
    """Bytes 0 and 1 of the transport header: the source port, or type and code of ICMP."""
    PORT = "port"
    """Bytes 2 and 3 of the transport header: the destination port."""
    TRANSLATED = "translated"
    """Whether its connection goes elsewhere than it was dialled."""
    DIALLED_PORT = "port as dialled"
    DIALLED = "dialled"
    """The address that its connection was dialled at."""
    DESTINATION = "destination"
    SOURCE = "source"
    LEAVES_BY = "interface it leaves by"
    """The interface's name, as `interface_number` has it."""
    LEAVES_BY_KIND = "kind of interface it leaves by"
    """Its driver's name, likewise."""
    CAME_BY = "interface it came by"
    CAME_BY_KIND = "kind of interface it came by"

    def size(self, family: int) -> int:
        """How many numbers there are on the axis."""
        if self in (Axis.SOURCE, Axis.DESTINATION, Axis.DIALLED):
            return 1 << (32 if family == 4 else 128)  # noqa: PLR2004
        return _SIZES.get(self, 1 << 8 * _LONGEST_NAME)


class State(Enum):
    """What connection tracking says of a packet, `ct state`."""

    NEW = 0
    ESTABLISHED = 1
    RELATED = 2
    INVALID = 3
    UNTRACKED = 4


_SIZES = {
    Axis.STATE: len(State),
    Axis.FROM_LOOPBACK: 2,
    Axis.TO_LOOPBACK: 2,
    Axis.TO_OWN: 2,
    Axis.FROM_OWN: 2,
    Axis.PROTOCOL: 256,
    Axis.FLAGS: 256,
    Axis.HOPS: 256,
    Axis.HEAD: 65536,
    Axis.PORT: 65536,
    Axis.TRANSLATED: 2,
    Axis.DIALLED_PORT: 65536,
}


_NAMED = (
    (Axis.CAME_BY, "from"),
    (Axis.CAME_BY_KIND, "from one of kind"),
    (Axis.LEAVES_BY, "to"),
    (Axis.LEAVES_BY_KIND, "to one of kind"),
)
"""What packets are told by of interfaces."""


def interface_number(name: str) -> int:
    """The name of an interface, or of its kind, bytes and zeros to the end, as a number."""
    return int.from_bytes(name.encode().ljust(_LONGEST_NAME, b"\0"))


class Outcome(Flag):
    """What a chain may do with a packet; more than one where memory decides."""

    NOTHING = 0
    ACCEPT = auto()
    DROP = auto()
    RETURN = auto()
    """The chain says nothing: its caller goes on."""
    RESET = auto()
    """Dropped, and answered by a reset of TCP."""
    PROHIBITED = auto()
    """Dropped, and answered by an ICMP error, "administratively prohibited"."""


@dataclass(frozen=True, slots=True)
class Call:
    """Go on in another chain; if it says nothing, after the call, or not at all if `goto`."""

    chain: str
    goto: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a packet's number on one axis is among the values, or not if `negated`."""

    axis: Axis
    values: Ranges
    negated: bool = False

    def holds(self, packet: "Packet") -> bool:
        """Whether a packet passes."""
        number = packet.numbers.get(self.axis, 0)
        return any(first <= number <= last for first, last in self.values) is not self.negated


@dataclass(frozen=True, slots=True)
class Clause:
    """What happens to the packets that pass all matches, to which earlier clauses did nothing.

    `name` tells people which rule or policy it is, `rule` is the kernel's number of it. One that is
    not `certain` may pass over packets, as a rule does that finds no room in a set.
    """

    matches: tuple[Match, ...]
    verdict: Outcome | Call
    name: str
    certain: bool = True
    rule: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """The rules about one family of addresses.

    `hooks` has the base chains at each hook of the kernel, in the order in which they are asked: a
    packet passes there if all of them accept it. They always say something.
    """

    family: int
    chains: Mapping[str, tuple[Clause, ...]]
    hooks: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; an axis that is left out has 0."""

    family: int
    numbers: Mapping[Axis, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """The packet as people write it."""
        protocol = self._at(Axis.PROTOCOL)
        source, destination = map(self._address, (Axis.SOURCE, Axis.DESTINATION))
        words = [f"{format_protocol(protocol)} {source} -> {destination}"]
        if protocol in (ICMP, ICMPV6):
            words.append(f"type {format_port(protocol, self._at(Axis.HEAD))}")
        else:
            words.append(f"port {self._at(Axis.PORT)} from port {self._at(Axis.HEAD)}")
        if protocol == TCP and self._at(Axis.FLAGS) & FIN_SYN_RST_ACK != SYN:
            words.append("not a SYN")
        words += [f"hop limit {self._at(Axis.HOPS)}"] if self._at(Axis.HOPS) else []
        words.append(State(self._at(Axis.STATE)).name.lower())
        if self._at(Axis.TRANSLATED):
            dialled = self._address(Axis.DIALLED), self._at(Axis.DIALLED_PORT)
            words.append("dialled at {} port {}".format(*dialled))
        told = (Axis.FROM_LOOPBACK, Axis.TO_LOOPBACK, Axis.TO_OWN, Axis.FROM_OWN)
        words += [axis.value for axis in told if self._at(axis)]
        for axis, word in _NAMED:
            if name := self._at(axis).to_bytes(_LONGEST_NAME).rstrip(b"\0"):
                words.append(f"{word} {name.decode(errors='replace')}")
        return ", ".join(words)

    def _at(self, axis: Axis) -> int:
        return self.numbers.get(axis, 0)

    def _address(self, axis: Axis) -> str:
        v4 = self.family == 4  # noqa: PLR2004
        packed = V4_MAPPED + self._at(axis).to_bytes(4) if v4 else self._at(axis).to_bytes(16)
        text = format_address(Address(packed))
        return text if v4 else f"[{text}]"


def judge(table: Table, hook: str, packet: Packet) -> tuple[Outcome, str]:
    """What may happen to a packet at a hook, and by which clauses."""
    found, met = _judge(table, hook, packet)
    said = ((one.name, one.verdict) for one in met)
    names = [name for name, verdict in said if isinstance(verdict, Outcome) and verdict in found]
    return found, "; ".join(dict.fromkeys(names)) or "no rule"


def trace(table: Table, hook: str, packet: Packet) -> list[Clause]:
    """The clauses that judge a packet at a hook, in order, but those that call others."""
    return _judge(table, hook, packet)[1]


def _judge(table: Table, hook: str, packet: Packet) -> tuple[Outcome, list[Clause]]:
    found, judging = Outcome.ACCEPT, _Judging(table, packet)
    for base in table.hooks.get(hook, ()):
        if Outcome.ACCEPT in found:
            found = found & ~Outcome.ACCEPT | judging.say(base)
    return found, judging.met


@dataclass(slots=True)
class _Judging:
    """One packet on its way through a table."""

    table: Table
    packet: Packet
    met: list[Clause] = field(default_factory=list)
    said: dict[str, Outcome] = field(default_factory=dict)
    """What chains said of it: each is asked once, however many calls lead there."""

    def say(self, chain: str) -> Outcome:
        if chain not in self.said:
            self.said[chain] = self._ask(chain)
        return self.said[chain]

    def _ask(self, chain: str) -> Outcome:
        found = Outcome.NOTHING
        for clause in self.table.chains[chain]:
            if not all(match.holds(self.packet) for match in clause.matches):
                continue
            said, goes_on = clause.verdict, not clause.certain
            if isinstance(said, Call):
                call, said = said, self.say(said.chain)
                if Outcome.RETURN in said and not call.goto:
                    said, goes_on = said & ~Outcome.RETURN, True
            else:
                self.met.append(clause)
            found |= said
            if not goes_on:
                return found
        return found | Outcome.RETURN


def joined(spans: Iterable[tuple[int, int]]) -> Ranges:
    """Spans in any order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)
