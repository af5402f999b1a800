"""Typed reading of YAML nodes: every complaint carries the file, the line and the field."""

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import TypeVar

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ringfence.model.errors import InputError
from ringfence.policy.errors import DocumentError

T = TypeVar("T")
TAG = "tag:yaml.org,2002:"


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

    def integer(self) -> int:
        """The value as a decimal integer."""
        value = self._scalar("int", "a whole number is wanted here")
        return self.read(int, value)

    def boolean(self) -> bool:
        """The value as true or false."""
        value = self._scalar("bool", "true or false is wanted here").lower()
        if value not in ("true", "false"):
            raise self.error("write true or false")
        return value == "true"

    def word(self) -> str:
        """The value as text or a number, as it is written."""
        if isinstance(self._node, ScalarNode) and self._node.tag == f"{TAG}int":
            return str(self._node.value)
        return self.text()

    def choice(self, choices: Iterable[str]) -> str:
        """The value as one of the choices."""
        value, allowed = self.text(), list(choices)
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


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name that is none: the nearest known one, or all of them."""
    known = list(known)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""
