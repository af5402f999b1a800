"""Proofs that hold for other namespaces too: tables that differ in their own addresses alone.

What pods with the same policies are to do differs in one thing, that each may reach itself. So two
tables are held against each other once without the clauses that say so, and for each pod of what
it sends itself. Elsewhere those clauses decide nothing: what agrees in both ways agrees in all.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ringfence.policy.proof.classes import disagreement
from ringfence.policy.proof.packets import Axis, Call, Clause, Match, Outcome, Table

_ENDS = frozenset({Axis.SOURCE, Axis.DESTINATION})
_REMEMBERED = 256


@dataclass
class Agreed:
    """The tables that were last found to let through the same at a hook, by digest."""

    _held: dict[bytes, None] = field(default_factory=dict)

    def agree(self, one: Table, other: Table, hook: str, own: Collection[int]) -> bool:
        """Whether they are known, or found, to; where not they may do so all the same.

        `own` are the addresses of the namespace, as numbers. Raises UnprovableError.
        """
        for address in own:
            if disagreement(_of(one, address), _of(other, address), hook, 0).differing:
                return False
        bare = _without(one, own), _without(other, own)
        digest = _digest(bare, hook)
        if digest not in self._held and disagreement(*bare, hook, 0).differing:
            return False
        self._held.pop(digest, None)
        self._held[digest] = None  # now the last one
        if len(self._held) > _REMEMBERED:
            del self._held[next(iter(self._held))]
        return True


def _of(table: Table, address: int) -> Table:
    """The table for packets from an address to itself."""
    return replace(
        table,
        chains={name: tuple(_meeting(clauses, address)) for name, clauses in table.chains.items()},
    )


def _meeting(clauses: Iterable[Clause], address: int) -> Iterator[Clause]:
    """Those that such a packet may meet, without what they ask of its ends."""
    for clause in clauses:
        if all(_holds(one, address) for one in clause.matches if one.axis in _ENDS):
            others = tuple(one for one in clause.matches if one.axis not in _ENDS)
            yield replace(clause, matches=others)


def _holds(match: Match, address: int) -> bool:
    return match.negated is not any(first <= address <= last for first, last in match.values)


def _without(table: Table, own: Iterable[int]) -> Table:
    """The table without the clauses by which one of these addresses may reach itself."""
    to_itself = [
        frozenset({Match(axis, ((address, address),)) for axis in _ENDS}) for address in own
    ]
    chains = {
        name: tuple(clause for clause in held if not _passes(clause, to_itself))
        for name, held in table.chains.items()
    }
    return replace(table, chains=chains)


def _passes(clause: Clause, to_itself: Collection[frozenset[Match]]) -> bool:
    return (
        clause.verdict is Outcome.ACCEPT
        and clause.certain
        and len(clause.matches) == len(_ENDS)
        and frozenset(clause.matches) in to_itself
    )


def _digest(tables: Collection[Table], hook: str) -> bytes:
    """Of all that decides, so not of what clauses are called."""
    told = [
        (table.family, table.hooks.get(hook), name, [_told(clause) for clause in clauses])
        for table in tables
        for name, clauses in table.chains.items()
    ]
    return hashlib.sha256(repr((hook, told)).encode()).digest()


def _told(clause: Clause) -> object:
    verdict = clause.verdict
    does = (verdict.chain, verdict.goto) if isinstance(verdict, Call) else verdict.value
    asked = [(one.axis.value, one.values, one.negated) for one in clause.matches]
    return asked, clause.certain, does
