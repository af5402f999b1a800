"""YAML of others as plain values, whatever it is: deep, endless, or of many documents."""

from typing import Any, NoReturn

import yaml

_MOST_LEVELS = 20
_MOST_REPEATED = 500_000
"""Values that aliases may stand for in all: whoever reads the document meets each of them anew.
A long text counts as several."""
_TEXT = 100


def yaml_values(text: str) -> Any:
    """A document as mappings, lists and texts; None for null. Raises yaml.YAMLError.

    Made from events: composing recurses in C, and a deep document would end the process.
    """
    reader = _Reader()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        reader.take(event)
    return reader.document


class _Reader:
    def __init__(self) -> None:
        self.document: Any = None
        self._documents = 0
        self._open: list[tuple[list[Any], str | None, int]] = []
        """The collections that a value may be in, each with its anchor and where it began."""
        self._known: dict[str, tuple[Any, int]] = {}
        """Values by anchor, with how many values are in them."""
        self._values = self._repeated = 0
        """How many there are so far, each alias counted as all that it stands for."""

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent(value=text, anchor=anchor):
                plain = event.implicit[0] and not event.style
                begun = self._values
                self._values += 1 + len(text) // _TEXT
                self._add(None if plain and text in ("", "~", "null") else text, anchor, begun)
            case yaml.CollectionStartEvent(anchor=anchor):
                if len(self._open) == _MOST_LEVELS:
                    _refuse(f"over {_MOST_LEVELS} levels", event)
                self._open.append(([], anchor, self._values))
                self._values += 1
            case yaml.MappingEndEvent():
                self._end_mapping(event)
            case yaml.SequenceEndEvent():
                self._add(*self._open.pop())
            case yaml.AliasEvent(anchor=anchor):
                self._repeat(event, anchor)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    _refuse("a second document", event)

    def _end_mapping(self, event: yaml.Event) -> None:
        values, anchor, begun = self._open.pop()
        if any(isinstance(key, list | dict) for key in values[::2]):
            _refuse("a key that is no text", event)
        self._add(dict(zip(values[::2], values[1::2], strict=True)), anchor, begun)

    def _repeat(self, event: yaml.Event, anchor: str | None) -> None:
        if anchor is None or anchor not in self._known:
            _refuse(f"*{anchor} stands for nothing", event)
        value, count = self._known[anchor]
        self._values += count
        self._repeated += count
        if self._repeated > _MOST_REPEATED:
            _refuse(f"aliases that stand for over {_MOST_REPEATED:,} values", event)
        self._add(value, None, self._values)

    def _add(self, value: Any, anchor: str | None, begun: int) -> None:
        if anchor:
            self._known[anchor] = value, self._values - begun
        if self._open:
            self._open[-1][0].append(value)
        else:
            self.document = value


def _refuse(problem: str, event: yaml.Event) -> NoReturn:
    mark: Any = event.start_mark
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
