"""`ringfence tokens`: letting people, agents and connectors in, and people out."""

from typing import Annotated

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.output import AnswerOption, Column, Format, OutputOption, emit, emit_data, say
from ringfence.model.client import ClientKind

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("enrol")
def enrol(
    kind: Annotated[ClientKind, typer.Argument(help="agent or connector")],
    kubernetes_cluster: Annotated[str, typer.Option(help="The Kubernetes cluster's id.")],
    uses: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many clients may enrol with it.")
    ] = 1,
    ttl: Annotated[
        int, typer.Option(min=1, max=366 * 86400, help="Seconds until it expires.")
    ] = 3600,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Print a token that enrols agents or a connector of one Kubernetes cluster.

    Example: ringfence tokens enrol agent --kubernetes-cluster lab --uses 2
    """
    body = {
        "kind": kind,
        "kubernetes_cluster": kubernetes_cluster,
        "uses": uses,
        "ttl_seconds": ttl,
    }
    answer = connect().post("/enrolment-tokens", body)
    if output is Format.TABLE:
        say(answer["token"])
    else:
        emit_data(answer, output)


COLUMNS = [
    Column("ID", lambda row: row["id"]),
    Column("ACTOR", lambda row: row["actor"]),
    Column("CREATED", lambda row: row["created_at"]),
    Column("EXPIRES", lambda row: row["expires_at"] or "never"),
]


@app.command("list")
def list_tokens(output: OutputOption = Format.TABLE) -> None:
    """List the tokens with which people log in, without their secrets.

    Example: ringfence tokens list
    """
    emit(connect().get("/tokens")["items"], COLUMNS, output)


@app.command("create")
def create(
    actor: Annotated[str, typer.Argument(help="Whose it is, as `ringfence changes` will say.")],
    ttl: Annotated[
        int | None, typer.Option(min=1, help="Seconds until it expires; else never.")
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Print a token for one more administrator, which is shown this once.

    Example: ringfence tokens create ann --ttl 86400
    """
    answer = connect().post("/tokens", {"actor": actor, "ttl_seconds": ttl})
    if output is Format.TABLE:
        say(answer["token"])
    else:
        emit_data(answer, output)


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `ringfence tokens list` has it.")],
) -> None:
    """Revoke a token at once.

    Example: ringfence tokens revoke 0a1b2c3d4e5f
    """
    connect().delete(f"/tokens/{segment(token)}")
