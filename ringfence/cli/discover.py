"""`ringfence discover`: the policies that the observed flows need, as a file to review."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import emit_text, tell
from ringfence.model.words import counted

app = typer.Typer(add_completion=False)


@app.command()
def discover(
    scope: Annotated[str, typer.Argument(help="The scope to propose a workspace for.")],
    since: SinceOption = "1h",
    until: UntilOption = None,
) -> None:
    """Print a proposed workspace as YAML on stdout; what was taken for noise goes to stderr.

    Exit code 2 if no connection was observed that needs a policy: there is nothing to go by.

    Example: ringfence discover sock-shop --since 1h > sock-shop.yaml
    """
    answer = connect().post(
        "/discover", {"scope": scope, "since": since, **({"until": until} if until else {})}
    )
    emit_text(answer["documents"])
    summary = answer["summary"]
    policies = counted(summary["policies"], "policy", "policies")
    tell(f"{policies} from {counted(summary['edges'], 'edge')}")
    for noise in summary["noise"]:
        said = f"{noise['reason']} ({noise['count']}), such as {noise['example']}"
        tell(f"not proposed: {said}")
    if not summary["edges"]:
        tell(
            "warning: no connection was observed in this time; to enforce this workspace would cut"
            f" everything off in {scope}"
        )
        raise typer.Exit(2)
