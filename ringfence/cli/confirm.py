"""`ringfence confirm`: keep what a command with `--confirm` put in force."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import tell

app = typer.Typer(add_completion=False)


@app.command()
def confirm(
    revision: Annotated[
        int | None,
        typer.Argument(min=1, help="Refuse where another one is on trial by now."),
    ] = None,
) -> None:
    """Keep what is enforced on trial: it is not taken back any more.

    Example: ringfence confirm 7
    """
    kept = connect().post("/enforcement/confirm", {"revision": revision})["what"]
    tell(f"{kept} stays")
