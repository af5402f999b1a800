"""`ringfence promote`: lead a scope on to being enforced."""

from typing import Annotated

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.output import AnswerOption, Format, emit_data
from ringfence.cli.promotion import tell_promotion
from ringfence.model.promotion import Stage

app = typer.Typer(add_completion=False)


@app.command()
def promote(
    scope: Annotated[str, typer.Argument(help="The scope.")],
    to: Annotated[Stage | None, typer.Option(help="As far as this; one stage if left out.")] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="Where the trial is to be; repeatable. Else at one.")
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Lead a scope on: observe, discover, analyse, staged, enforced.

    discover writes the proposed policies down as its workspace, analyse holds them against all that
    arrives, staged enforces them at some nodes on trial, and when the trial ends well they are
    enforced everywhere. Refused where what the next stage wants does not hold:
    `ringfence promotion show` tells.

    Example: ringfence promote sock-shop --to analyse
    """
    body = {"to": to, "nodes": node or []}
    answer = connect().post(f"/promotions/{segment(scope)}/promote", body)
    if output is not Format.TABLE:
        emit_data(answer, output)
        return
    tell_promotion(answer)
