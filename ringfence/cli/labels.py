"""`ringfence labels`: what people say of addresses outside Kubernetes."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import ApiError, connect
from ringfence.cli.files import unreadable
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    tell,
)
from ringfence.model.errors import InputError
from ringfence.model.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("upload")
def upload(
    file: Annotated[Path, typer.Argument(help="CSV, or a list in *.yaml or *.json; - for stdin.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove the labels of all addresses not in the file.")
    ] = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Give addresses and networks names and labels, by which flows and filters know them.

    The first column of CSV is `address`: an address or a CIDR block. A column `name` names it,
    each other one is a label, which filters have as user.COLUMN. An empty cell is no label. The
    labels of an address in the file replace those it had; of several networks the smallest
    counts; and what a pod, a node or a Service holds has the labels of that. Flows keep the
    labels of their own time. A file with an error is refused as a whole.

    YAML and JSON have what `ringfence labels list -o yaml` and -o json print.

    Example: ringfence labels upload offices.csv
    """
    from ringfence.inventory.uploaded import read_csv  # noqa: PLC0415

    text = _read(file)
    try:
        if file.suffix in {".yaml", ".yml", ".json"}:
            items = _listed(text)
        else:
            items = [
                {"address": one.address, "name": one.name, "labels": dict(one.labels)}
                for one in read_csv(text)
            ]
        answer = connect().post("/labels", {"items": items, "replace": replace})
    except InputError as error:  # no mistake in the command
        raise ApiError(f"{file}: {error}; nothing was changed") from error
    if output is not Format.TABLE:
        emit_data(answer, output)
    for note in answer["notes"]:
        tell(f"note: {note}, whose labels count while it holds the address")
    changes = ", ".join(f"{answer[what]} {what}" for what in ("added", "changed", "removed"))
    tell(f"labels of {counted(len(items), 'address', 'addresses')}: {changes}")


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def _listed(text: str) -> list[dict[str, Any]]:
    """A list of addresses with labels, of YAML or JSON, which is YAML too."""
    import yaml  # noqa: PLC0415

    try:
        listed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(" ".join(str(error).split())) from error
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InputError("this is no list of `address`, `name` and `labels`")
    return [{key: one[key] for key in one if key not in _TOLD} for one in listed]


_TOLD = ("actor", "since")
"""What the list tells besides."""


@app.command("list")
def list_labels(output: OutputOption = Format.TABLE) -> None:
    """List the uploaded labels; -o csv, yaml and json can be edited and uploaded again.

    Example: ringfence labels list -o csv > offices.csv
    """
    rows = connect().get("/labels")["items"]
    emit(rows, _csv_columns(rows) if output is Format.CSV else COLUMNS, output, "none uploaded")


COLUMNS = [
    Column("ADDRESS", lambda row: row["address"]),
    Column("NAME", lambda row: row["name"]),
    Column("LABELS", lambda row: " ".join(f"{key}={row['labels'][key]}" for key in row["labels"])),
    Column("BY", lambda row: row["actor"], wide=True),
    Column("SINCE", lambda row: row["since"], wide=True),
]


def _csv_columns(rows: list[Row]) -> list[Column]:
    """The columns of a file that can be uploaded: one for each key."""

    def label(key: str) -> Column:
        return Column(key, lambda row: row["labels"].get(key))

    return [
        Column("address", lambda row: row["address"]),
        Column("name", lambda row: row["name"]),
        *map(label, sorted({key for row in rows for key in row["labels"]})),
    ]


@app.command("remove")
def remove(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS…", help="As uploaded.")],
) -> None:
    """Take the labels of addresses and networks away; flows of the past keep theirs.

    Example: ringfence labels remove 203.0.113.9 198.51.100.0/24
    """
    connect().delete("/labels", address=addresses)
    removed = counted(len(set(addresses)), "address", "addresses")
    tell(f"labels of {removed} removed")
