"""A program in the few lookups that a kernel answers at once, however many rules it has.

Neighbouring rules that say one thing may be asked in any order, or together. Many of them become
one lookup: boxes, each some addresses, a protocol and some ports, of which no two overlap. Which
of several DENYs decides is what drop reports tell, so each box keeps the first that holds it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, pairwise
from typing import TypeVar

from ringfence.model.address import Network
from ringfence.model.policy import Action
from ringfence.model.protocol import SCTP, TCP, UDP, PortRange
from ringfence.policy.program import Rule, SetId

FEW = 8
"""So many rules of a kind stand as they are, legible and with counters of their own."""
MOST_BLOCKS = 4096
"""A set of more blocks is not taken apart: its rule stands, and refers to it."""
HAS_PORTS = (TCP, UDP, SCTP)
"""Protocols with a destination port, in the same place."""
_ALL_PORTS = (PortRange(0, 65535),)
_Told = TypeVar("_Told")


class Shape(Enum):
    """What a lookup looks at: the remote end, the protocol and the destination port, or both."""

    PEERS = "peers"
    PORTS = "ports"
    BOTH = "both"


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Packets of one part of a lookup; what its shape does not look at is None.

    `first` and `last` are addresses as numbers of 128 bits. `handle` is that of the rule that
    decides, empty in a lookup that allows.
    """

    first: int | None
    last: int | None
    protocol: int | None
    ports: PortRange | None
    handle: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rules that say one thing and are asked together."""

    shape: Shape
    action: Action
    rejects: bool
    boxes: tuple[Box, ...]


def grouped(
    rules: Sequence[Rule], sets: Mapping[SetId, Iterable[Network]], *, v4: bool
) -> Iterator[Rule | Lookup]:
    """The rules for the packets of one family, in order; they decide as the program does."""
    blocks = _Blocks(sets, v4=v4)
    said = groupby(enumerate(rules), key=lambda placed: (placed[1].action, placed[1].rejects))
    for (action, rejects), run in said:
        shaped = [(blocks.shape(rule), place, rule) for place, rule in run]
        if action is Action.ALLOW:
            # Which of them allows changes nothing.
            shaped.sort(key=lambda entry: entry[0].value if entry[0] else "~")
        for shape, group in groupby(shaped, key=lambda entry: entry[0]):
            some = [(place, rule) for _, place, rule in group]
            if shape is None or len(some) <= FEW:
                yield from (rule for _, rule in some)
            else:
                boxes = tuple(_boxes(shape, action, some, blocks))
                yield Lookup(shape, action, rejects, boxes)


class _Blocks:
    """The blocks of one family in each set, as first and last address."""

    def __init__(self, sets: Mapping[SetId, Iterable[Network]], *, v4: bool) -> None:
        self._sets, self._v4 = sets, v4
        self._known: dict[SetId, list[tuple[int, int]]] = {}

    def of(self, name: SetId | None) -> list[tuple[int, int]]:
        if name is None:
            return []
        if name not in self._known:
            held = (block for block in self._sets[name] if block.is_v4 == self._v4)
            self._known[name] = [(block.first, block.last) for block in held]
        return self._known[name]

    def shape(self, rule: Rule) -> Shape | None:
        """The lookup that can hold a rule, None if it has to stand for itself."""
        if rule.local is not None or len(self.of(rule.peers)) > MOST_BLOCKS:
            return None
        if rule.protocol in HAS_PORTS:
            return Shape.BOTH if rule.peers else Shape.PORTS
        return Shape.PEERS if rule.peers and rule.protocol is None else None


_Placed = Sequence[tuple[int, Rule]]
_Part = tuple[int | None, PortRange | None, str]
"""A protocol, some of its ports and the handle of the rule that decides."""


def _boxes(shape: Shape, action: Action, rules: _Placed, blocks: _Blocks) -> Iterator[Box]:
    whose = dict(rules)
    parts: dict[frozenset[int], tuple[_Part, ...]] = {}

    def parts_of(places: frozenset[int]) -> tuple[_Part, ...]:
        if places not in parts:
            some = [(place, whose[place]) for place in sorted(places)]
            parts[places] = tuple(_parts(shape, action, some))
        return parts[places]

    if shape is Shape.PORTS:
        yield from (Box(None, None, *part) for part in parts_of(frozenset(whose)))
        return
    spans = [(first, last, place) for place, rule in rules for first, last in blocks.of(rule.peers)]
    told = ((first, last, parts_of(places)) for first, last, places in _atoms(spans))
    for first, last, held in _joined(told):
        yield from (Box(first, last, *part) for part in held)


def _atoms(spans: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, frozenset[int]]]:
    """Addresses that no rule tells apart, with the places of the rules that hold them."""
    changes: dict[int, set[int]] = {}
    for first, last, place in spans:
        changes.setdefault(first, set()).symmetric_difference_update({place})
        changes.setdefault(last + 1, set()).symmetric_difference_update({place})
    places: frozenset[int] = frozenset()
    for first, following in pairwise(sorted(changes)):
        places ^= changes[first]
        if places:
            yield first, following - 1, places


def _joined(spans: Iterable[tuple[int, int, _Told]]) -> Iterator[tuple[int, int, _Told]]:
    """Neighbours of which the same is told, as one."""
    held: tuple[int, int, _Told] | None = None
    for first, last, told in spans:
        if held and held[1] + 1 == first and held[2] == told:
            held = held[0], last, told
            continue
        if held:
            yield held
        held = first, last, told
    if held:
        yield held


def _parts(shape: Shape, action: Action, rules: _Placed) -> Iterator[_Part]:
    """The ports of which each rule is the first, of any rule if which one does not matter."""
    if shape is Shape.PEERS:
        yield None, None, "" if action is Action.ALLOW else rules[0][1].handle
        return
    whose = dict(rules)
    for protocol in HAS_PORTS:
        spans = [
            (ports.first, ports.last, place)
            for place, rule in rules
            if rule.protocol == protocol
            for ports in rule.ports or _ALL_PORTS
        ]
        deciding = (
            (first, last, "" if action is Action.ALLOW else whose[min(places)].handle)
            for first, last, places in _atoms(spans)
        )
        for first, last, handle in _joined(deciding):
            yield protocol, PortRange(first, last), handle
