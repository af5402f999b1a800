"""`ringfence inventory`: what exists, or existed."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer._click import Context

from ringfence.cli.client import connect
from ringfence.cli.files import opened
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, Row, emit
from ringfence.model.workload import ItemKind

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})

_ALL = 100_000
"""The most that the control plane lists at once."""
_PATIENCE_SECONDS = 600


def _labels(row: Row) -> str:
    """The labels that people set: the built-in ones have columns of their own."""
    prefixes = ("kubernetes.label.", "user.")
    return " ".join(
        f"{key.removeprefix(prefix)}={','.join(values)}"
        for key, values in row["labels"].items()
        for prefix in prefixes
        if key.startswith(prefix)
    )


COLUMNS = [
    Column("KIND", lambda row: row["kind"]),
    Column("NAMESPACE", lambda row: row["namespace"]),
    Column("NAME", lambda row: row["name"]),
    Column("ADDRESSES", lambda row: ",".join(row["addresses"])),
    Column("NODE", lambda row: row.get("node")),
    Column("OWNER", lambda row: row.get("owner")),
    Column("LABELS", _labels, wide=True),
    Column("SINCE", lambda row: row.get("since"), wide=True),
]

QUARANTINE = Column("QUARANTINE", lambda row: row["quarantine"])
"""Shown where anything is in one."""


FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter", "-f", help="Such as 'kubernetes.label.app = \"carts\"'; see docs/filters.md."
    ),
]


class ExportFormat(StrEnum):
    """The forms of an exported inventory."""

    YAML = "yaml"
    JSON = "json"


@app.callback(invoke_without_command=True)
def inventory(
    context: Context,
    filter_: FilterOption = None,
    kind: Annotated[ItemKind | None, typer.Option(help="Items of this kind only.")] = None,
    at: Annotated[str | None, typer.Option(help="A time, or 5m for five minutes ago.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List pods, nodes, Services, namespaces and labelled networks as of now or any earlier time.

    Example: ringfence inventory --kind pod --filter 'kubernetes.namespace = "sock-shop"'
    """
    if context.invoked_subcommand:
        return
    answer = connect().get("/inventory", filter=filter_, kind=kind, at=at, limit=_ALL)
    items = answer["items"]
    cut_off = any(one["quarantine"] for one in items)
    emit(items, [*COLUMNS, *([QUARANTINE] if cut_off else [])], output, "nothing matches")


@app.command()
def export(
    since: SinceOption = "24h",
    until: UntilOption = None,
    filter_: FilterOption = None,
    output: Annotated[
        ExportFormat, typer.Option("--output", "-o", help="What to write.", case_sensitive=False)
    ] = ExportFormat.YAML,
    file: Annotated[
        Path | None, typer.Option(help="Where to write, whole or not at all; else to stdout.")
    ] = None,
) -> None:
    """Write all that existed in a time, each item in each of its lives.

    `ringfence discover`, `analyze` and `lint` read it; docs/inventory-export.md tells the fields,
    `ringfence schema inventory` as JSON Schema.

    Example: ringfence inventory export --since 24h --file inventory.yaml
    """
    query = {"filter": filter_, "since": since, "until": until}
    with (
        connect().stream("/inventory/export", timeout=_PATIENCE_SECONDS, **query) as parts,
        opened(file) as sink,
    ):
        if output is ExportFormat.JSON:
            for part in parts:
                sink.write(part)
            sink.write(b"\n")
            return
        import yaml  # noqa: PLC0415

        told = json.loads(b"".join(parts))
        yaml.dump(told, sink, Dumper=yaml.CSafeDumper, sort_keys=False, encoding="utf-8")
