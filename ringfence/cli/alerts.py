"""`ringfence alerts`: what escapes or is misdropped by what is enforced, and who hears of it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import ApiError, connect, segment
from ringfence.cli.files import unreadable
from ringfence.cli.output import Column, Format, OutputOption, emit, tell

app = typer.Typer(no_args_is_help=True, add_completion=False)
sink_app = typer.Typer(no_args_is_help=True, help="Say who is to hear of alerts.")
app.add_typer(sink_app, name="sink")

NameArgument = Annotated[str, typer.Argument(help="A name for the sink.")]

_ALERTS = [
    Column("STATE", lambda row: row["state"]),
    Column("CATEGORY", lambda row: row["category"]),
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("TRAFFIC", lambda row: f"{row['protocol']} {row['port']}".rstrip()),
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("FIRST", lambda row: row["first"], wide=True),
    Column("LAST", lambda row: row["last"]),
    Column("DECIDED BY", lambda row: ", ".join(row["decided_by"])),
    Column("ID", lambda row: row["id"]),
]
_NOBODY = "nobody hears of alerts; see `ringfence alerts sink add --help`"
_SINKS = [
    Column("NAME", lambda row: row["name"]),
    Column("URL", lambda row: row["url"]),
    Column("SECRET", lambda row: "kept" if row["has_secret"] else "none"),
    Column("REFUSED", lambda row: row["refused"], right=True),
    Column("PROBLEM", lambda row: row["problem"]),
    Column("CHANGED", lambda row: row["changed"], wide=True),
    Column("BY", lambda row: row["actor"], wide=True),
]


@app.command("list")
def list_(
    since: Annotated[
        str | None, typer.Option(help="Also those resolved since then: a time, or such as 1d.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the open alerts, the latest first. Exit code 2 if there is one.

    Example: ringfence alerts list --since 1d
    """
    items = connect().get("/alerts", since=since)["items"]
    emit(items, _ALERTS, output, "no alert is open; --since 7d lists those resolved since, too")
    raise typer.Exit(2 if any(row["state"] == "opened" for row in items) else 0)


@sink_app.command("add")
def add(
    name: NameArgument,
    url: Annotated[str, typer.Argument(help="Such as webhook+https://HOST/PATH.")],
    secret_file: Annotated[
        Path | None, typer.Option(help="A file with the sink's secret; - for stdin.")
    ] = None,
) -> None:
    """Have a sink hear of each alert that is opened or resolved from now on.

    It takes the place of one of its name.

    webhook+https://HOST/PATH     JSON; the secret is a bearer token
    slack:                        the secret is the incoming webhook's URL
    smtp+starttls://HOST?from=A@B&to=C@D&username=NAME     the secret is the password
    syslog+udp://HOST, syslog+tcp://HOST, syslog+tls://HOST     RFC 5424
    kafka://HOST:9092/TOPIC, kafka+tls://HOST:9093/TOPIC?username=NAME     the password

    Example: ringfence alerts sink add ops slack: --secret-file hook-url
    """
    body = {"name": name, "url": url, "secret": _secret(secret_file)}
    added = connect().post("/alert-sinks", body)
    if added["replaced"]:
        tell(f"{name} was there already, and is changed")
    tell(f"{name} hears of alerts; try it with `ringfence alerts sink test {name}`")


@sink_app.command("list")
def list_sinks(output: OutputOption = Format.TABLE) -> None:
    """List the sinks, and why the last notice did not get through.

    Example: ringfence alerts sink list
    """
    emit(connect().get("/alert-sinks")["items"], _SINKS, output, _NOBODY)


@sink_app.command("remove")
def remove(name: NameArgument) -> None:
    """Have a sink hear of no alert any more.

    Example: ringfence alerts sink remove ops
    """
    connect().delete(f"/alert-sinks/{segment(name)}")
    tell(f"{name} hears of alerts no more")


@sink_app.command("test")
def test(name: NameArgument) -> None:
    """Send a sink a notice of an alert that there is not. Exit code 1 if it does not take it.

    Example: ringfence alerts sink test ops
    """
    problem = connect().post(f"/alert-sinks/{segment(name)}/test", {})["problem"]
    if problem:
        raise ApiError(problem)
    tell(f"{name} has taken it")


def _secret(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return (sys.stdin.read() if str(file) == "-" else file.read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
