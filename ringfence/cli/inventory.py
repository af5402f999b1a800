"""`ringfence inventory`: what exists, or existed."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit
from ringfence.model.workload import ItemKind

app = typer.Typer(add_completion=False)

_ALL = 100_000
"""The most that the control plane lists at once."""


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


@app.command()
def inventory(
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter",
            "-f",
            help="Such as 'kubernetes.label.app = \"carts\"'; see docs/filters.md.",
        ),
    ] = None,
    kind: Annotated[ItemKind | None, typer.Option(help="Items of this kind only.")] = None,
    at: Annotated[str | None, typer.Option(help="A time, or 5m for five minutes ago.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List pods, nodes, Services, namespaces and labelled networks as of now or any earlier time.

    Example: ringfence inventory --kind pod --filter 'kubernetes.namespace = "sock-shop"'
    """
    answer = connect().get("/inventory", filter=filter_, kind=kind, at=at, limit=_ALL)
    items = answer["items"]
    cut_off = any(one["quarantine"] for one in items)
    emit(items, [*COLUMNS, *([QUARANTINE] if cut_off else [])], output, "nothing matches")
