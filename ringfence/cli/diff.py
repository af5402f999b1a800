"""`ringfence diff`: what apply would change, or what differs between two versions."""

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
from ringfence.cli.output import AnswerOption, Format, emit_data, say, tell
from ringfence.cli.reach import print_difference
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
    reach: Annotated[
        bool, typer.Option("--reach", help="Of two versions: the connections gained and lost.")
    ] = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what `apply` would change, or what differs between two versions of workspaces.

    With --reach, compare what two versions let through, each within what is enforced. Exit code 2
    if there is a difference, 0 if there is none.

    Examples: ringfence diff -f policies/

    ringfence diff sock-shop@p1 sock-shop@p2

    ringfence diff --reach sock-shop@p1 sock-shop@p2
    """
    if bool(versions) == bool(file):
        raise InputError("name two versions, or files with -f")
    if file and reach:
        raise InputError("--reach compares two versions: name them in place of files")
    if file:
        differs = _diff_files(file, output)
    else:
        differs = (print_difference if reach else _diff_versions)(*_two(versions or []), output)
    raise typer.Exit(2 if differs else 0)


def _diff_files(files: list[Path], output: Format) -> bool:
    answer = send_documents(connect(), "/apply", read_documents(files), dry_run=True)
    differing = [change for change in answer["changes"] if change["change"] != "unchanged"]
    if output is Format.TABLE:
        print_changes(differing)
    else:
        emit_data(answer, output)
    tell_governance(answer)
    tell_requests(answer)
    if answer["refused"]:
        tell(f"apply would refuse this: {answer['refused']}")
    return bool(differing)


def _two(versions: list[str]) -> tuple[str, str]:
    if len(versions) != 2:  # noqa: PLR2004
        raise InputError("name two versions, such as shop@p1 shop@p2")
    return versions[0], versions[1]


def _diff_versions(old: str, new: str, output: Format) -> bool:
    answer = connect().get("/versions/difference", old=old, new=new)
    differences = answer["differences"]
    if output is Format.TABLE:
        if differences:
            say(f"{answer['old']} → {answer['new']}")
        for one in differences:
            say(f"  {one['text']}")
    else:
        emit_data(answer, output)
    return bool(differences)
