"""`ringfence revert`: take back what is on trial, before its time is over."""

import typer

from ringfence.cli.client import connect
from ringfence.cli.enforce import TimeoutOption, WaitOption, wait_until_in_force

app = typer.Typer(add_completion=False)


@app.command()
def revert(wait: WaitOption = True, timeout: TimeoutOption = 60.0) -> None:
    """Go back from what is enforced on trial to what was enforced before, now.

    Exit code 2 if it is not in force on every node by the end of the wait.

    Example: ringfence revert
    """
    client = connect()
    revision = client.post("/enforcement/revert", {})["revision"]
    if wait and not wait_until_in_force(client, timeout, revision):
        raise typer.Exit(2)
