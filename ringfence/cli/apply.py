"""`ringfence apply`: make the control plane agree with YAML files kept in git."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import (
    print_changes,
    read_documents,
    send_documents,
    tell_governance,
    tell_requests,
)
from ringfence.cli.enforce import YesOption
from ringfence.cli.output import AnswerOption, Format, emit_data
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.override import Override

app = typer.Typer(add_completion=False)


@app.command()
def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A file, a folder, or -.")],
    dry_run: Annotated[bool, typer.Option(help="Show the changes only.")] = False,
    override: Annotated[
        list[Override] | None,
        typer.Option(help="Apply despite a refusal that names this word; repeatable."),
    ] = None,
    yes: YesOption = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Make scopes and workspaces as the files say; a changed workspace gets a new version.

    Which versions are enforced stays as it is: see `ringfence enforce`. But scopes, filters and
    address sets say whom they govern and name, so a change of them counts at once: stderr tells for
    which workloads, and `apply` asks first.

    Example: ringfence apply -f policies/
    """
    documents = read_documents(file)
    client = connect()

    def send(*, dry_run: bool) -> dict[str, Any]:
        return send_documents(client, "/apply", documents, dry_run=dry_run, override=override or [])

    answer = send(dry_run=True)
    if output is Format.TABLE:
        print_changes(answer["changes"])
    else:
        emit_data(answer, output)
    tell_governance(answer)
    tell_requests(answer)
    if answer["refused"]:
        raise RingfenceError(answer["refused"])
    if dry_run:
        return
    if answer["workloads"] and not yes:
        if not sys.stdin.isatty():
            raise InputError(
                "this changes what is enforced, and nobody can answer here: pass --yes to go ahead"
            )
        if not typer.confirm("Go ahead?", err=True):
            raise RingfenceError("nothing was changed")
    send(dry_run=False)
