"""`ringfence coverage`: whether what was seen of a scope is enough to decide by."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import (
    FlowsFileOption,
    InventoryFileOption,
    SinceOption,
    UntilOption,
    refuse_window,
)
from ringfence.cli.output import AnswerOption, Format, emit_data, say
from ringfence.model.errors import InputError
from ringfence.model.words import counted

app = typer.Typer(add_completion=False)


@app.command()
def coverage(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    scope: Annotated[
        str | None, typer.Argument(help="The scope; of files, left out, the one above all.")
    ] = None,
    since: SinceOption = "24h",
    until: UntilOption = None,
    inventory: InventoryFileOption = None,
    flows: FlowsFileOption = None,
    scopes: Annotated[
        list[Path] | None, typer.Option(help="With files: YAML with the scopes.")
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Say how much of what a scope's workloads need was seen, and what may be missing.

    Exit code 2 if nothing was seen, or nothing but noise.

    Example: ringfence coverage sock-shop --since 7d

    ringfence coverage --inventory inventory.yaml --flows flows.parquet
    """
    if inventory and flows:
        from ringfence.cli.discover_files import coverage_of_files  # noqa: PLC0415

        refuse_window(context)
        told = coverage_of_files(inventory, flows, scopes or [], scope)
    elif inventory or flows or scopes:
        raise InputError("--inventory and --flows go together, and --scopes with both")
    elif scope is None:
        raise InputError("name a scope, or --inventory and --flows to ask no server")
    else:
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
