"""`ringfence diff`: what apply would change."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import (
    print_changes,
    read_documents,
    send_documents,
    tell_governance,
    tell_requests,
)
from ringfence.cli.output import AnswerOption, Format, emit_data

app = typer.Typer(add_completion=False)


@app.command()
def diff(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A file, a folder, or -.")],
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what `apply` would change; exit code 2 if there is a difference, 0 if there is none.

    Example: ringfence diff -f policies/
    """
    documents = read_documents(file)
    answer = send_documents(connect(), documents, dry_run=True)
    changes = answer["changes"]
    differs = any(change["change"] != "unchanged" for change in changes)
    if output is Format.TABLE:
        print_changes([change for change in changes if change["change"] != "unchanged"])
    else:
        emit_data(changes, output)
    tell_governance(answer)
    tell_requests(answer)
    if answer["refused"]:
        typer.echo(f"apply would refuse this: {answer['refused']}", err=True)
    raise typer.Exit(2 if differs else 0)
