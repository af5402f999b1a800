"""`ringfence experiment`: what a version would have said to the flows of a past time."""

import time
from typing import Annotated

import typer

from ringfence.cli.client import ApiError, Client, connect
from ringfence.cli.experiments import tell_experiment
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import AnswerOption, Format, Row, tell, tell_notes
from ringfence.model.ids import parse_version

app = typer.Typer(add_completion=False)

_LOOK_SECONDS = 0.5


@app.command()
def experiment(
    workspace: Annotated[str, typer.Argument(help="A workspace, or workspace@p2 for a version.")],
    since: SinceOption = "7d",
    until: UntilOption = None,
    wait: Annotated[bool, typer.Option(help="Wait for what comes of it.")] = True,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Judge the flows of whole hours of the past by a version, in the control plane.

    They are all hours that the time touches, as FROM and TO tell.
    Judged is by what is enforced now with the version in it. Who stops waiting finds the result
    with `ringfence experiments show`.

    Example: ringfence experiment sock-shop@p3 --since 7d
    """
    name, number = parse_version(workspace)
    client = connect()
    asked = {"workspace": name, "version": number, "since": since, "until": until}
    begun = client.post("/experiments", asked)
    tell_notes(begun)
    if not wait:
        tell(f"experiment {begun['id']} is begun: ringfence experiments show {begun['id']}")
        return
    done = _follow(client, begun)
    if done["state"] == "failed":
        raise ApiError(f"experiment {done['id']} failed: {done['problem']}")
    tell_experiment(done, output)


def _follow(client: Client, begun: Row) -> Row:
    """Show how far it is until it is over; what came of it."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"), BarColumn(),
        TextColumn("{task.completed} of {task.total} hours"), TimeElapsedColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"experiment {begun['id']}", total=None)
        while True:
            now: Row = client.get(f"/experiments/{begun['id']}")
            if now["state"] in ("done", "failed"):
                return now
            progress.update(task, completed=now["hours_done"], total=now["hours"] or None)
            time.sleep(_LOOK_SECONDS)
