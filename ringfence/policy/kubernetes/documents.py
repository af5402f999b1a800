"""YAML and JSON files as objects. What cannot be read is passed over and told, sizes are bounded.

A folder of manifests holds more than policies, such as templates and documents that are broken;
only a policy that is not sound is an error, and not found here.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from ringfence.policy.errors import ManifestError
from ringfence.policy.kubernetes.manifests import Manifest

MAX_BYTES = 64 << 20
"""Of one file."""
MAX_VALUES = 5_000_000
"""Of one document, with every alias written out: a few lines of YAML can stand for billions."""
_MAX_DEPTH = 100
_LIST = "List"
_DEEP_BLOCK = re.compile(rb"^[ \t?:-]{100}", re.MULTILINE)
"""Blocks nest by what stands before a line's text."""


class _Loader(yaml.CSafeLoader):
    """Leaves dates and times as text, as Kubernetes has them."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass
class Folder:
    """The objects of some files, and what was passed over."""

    manifests: list[Manifest] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, file: str, content: bytes) -> None:
        """Read one more file; raises ManifestError for one of an absurd size."""
        if len(content) > MAX_BYTES:
            raise ManifestError(f"{file}: expected at most {MAX_BYTES >> 20} MiB")
        number = 0
        try:
            for number, document in enumerate(_load(content), 1):
                if _values(document, {}, 0) > MAX_VALUES:
                    raise ManifestError(
                        f"{file}: document {number}: expected at most {MAX_VALUES} values, "
                        f"{_MAX_DEPTH} deep"
                    )
                for one in _objects(document, {}):
                    self.manifests.append(Manifest(file, number, one))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}" if mark else f"after document {number}"
            problem = getattr(error, "problem", None) or str(error)[:200]
            self.warnings.append(f"{file}: {where}: not YAML, passed over from here: {problem}")


def _load(content: bytes) -> Iterator[Any]:
    if content.lstrip().startswith(b"{"):
        with suppress(ValueError):
            return iter([json.loads(content)])
    brackets = content.count(b"[") + content.count(b"{")
    if brackets > _MAX_DEPTH or _DEEP_BLOCK.search(content):
        _refuse_depth(content)
    return yaml.load_all(content, Loader=_Loader)


def _refuse_depth(content: bytes) -> None:
    """Composing recurses in C, and would end the process; listing events does not."""
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError("too deep")


def _values(value: Any, known: dict[int, int], depth: int) -> int:
    """The number of values in one, aliases written out; too many if it is too deep or endless."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        # What contains itself finds this while it is counted.
        known[id(value)] = MAX_VALUES + 1
        if depth < _MAX_DEPTH:
            inside = value.values() if isinstance(value, dict) else value
            known[id(value)] = 1 + sum(_values(one, known, depth + 1) for one in inside)
    return known[id(value)]


def _objects(document: Any, inherited: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of a document: itself, or those of a list, whose kind may be the list's."""
    if not isinstance(document, dict):
        return
    given = inherited | document
    kind, items = given.get("kind"), given.get("items")
    if isinstance(kind, str) and kind.endswith(_LIST) and isinstance(items, list):
        typed = {"kind": kind.removesuffix(_LIST), "apiVersion": given.get("apiVersion")}
        for item in items:
            yield from _objects(item, typed if typed["kind"] else {})
    else:
        yield given
