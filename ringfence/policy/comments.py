"""Comments of YAML documents, carried over to the canonical text of the same documents.

PyYAML reads no comments, so they are found in what lies between its tokens. A comment belongs to
the field or the list entry that it stands at the end of or above; by the path of that it is put
where the canonical text says the same.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

import yaml

from ringfence.policy.document import format_documents, parse_documents
from ringfence.policy.errors import DocumentError

_FOR_EDITOR = re.compile("# *yaml-language-server:")
"""Names the file's schema; it counts in the first line only."""
Path = tuple[str | int, ...]
"""Kind, name, and then keys and positions, from the root of a document to a field of it."""


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment, with its `#`; `index` counts letters of the text from 0."""

    index: int
    text: str
    alone: bool
    """Whether nothing else stands on its line."""


def find_comments(text: str) -> list[Comment]:
    """All comments of sound YAML, in their order."""
    return [
        Comment(index, line.rstrip(), not text[text.rfind("\n", 0, index) + 1 : index].strip())
        for index, line in _between_tokens(text)
    ]


def _between_tokens(text: str) -> Iterator[tuple[int, str]]:
    behind = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        first, last = token.start_mark.index, token.end_mark.index
        yield from _in_gap(text, behind, first)
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            # The line that begins a block scalar may end in a comment.
            yield from _in_gap(text, first, text.find("\n", first))
        behind = max(behind, last)
    yield from _in_gap(text, behind, len(text))


def _in_gap(text: str, first: int, last: int) -> Iterator[tuple[int, str]]:
    while (first := text.find("#", first, last)) >= 0:
        end = min(at for at in (text.find("\n", first), len(text)) if at >= 0)
        yield first, text[first:end]
        first = end


def format_text(source: str, file_name: str) -> str:
    """The canonical text of documents, with their comments.

    A comment for the editor that the text begins with stays first. Raises DocumentError where they
    are not sound, or a comment would be lost.
    """
    canonical = format_documents(parse_documents(source, file_name))
    comments = find_comments(source)
    if not comments:
        return canonical
    first = [one.text + "\n" for one in comments[:1] if _FOR_EDITOR.match(source)]
    text = "".join([*first, _carry(comments[len(first) :], source, canonical)])
    kept = Counter(one.text for one in comments) == Counter(one.text for one in find_comments(text))
    if not kept or format_documents(parse_documents(text, file_name)) != canonical:
        raise DocumentError(file_name, 1, "", "its comments cannot be kept; move or drop them")
    return text


def _carry(comments: list[Comment], source: str, canonical: str) -> str:
    found = ((mark.index, path) for mark, path in places(source))
    fields = sorted(found, key=itemgetter(0))
    indices = [index for index, _ in fields]
    lines = {path: mark.line for mark, path in places(canonical)}
    targets = [*(_line(lines, path) for _, path in fields), canonical.count("\n")]
    above: dict[int, list[str]] = {}
    beside: dict[int, list[str]] = {}
    for comment in comments:
        at = bisect_left(indices, comment.index) - (0 if comment.alone else 1)
        line = targets[max(at, 0)]
        (above if comment.alone or at < 0 else beside).setdefault(line, []).append(comment.text)
    return "".join(_with(canonical, above, beside)).removesuffix("\n")


def _line(lines: dict[Path, int], path: Path) -> int:
    """Where the path stands in the canonical text, or what is left of it there."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _with(
    canonical: str, above: dict[int, list[str]], beside: dict[int, list[str]]
) -> Iterator[str]:
    for number, line in enumerate(canonical.split("\n")):
        indent = line[: len(line) - len(line.lstrip(" "))]
        at_end = beside.get(number, [])
        # Two comments at the end of one line would become one.
        for comment in [*above.get(number, []), *(at_end if len(at_end) > 1 else [])]:
            yield f"{indent}{comment}\n"
        yield f"{line}  {at_end[0]}\n" if len(at_end) == 1 else f"{line}\n"


def places(text: str) -> Iterator[tuple[yaml.Mark, Path]]:
    """Where each field and list entry begins, in the order of the text."""
    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        given = {key.value: value for key, value in document.value}
        (name,) = (value.value for _, value in given["metadata"].value)
        root = given["kind"].value, name
        yield document.start_mark, root
        yield from _fields(document, root)


def _fields(node: yaml.Node, path: Path) -> Iterator[tuple[yaml.Mark, Path]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.start_mark, (*path, key.value)
            yield from _fields(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield value.start_mark, (*path, position)
            yield from _fields(value, (*path, position))
