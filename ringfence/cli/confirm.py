"""`ringfence confirm`: keep what `ringfence enforce --confirm` put in force."""

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import tell

app = typer.Typer(add_completion=False)


@app.command()
def confirm() -> None:
    """Keep what is enforced on trial: it is not taken back any more.

    Example: ringfence confirm
    """
    revision = connect().post("/enforcement/confirm", {})["revision"]
    tell(f"revision {revision} stays")
