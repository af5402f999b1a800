"""`ringfence diff`: what apply would change, or what differs between two versions."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import print_changes, read_documents, send_documents, tell_governance
from ringfence.cli.output import AnswerOption, Format, emit_data, printable
from ringfence.model.errors import InputError

app = typer.Typer(add_completion=False)


@app.command()
def diff(
    versions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OLD NEW]", help="Two versions: shop@p1 shop@p2; shop: the latest."
        ),
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A file, a folder, or -.")
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what `apply` would change, or what differs between two versions of workspaces.

    Exit code 2 if there is a difference, 0 if there is none.

    Examples: ringfence diff -f policies/

    ringfence diff sock-shop@p1 sock-shop@p2
    """
    if bool(versions) == bool(file):
        raise InputError("name two versions, or files with -f")
    differs = _diff_files(file, output) if file else _diff_versions(versions or [], output)
    raise typer.Exit(2 if differs else 0)


def _diff_files(files: list[Path], output: Format) -> bool:
    answer = send_documents(connect(), "/apply", read_documents(files), dry_run=True)
    changes = answer["changes"]
    differing = [change for change in changes if change["change"] != "unchanged"]
    if output is Format.TABLE:
        print_changes(differing)
    else:
        emit_data(changes, output)
    tell_governance(answer)
    if answer["refused"]:
        typer.echo(f"apply would refuse this: {answer['refused']}", err=True)
    return bool(differing)


def _diff_versions(versions: list[str], output: Format) -> bool:
    if len(versions) != 2:  # noqa: PLR2004
        raise InputError("name two versions, such as shop@p1 shop@p2")
    old, new = versions
    answer = connect().get("/versions/difference", old=old, new=new)
    differences = answer["differences"]
    if output is Format.TABLE:
        if differences:
            print(printable(f"{answer['old']} → {answer['new']}"))
        for one in differences:
            print(f"  {printable(one['text'])}")
    else:
        emit_data(answer, output)
    return bool(differences)
