"""Cells of CSV that a spreadsheet must not take for formulas (OWASP, CSV Injection)."""

import re

FORMULA = "^[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""What a formula begins with, = + - @ of full width too; RE2 reads it as well."""

_FORMULA = re.compile(FORMULA)


def spreadsheet_safe(cell: str) -> str:
    """The cell, behind an apostrophe if it would be a formula and is no plain number."""
    if not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def spreadsheet_plain(cell: str) -> str:
    """The cell as it was before `spreadsheet_safe`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
