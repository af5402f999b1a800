"""`ringfence reach`: what a workload can reach and what can reach it, by what is enforced."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, tell

app = typer.Typer(add_completion=False)

_PEERS = 5
"""Names in a cell of a table."""


def _names(names: list[str]) -> str:
    more = len(names) - _PEERS
    return ", ".join(names[:_PEERS]) + (f", {more} more" if more > 0 else "")


COLUMNS = [
    Column("DIRECTION", lambda row: row["direction"]),
    Column("PEERS", lambda row: _names(row["names"])),
    Column("CONNECTIONS", lambda row: row["connections"]),
]
DIFFERENCE_COLUMNS = [
    Column("CHANGE", lambda row: row["change"]),
    Column("CONSUMERS", lambda row: _names(row["consumers"])),
    Column("PROVIDERS", lambda row: _names(row["providers"])),
    Column("CONNECTIONS", lambda row: row["connections"]),
]


@app.command()
def reach(
    workload: Annotated[
        str,
        typer.Argument(help="An address, a node, namespace/pod or namespace/owner."),
    ],
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="As if this workspace@version were enforced; repeatable."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List whom a workload may open connections to (outbound), and who to it (inbound).

    `shop/*` is everything in namespace shop, `shop/carts` all replicas of carts. Connections are
    those dialled directly; through a Service its backends are reached on their target ports.

    Examples:

    ringfence reach sock-shop/carts

    ringfence reach sock-shop/carts --with sock-shop@p2 -o json
    """
    answer = connect().get("/reach", workload=workload, **{"with": with_ or []})
    rows: list[Row] = [
        {"direction": direction, **peers}
        for direction in ("outbound", "inbound")
        for peers in answer[direction]
    ]
    emit(rows, COLUMNS, output, empty="nobody")
    for note in answer["notes"]:
        tell(f"note: {note}")


def print_difference(old: str, new: str, output: Format) -> bool:
    """Print the connections gained and lost from one version to another; whether there are any."""
    answer = connect().get("/reach/difference", old=old, new=new)
    rows: list[Row] = [
        {"change": change, **connections}
        for change in ("gained", "lost")
        for connections in answer[change]
    ]
    emit(rows, DIFFERENCE_COLUMNS, output, empty="no connection gained or lost")
    return bool(rows)
