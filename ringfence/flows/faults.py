"""Where a file of flows is broken, in rows as people count them: readers say less.

Looked for once reading failed, so that it may take its time.
"""

import re
from typing import Any, BinaryIO

import msgspec

_CSV_ROW = re.compile(r"CSV parse error: Row #(\d+): (.*)")
_KINDS = {str: "a text", int: "a number", float: "a number", bool: "true or false"}
_KINDS |= {list: "a list", dict: "an object"}


def fault(source: BinaryIO, begins: bytes, said: str) -> str:
    """What is wrong with CSV or JSON lines, with its row; empty where no row is to blame.

    `begins` are the file's first bytes, `said` is what the reader made of it.
    """
    if in_csv := _CSV_ROW.match(said):
        return f"row {int(in_csv[1]) - 1}: {in_csv[2]}"  # the header is none
    if begins[:1] == b"{":
        source.seek(0)
        return _odd_line(source)
    return ""


def _odd_line(source: BinaryIO) -> str:
    """The first line that is no JSON object, or that has another sort of value in a column."""
    kinds: dict[str, tuple[str, int]] = {}
    row = 0
    for line in source:
        if not line.strip():
            continue
        row += 1
        try:
            told = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"row {row}: not JSON: {error}"
        if not isinstance(told, dict):
            return f"row {row}: expected an object, found {shortened(told)}"
        for name, value in told.items():
            kind = _KINDS.get(type(value), "")
            first = kinds.setdefault(name, (kind, row)) if kind else ("", 0)
            if first[0] != kind:
                found = shortened(value)
                return f"row {row}: {name}: expected {first[0]} as in row {first[1]}, found {found}"
    return ""


def shortened(value: Any) -> str:
    """A value as an error shows it."""
    return "nothing" if value is None else repr(value)[:80]
