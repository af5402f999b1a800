"""`ringfence export`: what the control plane holds, as YAML for git."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.client import connect

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """The kinds of documents."""

    SCOPE = "Scope"
    FILTER = "Filter"
    WORKSPACE = "Workspace"


@app.command()
def export(
    kind: Annotated[Kind | None, typer.Option(help="All kinds if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="This one only.")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="An older version of a workspace.")
    ] = None,
) -> None:
    """Print scopes, named filters and workspaces in the form that `apply` reads.

    Example: ringfence export --kind Workspace --name sock-shop > sock-shop.yaml
    """
    answer = connect().get("/export", kind=kind, name=name, version=version)
    typer.echo(answer["documents"], nl=False)
