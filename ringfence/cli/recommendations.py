"""`ringfence recommendations`: scopes that are watched, and the policies recommended for them."""

from typing import Annotated

import typer

from ringfence.cli.client import Client, connect, segment
from ringfence.cli.enforce import YesOption
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    emit_text,
    say,
    tell,
)
from ringfence.cli.what_if import ALL, make_version
from ringfence.model.duration import format_duration, parse_duration
from ringfence.model.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False)

ScopeArgument = Annotated[str, typer.Argument(help="The scope.")]
_UNUSED = "now unused"
_NONE = "no scope is watched; begin with `ringfence recommendations start SCOPE`"

_LISTED = [
    Column("SCOPE", lambda row: row["scope"]),
    Column("ADDED", lambda row: row["counts"]["added"], right=True),
    Column("NOW UNUSED", lambda row: row["counts"][_UNUSED], right=True),
    Column("GENERALISED", lambda row: row["counts"]["generalised"], right=True),
    Column("SINCE", lambda row: row["changed"]),
    Column("LOOKED", lambda row: row["looked"] or "not yet"),
    Column("WINDOW", lambda row: format_duration(row["window_seconds"])),
    Column("PROBLEM", lambda row: row["problem"]),
    Column("BY", lambda row: row["actor"], wide=True),
]
_SEEN = [
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("LAST", lambda row: row["last"]),
    Column("NOTE", lambda row: row["note"]),
]
_CHANGES = [
    Column("#", lambda row: row["number"], right=True),
    Column("CHANGE", lambda row: row["change"]),
    Column("POLICY", lambda row: row["policy"]),
    *_SEEN,
]
_APPROVED = [Column("APPROVED POLICY", lambda row: row["policy"]), *_SEEN]


@app.command("start")
def start(
    scope: ScopeArgument,
    window: Annotated[str, typer.Option(help="Go by the traffic of so long: 1h to 30d.")] = "1d",
) -> None:
    """Watch a scope: once an hour, find what its policies lack and which are of no use.

    Example: ringfence recommendations start sock-shop
    """
    asked = {"scope": scope, "window_seconds": parse_duration(window)}
    made = connect().post("/recommendations", asked)
    tell(f"scope {scope} is watched since {made['since']}: ringfence recommendations show {scope}")


@app.command("stop")
def stop(scope: ScopeArgument) -> None:
    """Watch a scope no more, and forget what was recommended.

    Example: ringfence recommendations stop sock-shop
    """
    connect().delete("/recommendations", scope=scope)
    tell(f"scope {scope} is not watched any more")


@app.command("list")
def list_(output: OutputOption = Format.TABLE) -> None:
    """List the watched scopes, and how much is recommended for each.

    Example: ringfence recommendations list
    """
    emit(connect().get("/recommendations")["items"], _LISTED, output, _NONE)


@app.command("show")
def show(scope: ScopeArgument, output: AnswerOption = Format.TABLE) -> None:
    """Tell what is recommended for a scope, and how often each approved policy decided.

    With -o yaml, print its workspace with what is new, to be read and applied; nothing that is
    unused is taken from it.

    Example: ringfence recommendations show sock-shop

    ringfence recommendations show sock-shop -o yaml > sock-shop.yaml
    """
    client = connect()
    for watched in client.get("/recommendations")["items"]:
        if watched["scope"] == scope and not (watched["looked"] or watched["problem"]):
            tell(
                f"nothing is recommended for {scope} yet: it is about to be looked at; ask again "
                "in a minute"
            )
            if output is Format.JSON:
                emit_data({**watched, "changes": [], "approved": []}, output)
            return
    found = _ask(client, scope)
    if output is Format.YAML:
        emit_text(found["documents"])
        return
    if output is Format.JSON:
        emit_data(found, output)
        return
    version = f"{found['workspace']}@p{found['version']}" if found["version"] else "no workspace"
    say(f"for {version}, by {format_duration(found['window_seconds'])} until {found['looked']}")
    if found["problem"]:
        tell(f"warning: the last look failed: {found['problem']}")
    emit(
        found["changes"], _CHANGES, output, "nothing is recommended: its policies fit what was seen"
    )
    if found["approved"]:
        say()
        emit(found["approved"], _APPROVED, output)


@app.command("accept")
def accept(
    scope: ScopeArgument,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="1,2|all", help="Numbers or ids of `show`; all: whatever is not a removal."
        ),
    ],
    dry_run: Annotated[bool, typer.Option(help="Show the new version only.")] = False,
    yes: YesOption = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Make a version of the scope's workspace with some of the changes. Enforces nothing.

    An unused policy is removed only where it is named: by its number, or its id.

    Example: ringfence recommendations accept sock-shop 1,3
    """
    client = connect()
    found = _ask(client, scope)
    rows = _chosen(found["changes"], wanted)
    if not rows:
        left = "only removals, which are named by number or id" if found["changes"] else "nothing"
        tell(f"there is nothing to accept: {left} is recommended for {scope}")
        return
    chosen = [{"change": row["change"], "policy": row["policy"]} for row in rows]
    body = {"version": found["version"], "accept": chosen}
    path = f"/recommendations/{segment(scope)}/accept"
    make_version(client, path, body, dry_run=dry_run, yes=yes, output=output)


def _ask(client: Client, scope: str) -> Row:
    """What is recommended, each change with its `number` from 1."""
    found: Row = client.get(f"/recommendations/{segment(scope)}")
    for number, row in enumerate(found["changes"], 1):
        row["number"] = number
    return found


def _chosen(rows: list[Row], wanted: str) -> list[Row]:
    if wanted == ALL:
        return [row for row in rows if row["change"] != _UNUSED]
    words = wanted.split(",")
    known = {str(row["number"]) for row in rows} | {row["policy"] for row in rows}
    if unknown := [word for word in words if word not in known]:
        raise InputError(
            f"{unknown[0]!r}: write numbers from 1 to {len(rows)} or ids of policies, between "
            f"commas, or {ALL}"
        )
    return [row for row in rows if {str(row["number"]), row["policy"]} & {*words}]
