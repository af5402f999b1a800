"""A program in the few lookups that a kernel answers at once, however many rules it has.

Many rules become boxes, each some addresses, a protocol and some ports. No two overlap, so they may
be asked in any order: each box is told by the first rule that holds it, and those that are told
one thing are one lookup.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, pairwise
from typing import TypeVar

from ringfence.model.address import Network
from ringfence.model.policy import Action
from ringfence.model.protocol import SCTP, TCP, UDP, PortRange
from ringfence.policy.handle import is_widened
from ringfence.policy.program import Rule, SetId

FEW = 8
"""So many rules of a kind stand as they are, legible and with counters of their own."""
MOST_BLOCKS = 4096
"""A set of more blocks is not taken apart: its rule stands, and refers to it."""
MOST_BOXES = 16_384
"""Rules that would make more, where many name the same large sets, stand and share the sets."""
HAS_PORTS = (TCP, UDP, SCTP)
"""Protocols with a destination port, in the same place."""
_ALL_PORTS = (PortRange(0, 65535),)
_ALL_V4, _ALL_V6 = (0xFFFF << 32, (0x10000 << 32) - 1), (0, 2**128 - 1)
_Told = TypeVar("_Told")


class Shape(Enum):
    """What a lookup looks at: the remote end, the protocol and the destination port, or both."""

    PEERS = "peers"
    PORTS = "ports"
    BOTH = "both"


_SHAPES = (Shape.BOTH, Shape.PEERS, Shape.PORTS)
_WITH_PORTS = (Shape.PORTS, Shape.BOTH)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Packets of one part of a lookup; what its shape does not look at is None.

    `first` and `last` are addresses as numbers of 128 bits. `handle` is that of the rule that
    decides, empty if it allows no more than its policy.
    """

    first: int | None
    last: int | None
    protocol: int | None
    ports: PortRange | None
    handle: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Boxes of which one thing is told."""

    shape: Shape
    action: Action
    rejects: bool
    boxes: tuple[Box, ...]


def grouped(
    rules: Sequence[Rule], sets: Mapping[SetId, Iterable[Network]], *, v4: bool
) -> Iterator[Rule | Lookup]:
    """The rules for the packets of one family, in order; they decide as the program does."""
    blocks = _Blocks(sets, v4=v4)
    *before, last = rules
    for divisible, run in groupby(before, key=blocks.divisible):
        some = list(run)
        yield from _asked_together(some, blocks) if divisible and len(some) > FEW else some
    yield last


class _Blocks:
    """The blocks of one family in each set, as first and last address."""

    def __init__(self, sets: Mapping[SetId, Iterable[Network]], *, v4: bool) -> None:
        self._sets, self._v4 = sets, v4
        self._known: dict[SetId, list[tuple[int, int]]] = {}

    def of(self, name: SetId | None) -> list[tuple[int, int]]:
        """The blocks of a set, all addresses for None."""
        if name is None:
            return [_ALL_V4 if self._v4 else _ALL_V6]
        if name not in self._known:
            held = (block for block in self._sets[name] if block.is_v4 == self._v4)
            self._known[name] = [(block.first, block.last) for block in held]
        return self._known[name]

    def divisible(self, rule: Rule) -> bool:
        """Whether a rule can be taken apart; one that matches everything ends what is before it."""
        everything = rule.protocol is None and rule.peers is None
        return not (everything or rule.local) and len(self.of(rule.peers)) <= MOST_BLOCKS


def _asked_together(rules: Sequence[Rule], blocks: _Blocks) -> Iterator[Rule | Lookup]:
    shaped = [(_shape(rule), rule) for rule in rules]
    if all(rule.action is Action.ALLOW for rule in rules):
        yield from _allowed(shaped, blocks)
        return
    if any(shape in _WITH_PORTS for shape, _ in shaped):
        # Of protocols with ports all is told here, so that for what follows there are no others.
        found = _lookups(Shape.BOTH, [rule for shape, rule in shaped if shape], blocks)
        if found is None:
            yield from rules
            return
        yield from found
        shaped = [(shape, rule) for shape, rule in shaped if shape not in _WITH_PORTS]
    for shape, group in groupby(shaped, key=lambda entry: entry[0]):
        some = [rule for _, rule in group]
        found = _lookups(shape, some, blocks) if shape and len(some) > FEW else None
        yield from some if found is None else found


def _allowed(
    shaped: Sequence[tuple[Shape | None, Rule]], blocks: _Blocks
) -> Iterator[Rule | Lookup]:
    """Rules of which any may allow: their order changes nothing.

    Where one shape needs a lookup every shape has one, even of nothing: then rules of whatever
    shape that come and go change elements only.
    """
    by_shape = {shape: [rule for its, rule in shaped if its is shape] for shape in (*_SHAPES, None)}
    many = any(shape and len(some) > FEW for shape, some in by_shape.items())
    for shape, some in by_shape.items():
        found = _lookups(shape, some, blocks) if shape and many else None
        if found is None:
            yield from some
        else:
            yield from found or [Lookup(Shape(shape), Action.ALLOW, rejects=False, boxes=())]


def _shape(rule: Rule) -> Shape | None:
    """The lookup that can hold a rule, None if it has to stand for itself."""
    if rule.protocol in HAS_PORTS:
        return Shape.BOTH if rule.peers else Shape.PORTS
    return Shape.PEERS if rule.peers and rule.protocol is None else None


_Answer = tuple[Action, bool, str]
"""Action, whether it rejects, and the handle of the rule, which is told if it denies or widens."""
_Part = tuple[int | None, PortRange | None, _Answer]
"""A protocol, some of its ports and what is told."""


def _answer(rule: Rule) -> _Answer:
    told = rule.action is Action.DENY or is_widened(rule.handle)
    return rule.action, rule.rejects, rule.handle if told else ""


def _lookups(shape: Shape, rules: Sequence[Rule], blocks: _Blocks) -> list[Lookup] | None:
    """What the first of the rules tells of each packet that one holds; None if that is too much."""
    told: dict[tuple[Action, bool], list[Box]] = {}
    for count, (first, last, part) in enumerate(_divided(shape, rules, blocks)):
        if count == MOST_BOXES:
            return None
        protocol, ports, (action, rejects, handle) = part
        told.setdefault((action, rejects), []).append(Box(first, last, protocol, ports, handle))
    return [Lookup(shape, *said, tuple(boxes)) for said, boxes in sorted(told.items())]


def _divided(
    shape: Shape, rules: Sequence[Rule], blocks: _Blocks
) -> Iterator[tuple[int | None, int | None, _Part]]:
    parts: dict[frozenset[int], tuple[_Part, ...]] = {}

    def parts_of(places: frozenset[int]) -> tuple[_Part, ...]:
        if places not in parts:
            parts[places] = tuple(_parts(shape, [rules[place] for place in sorted(places)]))
        return parts[places]

    if shape is Shape.PORTS:
        yield from ((None, None, part) for part in parts_of(frozenset(range(len(rules)))))
        return
    spans = [
        (first, last, place)
        for place, rule in enumerate(rules)
        for first, last in blocks.of(rule.peers)
    ]
    told = ((first, last, parts_of(places)) for first, last, places in _atoms(spans))
    for first, last, held in _joined(told):
        yield from ((first, last, part) for part in held)


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


def _parts(shape: Shape, rules: Sequence[Rule]) -> Iterator[_Part]:
    """The ports of which each rule is the first; a rule about any protocol has all of them."""
    if shape is Shape.PEERS:
        yield None, None, _answer(rules[0])
        return
    if len(rules) == 1 and len(rules[0].ports) == 1 and rules[0].protocol is not None:
        yield rules[0].protocol, rules[0].ports[0], _answer(rules[0])
        return
    for protocol in HAS_PORTS:
        spans = [
            (ports.first, ports.last, place)
            for place, rule in enumerate(rules)
            if rule.protocol in (None, protocol)
            for ports in rule.ports or _ALL_PORTS
        ]
        deciding = ((first, last, _answer(rules[min(at)])) for first, last, at in _atoms(spans))
        for first, last, answer in _joined(deciding):
            yield protocol, PortRange(first, last), answer
