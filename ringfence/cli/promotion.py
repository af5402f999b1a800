"""`ringfence promotion`: how far scopes are, and what they have to meet."""

import re
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    say,
    tell,
    tell_notes,
)
from ringfence.model.duration import format_duration, parse_duration
from ringfence.model.errors import InputError
from ringfence.model.promotion import Stage
from ringfence.model.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False)

ScopeArgument = Annotated[str, typer.Argument(help="The scope.")]
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")


def _version(row: Row) -> str:
    return f"{row['workspace']}@p{row['version']}" if row["workspace"] else ""


_LISTED = [
    Column("SCOPE", lambda row: row["scope"]),
    Column("STAGE", lambda row: row["stage"]),
    Column("VERSION", _version),
    Column("MISSING", lambda row: sum(not one["met"] for one in row["entry"]), right=True),
    Column("DEMOTED", lambda row: row["demoted"]),
]
_GOVERNED = [
    Column("WORKLOAD", lambda row: row["name"]),
    Column("MEMBERS", lambda row: row["members"], right=True),
]
_BLOCKED = [
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("TRAFFIC", lambda row: f"{row['protocol']} {row['port']}".rstrip()),
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("LAST", lambda row: row["last"]),
    Column("DENIED BY", lambda row: ", ".join(row["denied_by"])),
]
_ENTRY = [
    Column("MET", lambda row: "yes" if row["met"] else "no"),
    Column("WANTED", lambda row: row["wanted"]),
    Column("NOW", lambda row: row["now"]),
]


def tell_promotion(found: Row) -> None:
    """Say how far a scope is, and what has to hold before it is led on."""
    version = f" with {_version(found)}" if found["workspace"] else ""
    say(f"{found['scope']} is at stage {found['stage']}{version}")
    if found["demoted"]:
        say(f"taken back at {found['demoted']}: {found['why']}")
    tell_notes(found)
    if found["trial_until"]:
        say(
            f"trial under way until {found['trial_until']}: when it ends well it leads on by itself"
        )
    elif found["guarded"]:
        say("an alarm takes it back")
    elif found["stage"] == Stage.ENFORCED and found["criteria"]["demote"]:
        say(f"no alarm takes it back: ringfence promote {found['scope']} has alarms do so")
    if found["entry"]:
        say(f"before {found['next']}:")
        emit(found["entry"], _ENTRY, Format.TABLE)
    elif found["next"]:
        say(f"nothing stands before {found['next']}: ringfence promote {found['scope']}")


def tell_impact(found: Row, output: Format) -> None:
    """Print whom a version governs and what it would have blocked; of data the sums alone."""
    governed, long = found["governed"], format_duration(found["seconds"])
    none = "no workload: none of the inventory is in its scope"
    tell(f"it governs {counted(len(governed), 'workload') if governed else none}")
    if output is Format.TABLE and governed:
        emit(governed, _GOVERNED, output)
    if not found["analysed"]:
        tell("it was not under analysis yet: what it would block is not known")
        return
    blocked = counted(found["conversations"], "conversation")
    tell(f"it would have blocked {blocked} of those that passed in the last {long}")
    if output is Format.TABLE and found["blocked"]:
        emit(found["blocked"], _BLOCKED, output)
    if found["untold"]:
        tell(f"{counted(found['untold'], 'kind')} of conversations more are not told")


@app.command("list")
def list_(output: OutputOption = Format.TABLE) -> None:
    """List the scopes that were led on, or have criteria of their own.

    Example: ringfence promotion list
    """
    emit(connect().get("/promotions")["items"], _LISTED, output, "no scope is being promoted")


@app.command("show")
def show(scope: ScopeArgument, output: AnswerOption = Format.TABLE) -> None:
    """Tell how far a scope is, and what has to hold before it is led on.

    Example: ringfence promotion show sock-shop
    """
    found = connect().get(f"/promotions/{segment(scope)}")
    if output is not Format.TABLE:
        emit_data(found, output)
        return
    tell_promotion(found)


@app.command("criteria")
def criteria(  # noqa: PLR0913, PLR0917 - one parameter for each option
    scope: ScopeArgument,
    observe_for: Annotated[str | None, typer.Option(help="Flows seen for so long: 1d.")] = None,
    coverage: Annotated[str | None, typer.Option(help="Conversations allowed: 99%.")] = None,
    quiet_for: Annotated[
        str | None, typer.Option(help="Under analysis for so long, nothing misdropped: 24h.")
    ] = None,
    stage_for: Annotated[str | None, typer.Option(help="How long the trial lasts: 10m.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help="What the trial may drop unforeseen: 1%.")
    ] = None,
    demote: Annotated[
        bool | None,
        typer.Option("--demote/--no-demote", help="Take it back on a misdropped conversation."),
    ] = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Set what a scope has to meet; what is left out stays. Without options, show it.

    Example: ringfence promotion criteria sock-shop --coverage 99.5% --quiet-for 12h
    """
    client, path = connect(), f"/promotions/{segment(scope)}"
    given: dict[str, Any] = {
        "observe_seconds": observe_for and parse_duration(observe_for),
        "coverage": coverage and _share(coverage),
        "quiet_seconds": quiet_for and parse_duration(quiet_for),
        "stage_seconds": stage_for and parse_duration(stage_for),
        "threshold": threshold and _share(threshold),
        "demote": demote,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    held = client.get(path)["criteria"]
    if changed:
        held = client.post(f"{path}/criteria", {**held, **changed})["criteria"]
    if output is not Format.TABLE:
        emit_data(held, output)
        return
    say(f"observe for   {format_duration(held['observe_seconds'])}")
    say(f"coverage      {held['coverage']:.2%}")
    say(f"quiet for     {format_duration(held['quiet_seconds'])}")
    say(f"stage for     {format_duration(held['stage_seconds'])}")
    say(f"threshold     {held['threshold']:.2%}")
    say(f"demote        {'yes' if held['demote'] else 'no'}")


def _share(text: str) -> float:
    read = _SHARE.fullmatch(text)
    if read is None or float(read[1]) > 100:  # noqa: PLR2004 - per cent
        raise InputError(f"{text!r}: write a percentage, such as 99.5%")
    return float(read[1]) / 100
