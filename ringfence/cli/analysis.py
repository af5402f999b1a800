"""`ringfence analysis`: versions that are held against all that arrives, and what was found."""

from typing import Annotated

import typer

from ringfence.cli.client import Client, connect, segment
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, emit, tell, tell_notes
from ringfence.model.errors import InputError
from ringfence.model.flow import Category
from ringfence.model.ids import parse_version

app = typer.Typer(no_args_is_help=True, add_completion=False)

VersionArgument = Annotated[
    str, typer.Argument(help="A version, such as sock-shop@p3; else the one under analysis.")
]

_IDLE = "nothing is under analysis; begin with `ringfence analysis start WORKSPACE`"
_ASK = "`ringfence analysis list` tells since when it is under analysis; --since asks for longer"


def _count(category: Category, field: str) -> Column:
    heading = category.value.upper()
    return Column(heading, lambda row: row[field].get(category, 0), right=True)


CATEGORIES = [_count(one, "counts") for one in Category]
_LISTED = [
    Column("VERSION", lambda row: f"{row['workspace']}@p{row['version']}"),
    Column("ENFORCED", lambda row: "yes" if row["enforced"] else "no"),
    *CATEGORIES,
    Column("SINCE", lambda row: row["since"]),
    Column("BY", lambda row: row["actor"], wide=True),
]
_STEPS = [Column("FROM", lambda row: row["start"]), *CATEGORIES]
HITS = [
    Column("POLICY", lambda row: row["policy"] or "catch-all"),
    *(_count(one, "conversations") for one in list(Category)[:4]),
    Column("LAST", lambda row: row["last"]),
    Column("NOTE", lambda row: row["note"]),
]


@app.command("start")
def start(
    workspace: Annotated[str, typer.Argument(help="A workspace, or workspace@p2 for a version.")],
) -> None:
    """Hold a version against all that arrives from now on. What is enforced is so anyway.

    Example: ringfence analysis start sock-shop@p3
    """
    name, version = parse_version(workspace)
    made = connect().post("/analyses", {"workspace": name, "version": version})
    tell(f"{made['workspace']}@p{made['version']} is under analysis since {made['since']}")
    tell_notes(made)


@app.command("stop")
def stop(version: VersionArgument) -> None:
    """Hold a version against what arrives no more; what was found stays.

    Example: ringfence analysis stop sock-shop@p3
    """
    client = connect()
    name, number = _numbered(client, version)
    client.delete("/analyses", workspace=name, version=number)
    tell(f"{name}@p{number} is not under analysis any more")


@app.command("list")
def list_(
    since: SinceOption = "1d", until: UntilOption = None, output: OutputOption = Format.TABLE
) -> None:
    """List the versions under analysis, and how many conversations fell in each category.

    Example: ringfence analysis list --since 1h
    """
    answer = connect().get("/analyses", since=since, until=until)
    emit(answer["items"], _LISTED, output, _IDLE)


@app.command("show")
def show(
    version: VersionArgument,
    since: SinceOption = "1d",
    until: UntilOption = None,
    step: Annotated[str, typer.Option(help="Count by so much time: 5m, 1h, 1d.")] = "1h",
    output: OutputOption = Format.TABLE,
) -> None:
    """Count conversations by category over time, each with the verdict of its own time.

    Example: ringfence analysis show sock-shop@p3 --since 7d --step 1d
    """
    client = connect()
    name, number = _numbered(client, version)
    asked = {"version": number, "since": since, "until": until, "step": step}
    answer = client.get(f"/analyses/{segment(name)}/counts", **asked)
    emit(
        answer["items"],
        _STEPS,
        output,
        f"nothing was found of {name}@p{number} in that time: {_ASK}",
    )


@app.command("hits")
def hits(
    version: VersionArgument,
    since: SinceOption = "30d",
    until: UntilOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Count the conversations that each policy decided, and name those without traffic.

    Example: ringfence analysis hits sock-shop@p3
    """
    client = connect()
    name, number = _numbered(client, version)
    asked = {"version": number, "since": since, "until": until}
    answer = client.get(f"/analyses/{segment(name)}/hits", **asked)
    emit(answer["items"], HITS, output, f"{name}@p{number} has no policies")


def _numbered(client: Client, text: str) -> tuple[str, int]:
    """The version that is named, else the only one of the workspace that is under analysis."""
    name, number = parse_version(text)
    if number is not None:
        return name, number
    items = client.get("/analyses", since="1m")["items"]
    held = [one["version"] for one in items if one["workspace"] == name]
    if not held:
        raise InputError(
            f"{text!r}: no version of it is under analysis; write one, such as {name}@p3, or see "
            "`ringfence analysis list`"
        )
    if held[1:]:
        listed = ", ".join(f"{name}@p{version}" for version in held)
        raise InputError(f"{text!r}: write which version: under analysis are {listed}")
    return name, held[0]
