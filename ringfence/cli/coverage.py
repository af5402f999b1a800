"""`ringfence coverage`: whether what was seen of a scope is enough to decide by."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import AnswerOption, Format, emit_data, say
from ringfence.model.words import counted

app = typer.Typer(add_completion=False)


@app.command()
def coverage(
    scope: Annotated[str, typer.Argument(help="The scope.")],
    since: SinceOption = "24h",
    until: UntilOption = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Say how much of what a scope's workloads need was seen, and what may be missing.

    Exit code 2 if nothing was seen, or nothing but noise.

    Example: ringfence coverage sock-shop --since 7d
    """
    told = connect().get("/coverage", scope=scope, since=since, until=until)
    if output is not Format.TABLE:
        emit_data(told, output)
    else:
        of_core = counted(told["core"], "edge")
        say(f"{told['observed_a_day']} of {told['workloads']} workloads observed for a day or more")
        edges = counted(told["edges"], "edge")
        say(f"{edges} seen, {told['allowed']} of them enough to be allowed")
        say(f"{of_core} of core services seen")
        if told["noise"]:
            say(f"{counted(told['noise'], 'edge')} more of noise, which no figure here counts")
        for sentence in told["sentences"]:
            say(sentence)
    if not told["edges"] + told["core"]:
        raise typer.Exit(2)
