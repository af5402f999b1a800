"""`ringfence flows export`: all flows of a time as a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import FilterOption, SinceOption, UntilOption
from ringfence.model.errors import InputError, RingfenceError

_PATIENCE_SECONDS = 3600
"""The store adds up all of a long time before it has the first row."""


class WriteError(RingfenceError):
    """The flows cannot be written where they were to go."""


class ExportFormat(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    output: Annotated[
        ExportFormat, typer.Option("--output", "-o", help="What to write.", case_sensitive=False)
    ] = ExportFormat.JSONL,
    file: Annotated[
        Path | None, typer.Option(help="Where to write, whole or not at all; else to stdout.")
    ] = None,
) -> None:
    """Write all flows of a time, a row per conversation, with names and labels of both ends.

    docs/flow-export.md tells the columns. There is no limit: rows are streamed.

    Examples:

    ringfence flows export --since 24h -o parquet --file flows.parquet

    ringfence flows export -f 'kubernetes.namespace = "sock-shop"' -o csv > flows.csv
    """
    if output is ExportFormat.PARQUET and file is None and sys.stdout.isatty():
        raise InputError("Parquet is not for a terminal: name a --file, or send stdout elsewhere")
    with (
        connect().stream(
            "/flows/export",
            timeout=_PATIENCE_SECONDS,
            filter=filter_,
            since=since,
            until=until,
            format=output,
        ) as parts,
        _opened(file) as sink,
    ):
        for part in parts:
            sink.write(part)


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file, which gets its name once it is whole."""
    try:
        if file is None:
            with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as sink:
                yield sink
            return
        partial = file.with_name(f"{file.name}.partial")
        try:
            with partial.open("wb") as sink:
                yield sink
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write {file or 'stdout'}: {error.strerror or error}") from error
