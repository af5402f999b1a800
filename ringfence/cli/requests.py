"""`ringfence requests`: what policies need of workspaces of other scopes."""

from typing import Annotated

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    printable,
    say,
)
from ringfence.model.approval import State

app = typer.Typer(no_args_is_help=True, add_completion=False)
rule_app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(rule_app, name="rule", help="Rules that approve requests at once.")

RequestArgument = Annotated[str, typer.Argument(metavar="REQUEST", help="As `list` tells it.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for those who asked.")]


@app.command("list")
def list_requests(
    state: Annotated[State | None, typer.Option(help="Those in this state only.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List what policies need of workspaces of other scopes, and what was answered.

    Example: ringfence requests list --state pending
    """
    answer = connect().get("/requests", state=state.value if state else None)
    emit(answer["items"], COLUMNS, output, "no request")


@app.command("show")
def show(request: RequestArgument, output: AnswerOption = Format.TABLE) -> None:
    """Show what a request would add to the workspace that is asked.

    Example: ringfence requests show 3f9a0c1b2d
    """
    _tell(connect().get(f"/requests/{segment(request)}"), output)


@app.command("approve")
def approve(
    request: RequestArgument, reason: ReasonOption = "", output: AnswerOption = Format.TABLE
) -> None:
    """Add what is requested to the workspace that is asked, as a new version.

    It is in force when that version is enforced: see `ringfence enforce`.

    Example: ringfence requests approve 3f9a0c1b2d
    """
    _tell(connect().post(f"/requests/{segment(request)}/approve", {"reason": reason}), output)


@app.command("reject")
def reject(
    request: RequestArgument, reason: ReasonOption = "", output: AnswerOption = Format.TABLE
) -> None:
    """Refuse a request, now and when it is raised again.

    Example: ringfence requests reject 3f9a0c1b2d --reason "use the public API"
    """
    _tell(connect().post(f"/requests/{segment(request)}/reject", {"reason": reason}), output)


@rule_app.command("add")
def add_rule(
    workspace: Annotated[str, typer.Argument(help="The workspace that is asked.")],
    from_scope: Annotated[
        str, typer.Option(help="Requests of workspaces of this scope and of those below it.")
    ],
    provider: Annotated[
        str | None, typer.Option(help="A filter that every workload matches that is opened.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="TCP, UDP, …, or any.")] = "any",
    ports: Annotated[str, typer.Option(help="By commas, such as 80,8000-8080; else all.")] = "",
    output: AnswerOption = Format.TABLE,
) -> None:
    """Approve some requests to a workspace as soon as they are raised, and pending ones now.

    Only where a catch-all denies, and only for workloads of the asking scope: what a policy of
    the workspace denies, and what opens it to anybody, is left to a person.

    Example: ringfence requests rule add platform --from-scope shop --protocol TCP --ports 443
    """
    body = {
        "provider_workspace": workspace,
        "scope": from_scope,
        "provider": provider,
        "protocol": protocol,
        "ports": [one for one in ports.split(",") if one],
    }
    answer = connect().post("/approval-rules", body)
    if output is Format.TABLE:
        emit([answer], RULE_COLUMNS, output)
    else:
        emit_data(answer, output)


@rule_app.command("list")
def list_rules(output: OutputOption = Format.TABLE) -> None:
    """List the rules that approve requests.

    Example: ringfence requests rule list
    """
    emit(connect().get("/approval-rules")["items"], RULE_COLUMNS, output, "no rule")


@rule_app.command("remove")
def remove_rule(
    rule: Annotated[str, typer.Argument(help="As `rule list` tells it.")],
) -> None:
    """Remove a rule; what it approved stays.

    Example: ringfence requests rule remove 0c1b2d3f9a
    """
    connect().delete(f"/approval-rules/{segment(rule)}")


COLUMNS = [
    Column("ID", lambda row: row["id"]),
    Column("STATE", lambda row: row["state"]),
    Column("POLICY", lambda row: f"{row['workspace']}/{row['policy']}"),
    Column("ASKS WORKSPACE", lambda row: row["provider_workspace"]),
    Column("SINCE", lambda row: row["changed"]),
    Column("BY", lambda row: row["actor"]),
    Column("REASON", lambda row: row["reason"]),
    Column("CHANGE", lambda row: row["text"].replace("\n", "; "), wide=True),
]

RULE_COLUMNS = [
    Column("ID", lambda row: row["id"]),
    Column("WORKSPACE", lambda row: row["provider_workspace"]),
    Column("FROM SCOPE", lambda row: row["scope"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("TRAFFIC", lambda row: f"{row['protocol']} {','.join(row['ports'])}".strip()),
    Column("BY", lambda row: row["actor"]),
]


def _tell(row: Row, output: Format) -> None:
    if output is not Format.TABLE:
        emit_data(row, output)
        return
    for line in told(row):
        say(line)


def told(row: Row) -> list[str]:
    """A request in a few lines of text."""
    why = f": {row['reason']}" if row["reason"] else ""
    head = (
        f"request {row['id']} of {row['workspace']}/{row['policy']} "
        f"to workspace {row['provider_workspace']}: {row['state']}{why}"
    )
    return [printable(head), *(f"  {printable(line)}" for line in row["text"].splitlines())]
