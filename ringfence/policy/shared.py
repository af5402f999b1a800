"""Programs, equal ones once, and what each of them refers to."""

import hashlib
from collections.abc import Collection, Iterable

import msgspec

from ringfence.model.errors import InputError
from ringfence.policy.program import Program, ProgramId, Rule, SetId

_DIGEST = 32
"""Hex digits: nobody finds two programs of one name, though they write the rules of both."""


class Programs:
    """Programs by name. A name says what they are, so it never means another one."""

    def __init__(self) -> None:
        self._held: dict[ProgramId, Program] = {}
        self._named: dict[tuple[Rule, ...], ProgramId] = {}
        self._sets: dict[ProgramId, frozenset[SetId]] = {}
        self._encoded: dict[ProgramId, msgspec.Raw] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._held)

    def share(self, rules: Iterable[Rule]) -> ProgramId:
        """The name of the program that rules are; raises InputError if another one has it."""
        reached = effective(rules)
        name = self._named.get(reached)
        if name is None:
            program = Program(reached)
            digest = hashlib.sha256(msgspec.json.encode(program, order="deterministic"))
            name = ProgramId("p" + digest.hexdigest()[:_DIGEST])
            if name in self._held:
                raise InputError(f"two programs have the name {name}")
            self._named[reached] = name
            self._held[name] = program
            self._sets[name] = sets_of(reached)
        return name

    def __getitem__(self, name: ProgramId) -> Program:
        """The program of that name."""
        return self._held[name]

    def sets(self, name: ProgramId) -> frozenset[SetId]:
        """What a program refers to."""
        return self._sets[name]

    def encoded(self, name: ProgramId) -> msgspec.Raw:
        """The program as JSON."""
        if name not in self._encoded:
            encoded = msgspec.json.encode(self._held[name], order="deterministic")
            self._encoded[name] = msgspec.Raw(encoded)
        return self._encoded[name]

    def keep(self, used: Collection[ProgramId]) -> None:
        """Forget all others."""
        for name in self._held.keys() - used:
            del self._named[self._held.pop(name).rules]
            del self._sets[name]
            self._encoded.pop(name, None)


def effective(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules that can be reached: none after one that matches everything, none twice."""
    kept: dict[tuple[object, ...], Rule] = {}
    for rule in rules:
        kept.setdefault((rule.protocol, rule.ports, rule.peers, rule.local, rule.behind), rule)
        if rule.matches_all:
            break
    return tuple(kept.values())


def sets_of(rules: Iterable[Rule]) -> frozenset[SetId]:
    """The sets that rules refer to."""
    return frozenset(
        held
        for rule in rules
        for held in (rule.peers, rule.local, rule.behind and rule.behind.peers)
        if held
    )
