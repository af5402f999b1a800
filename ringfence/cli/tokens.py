"""`ringfence tokens`: letting agents and connectors in."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Format, OutputOption, emit_data

app = typer.Typer(no_args_is_help=True)


@app.command("enrol")
def enrol(
    kind: Annotated[str, typer.Argument(help="agent or connector")],
    kubernetes_cluster: Annotated[str, typer.Option(help="The Kubernetes cluster's id.")],
    uses: Annotated[int, typer.Option(help="How many clients may enrol with it.")] = 1,
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
    output: OutputOption = Format.TABLE,
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
        typer.echo(answer["token"])
    else:
        emit_data(answer, output)
