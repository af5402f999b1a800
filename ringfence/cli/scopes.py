"""`ringfence scopes`: the tree of scopes, designs to start from, and what an edit would do."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import read_documents, send_documents
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    emit_text,
    say,
    tell,
)
from ringfence.model.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False)

_NAMED = 3
"""Workloads that a cell of a table names."""

COLUMNS = [
    Column("SCOPE", lambda row: "  " * row["depth"] + row["name"]),
    Column("QUERY", lambda row: row["query"]),
    Column("WORKLOADS", lambda row: row["workloads"], right=True),
    Column("WORKSPACE", lambda row: row.get("workspace")),
    Column("OVERLAPS", lambda row: _overlaps(row["overlaps"]), wide=True),
]


class Design(StrEnum):
    """The two designs: one scope for the Kubernetes cluster, or one more for each application."""

    SINGLE = "single"
    SPLIT = "split"


@app.command("list")
def list_scopes(output: OutputOption = Format.TABLE) -> None:
    """Show the tree from the highest priority to the lowest, with the workloads in each scope.

    -o wide names the siblings that share workloads. Of absolute policies those of the upper sibling
    are read first, of default policies and catch-alls those of the lower one.
    """
    answer = connect().get("/scopes")
    emit(answer["items"], COLUMNS, output, "no scope yet: see `scopes design`")
    _warn(answer)


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
    emit_text(format_documents(Documents(scopes=tuple(scopes), workspaces=())))


@app.command("preview")
def preview(
    files: Annotated[list[Path], typer.Argument(help="Files, folders, or -.")],
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what the scopes in files would do once applied: to workloads, policies and order.

    Exit code 2 if a workload moves or an enforced rule changes, 0 if none does.

    Example: ringfence scopes preview scopes.yaml
    """
    answer = send_documents(connect(), "/scopes/preview", read_documents(files))
    if output is Format.TABLE:
        _print_preview(answer)
    else:
        emit_data(answer, output)
    _warn(answer)
    if answer["refused"]:
        tell(f"apply would refuse this: {answer['refused']}")
    raise typer.Exit(2 if answer["moves"] or answer["workspaces"] else 0)


MOVES = [
    Column("LEAVES", lambda row: ", ".join(row["left"])),
    Column("JOINS", lambda row: ", ".join(row["joined"])),
    Column("WORKLOADS", lambda row: _who(row["workloads"])),
]
RULES = [
    Column("POLICY", lambda row: f"{row['workspace']}/{row['policy'] or 'catch-all'}"),
    Column("VERSION", lambda row: f"p{row['version']}"),
    Column("STAGE", lambda row: row["stage"]),
    Column("BEGINS TO DECIDE AT", lambda row: _who(row["gained"])),
    Column("CEASES AT", lambda row: _who(row["lost"])),
    Column("OTHER PEERS AT", lambda row: _who(row["altered"])),
]
SWAPS = [
    Column("NOW FIRST", lambda row: row["first"]),
    Column("THEN", lambda row: row["second"]),
    Column("WORKLOADS OF BOTH", lambda row: _who(row["workloads"])),
]
OVERLAPS = [
    Column("SIBLINGS", lambda row: f"{row['first']}, {row['second']}"),
    Column("ABSOLUTE POLICIES", lambda row: f"{row['first']} first"),
    Column("DEFAULT POLICIES, CATCH-ALLS", lambda row: f"{row['second']} first"),
    Column("WORKLOADS", lambda row: row["workloads"], right=True),
]


def _print_preview(answer: Row) -> None:
    sections = (
        ("Workloads that move:", answer["moves"], MOVES),
        ("Enforced policies that change:", answer["rules"], RULES),
        ("Enforced workspaces that change places:", answer["swaps"], SWAPS),
        ("Siblings that share workloads:", answer["overlaps"], OVERLAPS),
    )
    for title, rows, columns in sections:
        if rows:
            say(title)
            emit(rows, columns, Format.TABLE)
            say()
    if not answer["moves"]:
        say("no workload moves")
    if touched := answer["workspaces"]:
        workloads = counted(answer["workloads"]["count"], "workload")
        say(f"what is enforced changes at {workloads}, by {', '.join(touched)}")
    else:
        say("nothing that is enforced changes")


def _who(workloads: dict[str, Any]) -> str:
    """`2: a, b`, the first names only; empty for nobody."""
    names, count = workloads["names"], workloads["count"]
    if not count:
        return ""
    shown = names[:_NAMED]
    return f"{count}: {', '.join(shown)}{', …' if count > len(shown) else ''}"


def _overlaps(shared: list[Row]) -> str:
    return ", ".join(f"{one['scope']} ({counted(one['workloads'], 'workload')})" for one in shared)


def _warn(answer: Row) -> None:
    for warning in answer["warnings"]:
        tell(f"warning: {warning}")
