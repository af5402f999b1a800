"""`ringfence changes`: who changed what."""

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, emit

app = typer.Typer(add_completion=False)

COLUMNS = [
    Column("AT", lambda row: row["at"]),
    Column("ACTOR", lambda row: row["actor"]),
    Column("FROM", lambda row: row["source"]),
    Column("WHAT", lambda row: row["what"]),
    Column("DIFFERENCE", lambda row: row["difference"], wide=True),
]


@app.command()
def changes(output: OutputOption = Format.TABLE) -> None:
    """List every change of scopes, workspaces, tokens and enforcement.

    Example: ringfence changes -o wide
    """
    emit(connect().get("/changes")["items"], COLUMNS, output, "nothing has changed yet")
