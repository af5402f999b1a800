"""A table of ours as nft reads it from the kernel, in the words of packets and clauses.

Never a guess: what is not known here, in a rule, a set or a chain, raises UnprovableError.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np

from ringfence.policy.backends.marks import DROP_MARK, SILENCED_MARK
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.matches import (
    Json,
    Key,
    Matches,
    boxes,
    conditions,
    keys_of,
    shown,
    spans_of,
)
from ringfence.policy.proof.packets import TRANSLATED_OUTPUT, Call, Clause, Outcome, Table

_HOOKS = frozenset({"prerouting", "input", "forward", "output", "postrouting"})
_TRACKED, _TRANSLATED = -200, -100
"""NF_IP_PRI_CONNTRACK and NF_IP_PRI_NAT_DST: between them states are known, and addresses are
those that were dialled."""
_VERDICTS = {
    "accept": Outcome.ACCEPT,
    "drop": Outcome.DROP,
    "return": Outcome.RETURN,
}
_REJECTS = {
    ("tcp reset", None): Outcome.RESET,
    ("icmpx", 3): Outcome.PROHIBITED,
    ("icmpx", "admin-prohibited"): Outcome.PROHIBITED,
}
"""NFT_REJECT_ICMPX_ADMIN_PROHIBITED of linux/netfilter/nf_tables.h, and how nft calls it."""
_DENIES = (Outcome.DROP, *_REJECTS.values())
_MARK = {"meta": {"key": "mark"}}
_DROPS_SILENCED = [
    {"match": {"op": "==", "left": _MARK, "right": SILENCED_MARK}},
    {"mangle": {"key": _MARK, "value": DROP_MARK}},
    {"drop": None},
]
"""What no packet meets but one that was silenced, and one whose sender gave it that mark."""
_SILENCES = [{"silence": None}]
"""Marks what came by no interface, and lets it vanish."""
_SILENCED_AT = ("output", "postrouting")
"""Where packets come by no interface."""
_FEW = 2
_MOST_ALTERNATIVES = 1 << 13
"""Of one rule: a pod may write what it likes into its table."""
_MOST_LEVELS = 64
"""Of chains that call chains. The kernel follows 16 of nftables."""
_NO_EFFECT = frozenset({"counter", "log", "continue"})
_POLICIES = {"accept": Outcome.ACCEPT, "drop": Outcome.DROP}


def read(objects: Iterable[Json], family: int) -> Table:
    """One table as nft's numeric JSON objects, as far as packets of the family meet it.

    Raises UnprovableError.
    """
    return read_into(_Reader(family), objects, "nft")


class Reading(Protocol):
    """Takes what a kernel lists, one object after another, and makes of it a table."""

    def take(self, kind: str, body: Json) -> None:
        """Take one object."""

    def table(self) -> Table:
        """The table, once all are taken."""


def read_into(reader: Reading, objects: Iterable[Json], teller: str) -> Table:
    """The table of what was listed; raises UnprovableError, for nonsense too: a pod may write."""
    try:
        for found in objects:
            for kind, body in found.items():
                reader.take(kind, body)
        return reader.table()
    except (TypeError, LookupError, ValueError, AttributeError) as error:
        raise UnprovableError(f"{teller} tells what it never told of ours: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set or verdict map."""

    value: Json
    verdict: Json = None
    comment: str = ""


class _Reader:
    def __init__(self, family: int) -> None:
        self._family = family
        self._sets: dict[str, Json] = {}
        self._chains: dict[str, Json] = {}
        self._rules: dict[str, list[Json]] = {}
        self._filled: set[str] = set()
        """Sets that rules write into."""

    def take(self, kind: str, body: Json) -> None:
        match kind:
            case "metainfo" | "packet_sockets":
                pass
            case "table":
                if flags := body.get("flags"):
                    raise UnprovableError(f"the table has the flags {shown(flags)}")
            case "set" | "map":
                self._sets[body["name"]] = body
            case "chain":
                self._chains[body["name"]] = body
            case "rule":
                self._rules.setdefault(body["chain"], []).append(body)
            case _:
                raise UnprovableError(f"the table holds a {kind}, which ours never does")

    def table(self) -> Table:
        self._filled = {
            part["set"]["set"].removeprefix("@")
            for rules in self._rules.values()
            for rule in rules
            for part in rule["expr"]
            if "set" in part
        }
        chains = {name: tuple(self._chain(name)) for name in self._chains}
        hooks: dict[str, list[str]] = {}
        # Of one priority the kernel asks the latest first.
        latest_first = list(reversed(self._chains.items()))
        for name, body in sorted(latest_first, key=lambda one: one[1].get("prio", 0)):
            if hook := self._hook(name, body):
                if self._last_resort(name):
                    continue
                base = f"{hook}: {name}"
                if base in chains:
                    raise UnprovableError(f"no chain of ours is called {base!r}")
                policy = Clause((), _POLICIES[body["policy"]], f"the policy of chain {name}")
                # Also what was sent on by a goto ends there.
                chains[base] = (Clause((), Call(name, goto=False), name), policy)
                hooks.setdefault(hook, []).append(base)
        short = shortened(chains)
        return not_deep(
            Table(self._family, short, {hook: tuple(held) for hook, held in hooks.items()})
        )

    def _hook(self, name: str, body: Json) -> str | None:
        """Where a base chain hooks, None for others; refuses one that does not stand as ours do."""
        hook = body.get("hook")
        if hook is None:
            return None
        kind, priority = body["type"], body["prio"]
        if hook == "output" and kind == "filter" and priority == _TRANSLATED + 1:
            return TRANSLATED_OUTPUT
        if hook not in _HOOKS or kind != "filter" or not _TRACKED < priority < _TRANSLATED:
            raise UnprovableError(
                f"chain {name} hooks into {hook} as {kind} at priority {priority}, not as a filter"
                f" after connection tracking ({_TRACKED}) and before translation ({_TRANSLATED})"
            )
        return str(hook)

    def _silences(self) -> Outcome:
        """What the rule may do that silences: who listens may give the packet back.

        It is then for the chains that come later at the hook.
        """
        for hook in _SILENCED_AT:
            places = [
                (body["prio"], name)
                for name, body in self._chains.items()
                if body.get("hook") == hook and body["prio"] < _TRANSLATED
            ]
            last = [name for place, name in places if place == max(places)[0]]
            if places and not (len(last) == 1 and self._last_resort(last[0])):
                return Outcome.DROP | Outcome.ACCEPT
        return Outcome.DROP

    def _last_resort(self, name: str) -> bool:
        """Whether a base chain does nothing but to drop what was silenced and given back."""
        rules = [one["expr"] for one in self._rules.get(name, ())]
        return self._chains[name].get("policy") == "accept" and rules == [_DROPS_SILENCED]

    def _chain(self, name: str) -> Iterable[Clause]:
        for rule in self._rules.get(name, ()):
            if rule["expr"] == _DROPS_SILENCED:
                continue
            comment = rule.get("comment")
            where = f"rule {rule['handle']} of chain {name}" + (f" ({comment})" if comment else "")
            if rule["expr"] == _SILENCES:
                yield Clause((), self._silences(), where, certain=False, rule=rule["handle"])
                continue
            try:
                for clause in self._rule(rule["expr"], where):
                    yield replace(clause, rule=rule["handle"])
            except UnprovableError as error:
                raise UnprovableError(f"{where}: {error}") from error

    def _rule(self, parts: Iterable[Json], where: str) -> Iterable[Clause]:
        alternatives: list[Matches] = [()]
        certain = True
        for part in parts:
            ((kind, body),) = part.items()
            if kind in _NO_EFFECT:
                continue
            if kind == "match":
                alternatives = _both(alternatives, self._match(body))
            elif kind == "set":
                certain = False  # a set that is full ends the rule
            elif kind == "mangle":
                alternatives = _both(alternatives, self._mangle(body))
            elif kind == "vmap":
                for each in self._vmap(body, where):
                    for matches in _both(alternatives, [each.matches]):
                        yield replace(each, matches=matches, certain=certain)
                return
            else:
                verdict = self._verdict(part)
                for matches in alternatives:
                    yield Clause(matches, verdict, where, certain)
                return

    def _match(self, body: Json) -> list[Matches]:
        keys, right = keys_of(body["left"]), body["right"]
        values = [element.value for element in self._elements(right)]
        return conditions(keys, body["op"], values, self._family)

    def _mangle(self, body: Json) -> list[Matches]:
        """What a packet must be to get its mark: one that has none in a map ends the rule."""
        if body["key"] != {"meta": {"key": "mark"}}:
            raise UnprovableError(f"changes {shown(body['key'])}, which no rule of ours does")
        match body["value"]:
            case int():
                return [()]
            case {"map": {"key": key, "data": data}}:
                values = [element.value for element in self._elements(data)]
                return boxes(keys_of(key), values, self._family)
        raise UnprovableError(f"marks by {shown(body['value'])}, which no rule of ours does")

    def _verdict(self, part: Json) -> Outcome | Call:
        ((kind, body),) = part.items()
        if kind in ("jump", "goto") and body["target"] in self._chains:
            return Call(body["target"], goto=kind == "goto")
        said = _REJECTS.get(_rejection(body)) if kind == "reject" else _VERDICTS.get(kind)
        if said is None:
            raise UnprovableError(f"has {shown(part)}, which no rule of ours has")
        return said

    def _vmap(self, body: Json, where: str) -> Iterable[Clause]:
        keys = keys_of(body["key"])
        held = self._elements(body["data"])
        groups: dict[tuple[str, str], list[Element]] = {}
        for element in held:
            groups.setdefault((element.comment, json.dumps(element.verdict)), []).append(element)
        if len(keys) > 1:
            _check_apart(keys, held)
        for (comment, _), elements in groups.items():
            verdict = self._verdict(elements[0].verdict)
            for matches in boxes(keys, [element.value for element in elements], self._family):
                yield Clause(matches, verdict, f"{where} ({comment})" if comment else where)

    def _elements(self, right: Json) -> list[Element]:
        """What a match compares with, one by one; a map's elements have verdicts."""
        match right:
            case {"set": [*held]}:
                return [element_of(each) for each in held]
            case str(name) if name.startswith("@"):
                return self._held(name.removeprefix("@"))
        return [Element(right)]

    def _held(self, name: str) -> list[Element]:
        """The elements of a named set or map."""
        body = self._sets[name]
        if "timeout" in body or name in self._filled:
            raise UnprovableError(f"looks into @{name}, which changes by itself")
        if any("counter" not in each for each in body.get("stmt", ())):
            raise UnprovableError(f"looks into @{name}, whose elements do more than count")
        return [element_of(each) for each in body.get("elem", ())]


def _rejection(body: Json) -> tuple[Json, Json]:
    """How a packet is answered: with what, and with which code."""
    return (body.get("type"), body.get("expr")) if isinstance(body, dict) else (None, None)


def element_of(held: Json) -> Element:
    """One element as nft tells it; raises UnprovableError for one that may go by itself."""
    value, verdict = held if isinstance(held, list) else (held, None)
    match value:
        case {"elem": {"val": inner, **others}}:
            if others.keys() - {"comment", "counter"}:
                raise UnprovableError(f"compares with {shown(value)}, which may go by itself")
            return Element(inner, verdict, str(others.get("comment", "")))
    return Element(value, verdict)


def _both(some: list[Matches], others: list[Matches]) -> list[Matches]:
    """What passes one of some alternatives and one of others."""
    if len(some) * len(others) > _MOST_ALTERNATIVES:
        raise UnprovableError(f"asks {len(some)} times {len(others)} things, too many")
    return [(*one, *other) for one, other in product(some, others)]


def _check_apart(keys: list[Key], held: list[Element]) -> None:
    """Refuse elements of which two with different verdicts may hold for one packet.

    The kernel takes such, and nft does not tell which one it asks first.
    """
    _, verdicts = np.unique([json.dumps(e.verdict) for e in held], return_inverse=True)
    if not verdicts.any():
        return
    if len(held) > _MOST_ALTERNATIVES:
        raise UnprovableError(f"maps {len(held)} elements to verdicts, too many")
    spans = [[(s[0][0], s[-1][1]) for s in spans_of(keys, element.value)] for element in held]
    numbers = sorted({end for parts in spans for part in parts for end in part})
    places = {number: place for place, number in enumerate(numbers)}
    ranks = np.array([[[places[end] for end in part] for part in parts] for parts in spans])
    for at, rank in enumerate(ranks):
        meet = (ranks[:, :, 0] <= rank[:, 1]) & (ranks[:, :, 1] >= rank[:, 0])
        if (meet.all(axis=1) & (verdicts != verdicts[at])).any():
            raise UnprovableError(f"says two things about what {shown(held[at].value)} holds")


def shortened(chains: Mapping[str, tuple[Clause, ...]]) -> dict[str, tuple[Clause, ...]]:
    """The same chains, but without calls of those that say nothing, or that deny whatever comes.

    Of the first there are none, and who calls one of the others denies by itself.
    """
    silent = {
        name
        for name, clauses in chains.items()
        if all(clause.verdict is Outcome.RETURN for clause in clauses)
    }
    spoken = {
        name: tuple(clause for clause in clauses if not _jumps(clause, silent))
        for name, clauses in chains.items()
    }
    # What may deny as it is denied in the end adds nothing.
    ends = {
        name: tuple(clause for clause in clauses if clause.certain)
        for name, clauses in spoken.items()
        if _ends(clauses)
    }
    return {
        name: tuple(said for clause in clauses for said in _said(clause, ends))
        for name, clauses in spoken.items()
    }


def not_deep(table: Table) -> Table:
    """The table; raises UnprovableError where calls go deeper than in any of ours.

    iptables-legacy takes them to any depth.
    """
    called = {base for bases in table.hooks.values() for base in bases}
    for _ in range(_MOST_LEVELS):
        clauses = (clause for name in called for clause in table.chains[name])
        called = {one.verdict.chain for one in clauses if isinstance(one.verdict, Call)}
        if not called:
            return table
    raise UnprovableError(f"chains call chains more than {_MOST_LEVELS} levels deep")


def _jumps(clause: Clause, to: Collection[str]) -> bool:
    call = clause.verdict
    return isinstance(call, Call) and not call.goto and call.chain in to


def _ends(clauses: tuple[Clause, ...]) -> bool:
    """Whether whatever comes is denied, by few clauses."""
    return (
        0 < len(clauses) <= _FEW
        and not clauses[-1].matches
        and clauses[-1].certain
        and all(clause.verdict in _DENIES for clause in clauses)
        and all(clause.certain or clause.verdict is clauses[-1].verdict for clause in clauses)
    )


def _said(clause: Clause, ends: Mapping[str, tuple[Clause, ...]]) -> Iterable[Clause]:
    called = clause.verdict.chain if isinstance(clause.verdict, Call) else ""
    if called not in ends:
        return (clause,)
    return (
        replace(clause, matches=(*clause.matches, *end.matches), verdict=end.verdict)
        for end in ends[called]
    )
