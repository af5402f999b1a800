"""`ringfence flows list` and `denied`: connections, one by one."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.columns import FLOW_COLUMNS, end_cells, end_name, port, with_related
from ringfence.cli.flows.options import FilterOption, SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, tell
from ringfence.model.words import counted

_PAGE = 1_000


class ListSort(StrEnum):
    """By what connections are sorted."""

    LAST = "last"
    FIRST = "first"
    BYTES = "bytes"
    PACKETS = "packets"
    OPENED = "opened"
    DROPPED = "dropped"


def _form(text: str) -> Format:
    if text.lower() == "parquet":
        raise typer.BadParameter("Parquet is what `ringfence flows export -o parquet` writes")
    if text.lower() not in set(Format):
        known = ", ".join(map(repr, map(str, Format)))
        raise typer.BadParameter(f"{text!r} is not one of {known}")
    return Format(text.lower())


def list_flows(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    sort: Annotated[ListSort, typer.Option(help="The greatest by this come first.")] = (
        ListSort.LAST
    ),
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 200,
    output: Annotated[
        Format,
        typer.Option(
            "--output",
            "-o",
            help="How to print the result.",
            metavar=f"[{'|'.join(Format)}]",
            parser=_form,
        ),
    ] = Format.TABLE,
) -> None:
    """List connections with their names, volume, flags and how their direction was known.

    Each connection stands once; its related records (before and after a Service's or a node's
    translation, and the tunnel that it runs in) stand below it.

    Example: ringfence flows list --since 5m --filter 'consumer.kubernetes.label.name = "carts"'
    """
    client, cursor = connect(), None
    rows: list[Row] = []
    while len(rows) < limit:
        answer = client.get(
            "/flows", filter=filter_, since=since, until=until, sort=sort, cursor=cursor,
            limit=min(limit - len(rows), _PAGE),
        )  # fmt: skip
        rows += answer["items"]
        cursor = answer["next"]
        if cursor is None:
            break
    tabular = output not in (Format.JSON, Format.JSONL, Format.YAML)
    emit(with_related(rows) if tabular else rows, FLOW_COLUMNS, output, "no flow matches")
    if cursor is not None:
        tell(f"{counted(limit, 'connection')} shown; more with --limit")


DENIED_COLUMNS = [
    Column("CONSUMER", lambda row: end_name(row["consumer"]), csv=end_cells("consumer")),
    Column("PROVIDER", lambda row: end_name(row["provider"]), csv=end_cells("provider")),
    Column("PROTOCOL", lambda row: row["protocol"]),
    Column("PORT", port, right=True),
    Column("DROPPED", lambda row: f"{row['direction']} at {' '.join(*row['at'].items())}"),
    Column("POLICY", lambda row: row.get("policy") or row.get("rule") or row.get("reason")),
    Column("PACKETS", lambda row: row["packets"], right=True),
    Column("LAST", lambda row: row["last"], wide=True),
]


def denied(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most this many.")] = 200,
    output: OutputOption = Format.TABLE,
) -> None:
    """List dropped connections with the policy that dropped them, from the agents' drop reports.

    Example: ringfence flows denied --since 10m
    """
    answer = connect().get("/flows/denied", filter=filter_, since=since, until=until, limit=limit)
    emit(answer["items"], DENIED_COLUMNS, output, "nothing was dropped")
