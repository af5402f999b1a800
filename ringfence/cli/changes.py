"""`ringfence changes`: who changed what."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import UntilOption
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, say, tell

app = typer.Typer(add_completion=False)

COLUMNS = [
    Column("AT", lambda row: row["at"]),
    Column("ACTOR", lambda row: row["actor"]),
    Column("FROM", lambda row: row["source"]),
    Column("OBJECT", lambda row: row["object"]),
    Column("WHAT", lambda row: row["what"]),
    Column("DIFFERENCE", lambda row: "; ".join(row["difference"]), wide=True),
]
_PAGE = 1_000


@app.command()
def changes(
    about: Annotated[
        str, typer.Argument(metavar="[OBJECT]", help="Of this only: shop, or workspace/shop.")
    ] = "",
    actor: Annotated[str, typer.Option(help="By this one only.")] = "",
    since: UntilOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 200,
    patch: Annotated[
        bool, typer.Option("--patch", "-p", help="Each change with its difference below.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List every change of scopes, workspaces, tokens and enforcement, the newest first.

    Also repairs of rules that another had changed at a node.

    Examples: ringfence changes workspace/sock-shop --patch

    ringfence changes --actor ann --since 7d -o json
    """
    client, rows, before = connect(), list[Row](), None
    while len(rows) < limit:
        answer = client.get(
            "/changes", object=about, actor=actor, since=since, until=until, before=before,
            limit=min(limit - len(rows), _PAGE),
        )  # fmt: skip
        rows += answer["items"]
        before = answer["next"]
        if before is None:
            break
    if patch and output is Format.TABLE:
        for row in rows:
            _print_patch(row)
    else:
        emit(rows, COLUMNS, output, "no such change" if about or actor else "no change yet")
    if before is not None:
        tell(f"the last {limit} changes; more with --limit")


def _print_patch(row: Row) -> None:
    say(f"{row['at']}  {row['actor']} from {row['source']}: {row['what']}")
    for line in row["difference"]:
        say(f"  {line}")
