"""`ringfence flows export`: all flows of a time as a file."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.files import opened
from ringfence.cli.flows.options import FilterOption, SinceOption, UntilOption
from ringfence.model.errors import InputError

_PATIENCE_SECONDS = 3600
"""The store adds up all of a long time before it has the first row."""


class ExportFormat(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    every: Annotated[
        str | None,
        typer.Option(help="A row for each conversation and slot of time, such as 5m."),
    ] = None,
    output: Annotated[
        ExportFormat | None,
        typer.Option(
            "--output",
            "-o",
            help="What to write; left out, as the --file's name ends, else jsonl.",
            case_sensitive=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Where to write, whole or not at all; else to stdout.")
    ] = None,
) -> None:
    """Write all flows of a time, a row per conversation, with names and labels of both ends.

    With --every it is a row per conversation and slot, which `ringfence discover` learns more from.
    docs/flow-export.md tells the columns. There is no limit: rows are streamed.

    Examples:

    ringfence flows export --since 24h --every 5m -o parquet --file flows.parquet

    ringfence flows export -f 'kubernetes.namespace = "sock-shop"' -o csv > flows.csv
    """
    form = _form(output, file)
    if form is ExportFormat.PARQUET and file is None and sys.stdout.isatty():
        raise InputError("Parquet is not for a terminal: name a --file, or send stdout elsewhere")
    with (
        connect().stream(
            "/flows/export",
            timeout=_PATIENCE_SECONDS,
            filter=filter_,
            since=since,
            until=until,
            every=every,
            format=form,
        ) as parts,
        opened(file) as sink,
    ):
        for part in parts:
            sink.write(part)


def _form(output: ExportFormat | None, file: Path | None) -> ExportFormat:
    """What to write, which a file's name has to agree with where it tells."""
    ending = file.suffix.lower().removeprefix(".") if file else ""
    told = ExportFormat(ending) if ending in list(ExportFormat) else None
    if output and told and output is not told:
        raise InputError(f"{file} is called {told}, and -o says {output}: leave one out")
    return output or told or ExportFormat.JSONL
