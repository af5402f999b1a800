"""`ringfence discover`: the policies that the observed flows need, as a file to review."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows import SinceOption, UntilOption

app = typer.Typer()


@app.command()
def discover(
    scope: Annotated[str, typer.Argument(help="The scope to propose a workspace for.")],
    since: SinceOption = "1h",
    until: UntilOption = None,
) -> None:
    """Print a proposed workspace as YAML on stdout; what was taken for noise goes to stderr.

    Example: ringfence discover sock-shop --since 1h > sock-shop.yaml
    """
    answer = connect().post(
        "/discover", {"scope": scope, "since": since, **({"until": until} if until else {})}
    )
    typer.echo(answer["documents"], nl=False)
    summary = answer["summary"]
    typer.echo(f"{summary['policies']} policies from {summary['edges']} edges", err=True)
    for noise in summary["noise"]:
        said = f"{noise['reason']} ({noise['count']}), such as {noise['example']}"
        typer.echo(f"not proposed: {said}", err=True)
