"""`ringfence scopes`: the tree of scopes, and designs to start from."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, emit

app = typer.Typer(no_args_is_help=True, add_completion=False)

COLUMNS = [
    Column("SCOPE", lambda row: "  " * row["depth"] + row["name"]),
    Column("QUERY", lambda row: row["query"]),
    Column("WORKLOADS", lambda row: row["workloads"], right=True),
    Column("WORKSPACE", lambda row: row.get("workspace")),
]


class Design(StrEnum):
    """The two designs: one scope for the Kubernetes cluster, or one more for each application."""

    SINGLE = "single"
    SPLIT = "split"


@app.command("list")
def list_scopes(output: OutputOption = Format.TABLE) -> None:
    """Show the tree from the highest priority to the lowest, with the workloads in each scope."""
    emit(connect().get("/scopes")["items"], COLUMNS, output, "no scope yet: see `scopes design`")


@app.command("design")
def design(
    kind: Annotated[Design, typer.Argument(help="single or split")],
    kubernetes_cluster: Annotated[str, typer.Option(help="The Kubernetes cluster's id.")],
    namespace: Annotated[
        list[str] | None, typer.Option(help="An application's namespace (split); repeatable.")
    ] = None,
) -> None:
    """Print the scopes of a design as YAML, to edit, keep in git and apply. Needs no server.

    Example: ringfence scopes design split --kubernetes-cluster lab --namespace sock-shop
    """
    from ringfence.model.ids import ClusterId  # noqa: PLC0415
    from ringfence.policy import design as designs  # noqa: PLC0415
    from ringfence.policy.document import Documents, format_documents  # noqa: PLC0415

    cluster = ClusterId(kubernetes_cluster)
    if kind is Design.SINGLE:
        scopes = designs.single(cluster)
    else:
        scopes = designs.split(cluster, namespace or [])
    typer.echo(format_documents(Documents(scopes=tuple(scopes), workspaces=())), nl=False)
