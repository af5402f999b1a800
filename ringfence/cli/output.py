"""How results are printed: one list of rows, in whichever form was asked for with -o."""

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from ringfence.model.spreadsheet import spreadsheet_safe

Row = dict[str, Any]


class Format(StrEnum):
    """The forms of -o."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"
    CSV = "csv"
    MD = "md"


OutputOption = Annotated[
    Format, typer.Option("--output", "-o", help="How to print the result.", case_sensitive=False)
]


def _no_table(form: Format) -> Format:
    if form in (Format.WIDE, Format.CSV, Format.MD):
        raise typer.BadParameter(f"{form} is for lists; here write table, json, yaml or jsonl")
    return form


AnswerOption = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        help="How to print the result.",
        metavar="[table|json|yaml|jsonl]",
        case_sensitive=False,
        callback=_no_table,
    ),
]
"""-o of a command whose result is no list of rows."""

_MARKDOWN = str.maketrans({"|": "\\|", "\\": "&#92;", "<": "&lt;"})
"""What a cell of Markdown may not have as it is; a backslash could undo that before a bar."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, its text for a row, and whether only -o wide has it.

    `csv` has the columns, by heading, that stand for it where each should hold one plain value.
    """

    heading: str
    text: Callable[[Row], object]
    wide: bool = False
    right: bool = False
    csv: Mapping[str, Callable[[Row], object]] = field(default_factory=dict)

    def plain(self) -> "list[Column]":
        """The columns of CSV."""
        return [Column(heading, text) for heading, text in self.csv.items()] or [self]


def emit(rows: Sequence[Row], columns: Sequence[Column], form: Format, empty: str = "none") -> None:
    """Print rows to stdout; `empty` is said on stderr where a table would have no line."""
    if form in (Format.JSON, Format.YAML, Format.JSONL):
        emit_data(list(rows), form)
        return
    if form is Format.CSV:
        columns = [plain for column in columns for plain in column.plain()]
    shown = [column for column in columns if form is not Format.TABLE or not column.wide]
    cells = [[printable(column.text(row)) for column in shown] for row in rows]
    headings = [column.heading for column in shown]
    if form is Format.CSV:
        safe = [[spreadsheet_safe(cell) for cell in line] for line in cells]
        csv.writer(sys.stdout, lineterminator="\n").writerows([headings, *safe])
    elif form is Format.MD:
        bars = ["--:" if column.right else "---" for column in shown]
        for line in [headings, bars, *cells]:
            say("| " + " | ".join(cell.translate(_MARKDOWN) for cell in line) + " |")
    elif cells:
        _print_aligned(headings, cells, [column.right for column in shown])
    else:
        tell(empty)


def emit_data(data: Any, form: Format) -> None:
    """Print data as JSON, YAML, or a JSON document a line, in ASCII: names may be hostile."""
    if form is Format.YAML:
        import yaml  # noqa: PLC0415

        emit_text(yaml.safe_dump(data, sort_keys=False))
    elif form is Format.JSONL:
        for row in data if isinstance(data, list) else [data]:
            say(json.dumps(row))
    else:
        emit_text(json.dumps(data, indent=2) + "\n")


def _print_aligned(headings: list[str], cells: list[list[str]], right: list[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in [headings, *cells]:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ]
        say("  ".join(padded).rstrip())


def say(text: object = "") -> None:
    """Print one line to stdout at once; see `printable`."""
    print(printable(text), flush=True)  # noqa: T201 - the way there


def tell(text: object) -> None:
    """Print one line to stderr: what goes with the result but is none; see `printable`."""
    print(printable(text), file=sys.stderr)  # noqa: T201 - the way there


def tell_notes(answer: Row) -> None:
    """Tell what goes with an answer, a line each."""
    for note in answer.get("notes", ()):
        tell(f"note: {note}")


def emit_text(text: str) -> None:
    """Print a text that has no control characters, such as YAML, as it is."""
    sys.stdout.write(text)  # noqa: TID251 - the way there
    sys.stdout.flush()


def emit_octets(octets: bytes | memoryview) -> None:
    """As `emit_text`, of a text in ASCII that is great enough to be worth no copies."""
    sys.stdout.buffer.write(octets)
    sys.stdout.flush()


def printable(value: object) -> str:
    """A value's text; no control character of a hostile name reaches the terminal, but tabs."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in text)


def human_bytes(count: int) -> str:
    """1536 → 1.5 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
