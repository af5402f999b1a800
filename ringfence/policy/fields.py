"""Typed reading of YAML nodes: every complaint carries the file, the line and the field."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TypeVar

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ringfence.model.errors import InputError
from ringfence.policy.errors import DocumentError

T = TypeVar("T")
TAG = "tag:yaml.org,2002:"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL = re.compile("-?(0|[1-9][0-9]{0,9})")
"""A number of YAML that reads so everywhere: 010 is eight in version 1.1 and ten in 1.2."""
_MOST = 2**31 - 1
_COUNT = re.compile("0|[1-9][0-9]{0,18}")
_MOST_COUNTED = 2**63 - 1
_FRACTION = re.compile(r"[01]\.[0-9]{1,18}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:]{8}(Z|[+-][0-9]{2}:[0-9]{2}))?")
_LONGEST_NAME = 1000
_TIME_FORM = "write 2026-12-31T18:00:00Z, with a time zone, or a date, whose midnight is in UTC"


class Field:
    """One value of a document and where it stands."""

    def __init__(self, file_name: str, path: str, node: Node) -> None:
        self._file_name, self._path, self._node = file_name, path, node

    def error(self, message: str) -> DocumentError:
        """A complaint about this field, to be raised by the caller."""
        line = self._node.start_mark.line + 1
        return DocumentError(self._file_name, line, self._path, message)

    def fields(self, known: Iterable[str]) -> "dict[str, Field]":
        """The value as a mapping with none but the known keys, each at most once."""
        if not isinstance(self._node, MappingNode):
            raise self.error("a mapping (key: value) is wanted here")
        known, found = list(known), dict[str, Field]()
        for key, value in self._node.value:
            name = str(key.value)
            at = Field(self._file_name, f"{self._path}.{name}" if self._path else name, key)
            if name not in known:
                raise at.error(f"unknown field{suggest(name, known)}")
            if name in found:
                raise at.error("given twice")
            found[name] = at._with(value)
        return found

    def required(self, known: Iterable[str], *needed: str) -> "dict[str, Field]":
        """As `fields`, and the needed keys are there."""
        found = self.fields(known)
        for name in needed:
            if name not in found:
                raise self.error(f"field {name!r} is missing")
        return found

    def items(self) -> "Iterator[Field]":
        """The value as a sequence."""
        if not isinstance(self._node, SequenceNode):
            raise self.error("a list is wanted here")
        for position, node in enumerate(self._node.value):
            yield Field(self._file_name, f"{self._path}[{position}]", node)

    def one_or_more(self) -> "Iterator[Field]":
        """The value as a sequence, a single scalar standing for a list of one."""
        return iter([self]) if isinstance(self._node, ScalarNode) else self.items()

    def text(self) -> str:
        """The value as text that is not empty."""
        value = self._scalar("str", "text is wanted here; write it in quotes")
        if not value:
            raise self.error("is empty")
        return value

    def name(self) -> str:
        """The value as text that stands in tables and messages."""
        value = self.text()
        if len(value) > _LONGEST_NAME or not value.isprintable():
            raise self.error(f"a name has {_LONGEST_NAME} printable letters at most")
        return value

    def integer(self) -> int:
        """The value as a decimal integer of 32 bits."""
        value = self._scalar("int", "a whole number is wanted here")
        if not _DECIMAL.fullmatch(value) or abs(int(value)) > _MOST:
            raise self.error(f"write a whole number in decimal, from -{_MOST} to {_MOST}")
        return int(value)

    def count(self) -> int:
        """The value as a whole number from 0 on, of 63 bits."""
        value = self._scalar("int", "a whole number is wanted here")
        if not _COUNT.fullmatch(value) or int(value) > _MOST_COUNTED:
            raise self.error(f"write a whole number in decimal, from 0 to {_MOST_COUNTED}")
        return int(value)

    def fraction(self) -> float:
        """The value as a number from 0 to 1, in decimal."""
        if isinstance(self._node, ScalarNode) and self._node.tag == f"{TAG}int":
            return float(self.count())
        value = self._scalar("float", "a number from 0 to 1 is wanted here")
        if not _FRACTION.fullmatch(value):
            raise self.error("write a number from 0 to 1 in decimal, such as 0.95")
        return float(value)

    def boolean(self) -> bool:
        """The value as true or false."""
        value = self._scalar("bool", "true or false is wanted here").lower()
        if value not in ("true", "false"):
            raise self.error("write true or false")
        return value == "true"

    def word(self) -> str:
        """The value as text or a number, as it is written."""
        if isinstance(self._node, ScalarNode) and self._node.tag == f"{TAG}int":
            return str(self.integer())
        return self.name()

    def instant(self) -> int:
        """The value as a time (RFC 3339) or a date, its midnight in UTC: epoch ns."""
        if isinstance(self._node, ScalarNode) and self._node.tag == f"{TAG}timestamp":
            return self.read(parse_instant, str(self._node.value))
        return self.read(parse_instant, self.text())

    def choice(self, choices: Iterable[str]) -> str:
        """The value as one of the choices."""
        value, allowed = self.name(), list(choices)
        if value not in allowed:
            raise self.error(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def read(self, parse: Callable[[str], T], text: str) -> T:
        """What `parse` makes of the text, its refusal told of this field."""
        try:
            return parse(text)
        except (InputError, ValueError) as error:
            raise self.error(str(error)) from error

    def _scalar(self, tag: str, complaint: str) -> str:
        if not isinstance(self._node, ScalarNode) or self._node.tag != TAG + tag:
            raise self.error(complaint)
        return str(self._node.value)

    def _with(self, node: Node) -> "Field":
        return Field(self._file_name, self._path, node)


def parse_instant(text: str) -> int:
    """Read `2026-12-31T18:00:00Z` or `2026-12-31`, in UTC, as epoch ns; raises InputError."""
    form = _TIME.fullmatch(text)
    if not form:
        raise InputError(f"{text[:_LONGEST_NAME]!r} is not a time: {_TIME_FORM}")
    try:
        at = datetime.fromisoformat(text if form[1] else f"{text}T00:00:00Z").astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{text!r} is no time that there is: {_TIME_FORM}") from error
    if at < _EPOCH:
        raise InputError(f"{text!r} is before 1970")
    return int(at.timestamp()) * 10**9


def format_instant(at_ns: int) -> str:
    """The whole second, in UTC, as `parse_instant` reads it."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name that is none: the nearest known one, or all of them."""
    known = list(known)
    near = get_close_matches(name[:_LONGEST_NAME], known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""
