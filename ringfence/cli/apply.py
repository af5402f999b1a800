"""`ringfence apply`: make the control plane agree with YAML files kept in git."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import print_changes, read_documents, tell_governance
from ringfence.cli.output import Format, OutputOption, emit_data
from ringfence.model.errors import RingfenceError

app = typer.Typer()


@app.command()
def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A file, a folder, or -.")],
    dry_run: Annotated[bool, typer.Option(help="Show the changes only.")] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(help="Apply despite a refusal that names this word; repeatable."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make scopes and workspaces as the files say; a changed workspace gets a new version.

    Which versions are enforced stays as it is: see `ringfence enforce`. But scopes say whom they
    govern, so a changed scope changes that at once; stderr tells for which workloads.

    Example: ringfence apply -f policies/
    """
    texts = read_documents(file)
    client = connect()
    body = {"files": [{"name": name, "documents": text} for name, text in texts]}
    answer = client.post("/apply", {**body, "dry_run": dry_run, "override": override or []})
    if output is Format.TABLE:
        print_changes(answer["changes"])
    else:
        emit_data(answer["changes"], output)
    tell_governance(answer)
    if answer["refused"]:
        raise RingfenceError(answer["refused"])
