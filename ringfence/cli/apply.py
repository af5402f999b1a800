"""`ringfence apply`: make the control plane agree with YAML files kept in git."""

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
from ringfence.model.errors import RingfenceError
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
    output: AnswerOption = Format.TABLE,
) -> None:
    """Make scopes and workspaces as the files say; a changed workspace gets a new version.

    Which versions are enforced stays as it is: see `ringfence enforce`. But scopes say whom they
    govern, so a changed scope changes that at once; stderr tells for which workloads.

    Example: ringfence apply -f policies/
    """
    documents = read_documents(file)
    answer = send_documents(
        connect(), "/apply", documents, dry_run=dry_run, override=override or []
    )
    if output is Format.TABLE:
        print_changes(answer["changes"])
    else:
        emit_data(answer, output)
    tell_governance(answer)
    tell_requests(answer)
    if answer["refused"]:
        raise RingfenceError(answer["refused"])
