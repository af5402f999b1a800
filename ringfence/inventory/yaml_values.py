"""YAML of others as plain values, whatever it is: deep, endless, or of many documents."""

from typing import Any, NoReturn

import yaml

_MOST_LEVELS = 20


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
        self._open: list[tuple[list[Any], str | None]] = []
        """The collections that a value may be in, each with its anchor."""
        self._known: dict[str, Any] = {}

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent(value=text, anchor=anchor):
                plain = event.implicit[0] and not event.style
                self._add(None if plain and text in ("", "~", "null") else text, anchor)
            case yaml.CollectionStartEvent(anchor=anchor):
                if len(self._open) == _MOST_LEVELS:
                    _refuse(f"over {_MOST_LEVELS} levels", event)
                self._open.append(([], anchor))
            case yaml.MappingEndEvent():
                self._end_mapping(event)
            case yaml.SequenceEndEvent():
                self._add(*self._open.pop())
            case yaml.AliasEvent(anchor=anchor):
                if anchor not in self._known:
                    _refuse(f"*{anchor} stands for nothing", event)
                self._add(self._known[anchor], None)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    _refuse("a second document", event)

    def _end_mapping(self, event: yaml.Event) -> None:
        values, anchor = self._open.pop()
        if any(isinstance(key, list | dict) for key in values[::2]):
            _refuse("a key that is no text", event)
        self._add(dict(zip(values[::2], values[1::2], strict=True)), anchor)

    def _add(self, value: Any, anchor: str | None) -> None:
        if anchor:
            self._known[anchor] = value
        if self._open:
            self._open[-1][0].append(value)
        else:
            self.document = value


def _refuse(problem: str, event: yaml.Event) -> NoReturn:
    mark: Any = event.start_mark
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
