"""The filter language: one grammar for the command line, the API, the console and flow search.

    kubernetes.namespace = "shop" and kubernetes.label.app in ("carts", "orders")
    not vuln.cvss >= 9 or address subnet "10.0.0.0/8" and user.env exists

`not` binds tighter than `and`, `and` tighter than `or`. Keys match case-insensitively, values
exactly. A key may carry several values: a comparison holds if one of them satisfies it, and
`!=` is the negation of `=`, so it holds for an item without the key. `contains` looks for a
substring, `matches` for a regular expression (RE2) over the whole value, `< <= > >=` compare
numbers (a value that is no number never matches), and versions where the key is
`package.version`, `subnet` tests an address. `everything` matches all.
"""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import re2
from lark import Lark, Token, Transformer, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken, VisitError

from ringfence.model.address import parse_network
from ringfence.model.errors import InputError
from ringfence.model.labels import PACKAGE_VERSION
from ringfence.model.operands import in_subnet, number, pattern
from ringfence.model.versions import version_key


class QueryError(InputError):
    """A filter that does not parse; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"filter, line {line}, column {column}: {message}")
        self.line, self.column = line, column


class Operator(StrEnum):
    """How a label is compared."""

    EQ = "="
    NE = "!="
    IN = "in"
    CONTAINS = "contains"
    MATCHES = "matches"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    SUBNET = "subnet"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison; EXISTS has no values, IN one or more, each other operator exactly one."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The comparison in the filter language."""
        if self.operator is Operator.EXISTS:
            return f"{self.key} exists"
        plain = self.operator in _ORDERED and self.key not in VERSIONS
        written = [value if plain else _quoted(value) for value in self.values]
        operand = f"({', '.join(written)})" if self.operator is Operator.IN else written[0]
        return f"{self.key} {self.operator} {operand}"


@dataclass(frozen=True, slots=True)
class Not:
    """Holds where `query` does not."""

    query: "Query"

    def __str__(self) -> str:
        """The negation in the filter language."""
        return f"not {_bracketed(self.query, And | Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """Holds where all hold. Empty is an error, for it would hold everywhere."""

    queries: tuple["Query", ...]

    def __post_init__(self) -> None:
        if not self.queries:
            raise InputError("an empty 'and' would match everything; write `everything`")

    def __str__(self) -> str:
        """The conjunction in the filter language."""
        return " and ".join(_bracketed(query, And | Or) for query in self.queries)


@dataclass(frozen=True, slots=True)
class Or:
    """Holds where one holds. Empty is an error."""

    queries: tuple["Query", ...]

    def __post_init__(self) -> None:
        if not self.queries:
            raise InputError("an empty 'or' would match nothing")

    def __str__(self) -> str:
        """The disjunction in the filter language."""
        return " or ".join(_bracketed(query, Or) for query in self.queries)


@dataclass(frozen=True, slots=True)
class Everything:
    """Holds everywhere, and says so."""

    def __str__(self) -> str:
        """The word itself."""
        return "everything"


Query = Compare | Not | And | Or | Everything


def all_of(*queries: Query) -> Query:
    """The conjunction, each part once, as it is read again from what it is written as."""
    flat = (part for one in queries for part in _conjuncts(one))
    parts = tuple(dict.fromkeys(one for one in flat if not isinstance(one, Everything)))
    return And(parts) if len(parts) > 1 else next(iter(parts), Everything())


def _conjuncts(query: Query) -> Iterator[Query]:
    if not isinstance(query, And):
        yield query
        return
    for one in query.queries:
        yield from _conjuncts(one)


_ORDERED = frozenset({Operator.LT, Operator.LE, Operator.GT, Operator.GE})
VERSIONS = frozenset(end + PACKAGE_VERSION for end in ("", "consumer.", "provider.", "dialled."))
"""The keys whose values are versions, of items and of the ends of flows."""


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _bracketed(query: Query, loose: Any) -> str:
    return f"({query})" if isinstance(query, loose) else str(query)


_GRAMMAR = r"""
start: or_
?or_: and_ (_OR and_)*
?and_: not_ (_AND not_)*
?not_: _NOT not_ -> not_
     | "(" or_ ")"
     | _EVERYTHING -> everything
     | KEY OPERATOR value -> compare
     | KEY _IN "(" value ("," value)* ")" -> in_
     | KEY _EXISTS -> exists
value: STRING | NUMBER
_AND.2: /and(?![A-Za-z0-9_.\/-])/i
_OR.2: /or(?![A-Za-z0-9_.\/-])/i
_NOT.2: /not(?![A-Za-z0-9_.\/-])/i
_IN.2: /in(?![A-Za-z0-9_.\/-])/i
_EXISTS.2: /exists(?![A-Za-z0-9_.\/-])/i
_EVERYTHING.2: /everything(?![A-Za-z0-9_.\/-])/i
OPERATOR.2: "=" | "!=" | "<=" | ">=" | "<" | ">" | /(contains|matches|subnet)(?![A-Za-z0-9_.\/-])/i
KEY: /[A-Za-z_][A-Za-z0-9_.\/-]*/
STRING: /"([^"\\]|\\.)*"/
NUMBER: /-?[0-9]+(\.[0-9]+)?/
%ignore /\s+/
"""

_MOST_LETTERS = 65_536
_MOST_LEVELS = 100
"""Within this all that walks a query may recurse, and the store reads what is made of it."""

_EXPECTED = {
    "KEY": "a label key",
    "OPERATOR": "an operator (= != in contains matches < <= > >= subnet exists)",
    "STRING": 'a quoted string such as "shop"',
    "NUMBER": "a number",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "$END": "the end",
}


class _Build(Transformer[Token, Query]):
    """Turns the parse tree into queries."""

    def start(self, parts: list[Any]) -> Query:
        return parts[0]  # type: ignore[no-any-return]

    def or_(self, parts: list[Any]) -> Query:
        return Or(tuple(parts))

    def and_(self, parts: list[Any]) -> Query:
        return And(tuple(parts))

    def not_(self, parts: list[Any]) -> Query:
        return Not(parts[0])

    def everything(self, _: list[Any]) -> Query:
        return Everything()

    def value(self, parts: list[Token]) -> Token:
        token = parts[0]
        if token.type == "NUMBER":
            return token
        try:
            text = json.loads(token)
            text.encode()  # half a surrogate pair is no text
            return token.update(value=text)
        except ValueError as error:
            what = "an escape that JSON does not know"
            if not token.isprintable():
                what = r"a control letter: write \n, \t or \u0007"
            raise _at(token, f"a string with {what}") from error

    def compare(self, parts: list[Token]) -> Query:
        key, operator, value = parts
        kind = Operator(operator.lower())
        _check_operand(key.lower(), kind, value)
        return Compare(str(key).lower(), kind, (str(value),))

    def in_(self, parts: list[Token]) -> Query:
        key, *values = parts
        return Compare(str(key).lower(), Operator.IN, tuple(str(value) for value in values))

    def exists(self, parts: list[Token]) -> Query:
        return Compare(str(parts[0]).lower(), Operator.EXISTS)


def _at(token: Token, message: str) -> QueryError:
    return QueryError(message, token.line or 1, token.column or 1)


def _check_operand(key: str, operator: Operator, value: Token) -> None:
    """Refuse an operand that could never match, where the person who wrote it still sees it."""
    if operator in _ORDERED and key not in VERSIONS and number(value) is None:
        raise _at(value, f"'{operator}' compares numbers, and {value!s} is none")
    if operator is Operator.SUBNET:
        try:
            parse_network(str(value))
        except InputError as error:
            raise _at(value, str(error)) from error
    if operator is Operator.MATCHES:
        try:
            pattern(value)
        except re2.error as error:
            why = error.args[0].decode(errors="replace")
            message = f"not a regular expression of RE2, which has no look-around: {why}"
            raise _at(value, message) from error


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", propagate_positions=True)


def parse(text: str) -> Query:
    """Read a filter; `parse(str(query)) == query`. Raises QueryError with line and column."""
    if len(text) > _MOST_LETTERS:
        raise QueryError(f"longer than {_MOST_LETTERS} letters")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise QueryError(_explain(error, text), *_where(error, text)) from error
    if _levels(tree) > _MOST_LEVELS:
        raise QueryError(f"more than {_MOST_LEVELS} levels of `not` and parentheses")
    try:
        return _Build().transform(tree)
    except VisitError as error:
        raise error.orig_exc from None


def _levels(tree: Tree[Token]) -> int:
    """How deep a parse tree is."""
    level, levels = [tree], 0
    while level:
        level = [child for node in level for child in node.children if isinstance(child, Tree)]
        levels += 1
    return levels


def _explain(error: UnexpectedInput, text: str) -> str:
    at: int = error.pos_in_stream  # type: ignore[assignment]
    if isinstance(error, UnexpectedToken):
        ended = error.token.type == "$END"
        found, at = ("the end", len(text)) if ended else (repr(str(error.token)), at)
    else:
        found = repr(text[at])
    # What is told by the error itself knows less of what may follow.
    before: Any = _parser().parse_interactive(text[:at])
    before.exhaust_lexer()
    names = before.accepts()
    if found == repr('"') and "STRING" in names:
        return "a quoted string that has no end"
    wanted = sorted(_EXPECTED.get(name, f"'{name.strip('_').lower()}'") for name in names)
    return f"found {found}, expected {' or '.join(wanted)}"


def _where(error: UnexpectedInput, text: str) -> tuple[int, int]:
    """Line and column of what was found; the end is behind the last letter."""
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        lines = text.split("\n")
        return len(lines), len(lines[-1]) + 1
    return max(error.line, 1), max(error.column, 1)


_ORDERS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}


def value_matches(compare: Compare, have: str) -> bool:
    """Whether one value of a label satisfies the comparison; not for NE, which negates EQ."""
    want = compare.values
    match compare.operator:
        case Operator.EXISTS:
            return True
        case Operator.EQ | Operator.IN:
            return have in want
        case Operator.CONTAINS:
            return want[0] in have
        case Operator.MATCHES:
            return bool(pattern(want[0]).fullmatch(have))
        case Operator.SUBNET:
            return in_subnet(have, want[0])
        case Operator.LT | Operator.LE | Operator.GT | Operator.GE:
            holds = _ORDERS[compare.operator]
            if compare.key in VERSIONS:
                return holds(version_key(have), version_key(want[0]))
            count, bound = number(have), number(want[0])
            return count is not None and bound is not None and holds(count, bound)
        case Operator.NE:
            raise InputError("'!=' is judged on all values together, as the negation of '='")


def matches(query: Query, labels: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether an item with these labels (keys in lower case) satisfies the query."""
    match query:
        case Everything():
            return True
        case And(queries):
            return all(matches(part, labels) for part in queries)
        case Or(queries):
            return any(matches(part, labels) for part in queries)
        case Not(inner):
            return not matches(inner, labels)
        case Compare(key, Operator.NE, values):
            return not matches(Compare(key, Operator.EQ, values), labels)
        case Compare(key):
            return any(value_matches(query, have) for have in labels.get(key, ()))


def keys(query: Query) -> Iterator[str]:
    """Every key that a query compares, in the order written."""
    return (compare.key for compare in comparisons(query))


def comparisons(query: Query) -> Iterator[Compare]:
    """Every comparison of a query, in the order written."""
    match query:
        case Compare():
            yield query
        case And(queries) | Or(queries):
            for part in queries:
                yield from comparisons(part)
        case Not(inner):
            yield from comparisons(inner)
        case Everything():
            return


def confined(query: Query, key: str) -> frozenset[str] | None:
    """Values of which an item that satisfies the query has one for the key; None for any."""
    match query:
        case Compare(compared, Operator.EQ | Operator.IN, values) if compared == key:
            return frozenset(values)
        case And(queries):
            found = [held for part in queries if (held := confined(part, key)) is not None]
            return min(found, key=len) if found else None
        case Or(queries):
            either = [confined(part, key) for part in queries]
            every = [held for held in either if held is not None]
            return frozenset().union(*every) if len(every) == len(either) else None
    return None
