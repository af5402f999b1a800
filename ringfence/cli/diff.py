"""`ringfence diff`: what apply would change, or how the reach of two versions differs."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import print_changes, read_documents, send_documents, tell_governance
from ringfence.cli.output import AnswerOption, Format, emit_data
from ringfence.cli.reach import print_difference

app = typer.Typer(add_completion=False)


@app.command()
def diff(
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A file, a folder, or -.")
    ] = None,
    reach: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two versions: list the connections gained and lost between them."),
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what `apply` would change; exit code 2 if there is a difference, 0 if there is none.

    With --reach, compare instead what two versions of a workspace let through, each within what
    is enforced.

    Examples:

    ringfence diff -f policies/

    ringfence diff --reach shop@p1 shop@p2
    """
    if bool(file) == bool(reach):
        raise typer.BadParameter("write either --file or --reach")
    if reach:
        raise typer.Exit(2 if print_difference(*reach, output) else 0)
    assert file
    documents = read_documents(file)
    answer = send_documents(connect(), documents, dry_run=True)
    changes = answer["changes"]
    differs = any(change["change"] != "unchanged" for change in changes)
    if output is Format.TABLE:
        print_changes([change for change in changes if change["change"] != "unchanged"])
    else:
        emit_data(changes, output)
    tell_governance(answer)
    if answer["refused"]:
        typer.echo(f"apply would refuse this: {answer['refused']}", err=True)
    raise typer.Exit(2 if differs else 0)
