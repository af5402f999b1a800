"""`ringfence promote`: lead a scope on to being enforced."""

import sys
from typing import Annotated

import typer

from ringfence.cli.client import ApiError, connect, segment
from ringfence.cli.enforce import YesOption, show_plan
from ringfence.cli.output import AnswerOption, Format, Row, emit_data, say, tell
from ringfence.cli.promotion import tell_impact, tell_promotion
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.promotion import Stage

app = typer.Typer(add_completion=False)


@app.command()
def promote(
    scope: Annotated[str, typer.Argument(help="The scope.")],
    to: Annotated[Stage | None, typer.Option(help="As far as this; one stage if left out.")] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Where the trial is to be; repeatable. Else at one.")
    ] = None,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would change at nodes only.")] = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Lead a scope on: observe, discover, analyse, staged, enforced.

    discover writes the proposed policies down as its workspace, analyse holds them against all that
    arrives, staged enforces them at some nodes on trial, and when the trial ends well they are
    enforced everywhere. Refused where what the next stage wants does not hold:
    `ringfence promotion show` tells. Before anything changes at nodes it shows the workloads that
    the version governs, what it would have blocked, and the plan, and asks. What somebody enforced
    by hand is taken back on alarm from then on.

    Example: ringfence promote sock-shop --to analyse
    """
    client, path = connect(), f"/promotions/{segment(scope)}/promote"
    body = {"to": to, "nodes": node or []}
    body["expected_revision"] = client.get("/enforcement")["revision"]
    shown = client.post(path, {**body, "dry_run": True})
    if shown["refused"] and shown["stage"] == Stage.ANALYSE and not dry_run:
        raise ApiError(shown["refused"])
    changes_nodes = bool(shown["plan"] or shown["alarm"] or shown["stage"] == Stage.STAGED)
    if changes_nodes and not (yes or dry_run or sys.stdin.isatty()):
        raise InputError(
            "nobody can answer here: pass --yes to go ahead, --dry-run to see the plan"
        )
    if shown["impact"] is not None:
        tell_impact(shown["impact"], output)
    if output is Format.TABLE:
        _show(shown, dry_run=dry_run)
    elif dry_run:
        emit_data(shown, output)
    if dry_run:
        if shown["refused"]:
            tell(f"warning: it would be refused now: {shown['refused']}")
        return
    if changes_nodes and not yes and not typer.confirm("Go ahead?", err=True):
        raise RingfenceError("nothing was changed")
    answer = client.post(path, body)
    if output is not Format.TABLE:
        emit_data(answer, output)
        return
    tell_promotion(answer)


def _show(shown: Row, *, dry_run: bool) -> None:
    """Say what changes at nodes."""
    if shown["plan"] is not None:
        show_plan(shown["plan"], Format.TABLE)
    elif shown["stage"] == Stage.STAGED:
        say("its trial ends now: what is enforced at some nodes is enforced everywhere")
    elif shown["alarm"]:
        say(f"an alarm is open, so what is enforced is taken back at once: {shown['alarm']}")
    elif dry_run:
        say("nothing changes at nodes")
