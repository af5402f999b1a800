"""`ringfence apply`: make the control plane agree with YAML files kept in git."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import print_changes, read_documents
from ringfence.cli.output import Format, OutputOption, emit_data

app = typer.Typer()


@app.command()
def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A file, a folder, or -.")],
    dry_run: Annotated[bool, typer.Option(help="Show the changes only.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make scopes and workspaces as the files say; a changed workspace gets a new version.

    Nothing is enforced by this: see `ringfence enforce`.

    Example: ringfence apply -f policies/
    """
    texts = read_documents(file)
    client = connect()
    body = {"files": [{"name": name, "documents": text} for name, text in texts]}
    changes = client.post("/apply", {**body, "dry_run": dry_run})["changes"]
    if output is Format.TABLE:
        print_changes(changes)
    else:
        emit_data(changes, output)
