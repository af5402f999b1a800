"""`ringfence analyze`: what a version of the policies would do to live traffic."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.decisions import decided_by
from ringfence.cli.enforce import YesOption
from ringfence.cli.flows.columns import end_name, port
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, emit, emit_data, tell
from ringfence.cli.what_if import accept as accept_some
from ringfence.cli.what_if import ask, tell_what_if
from ringfence.model.errors import InputError
from ringfence.model.flow import Category
from ringfence.model.ids import parse_version

app = typer.Typer(add_completion=False)


COLUMNS = [
    Column("CATEGORY", lambda row: row["category"]),
    Column("CONSUMER", lambda row: end_name(row["flow"]["consumer"])),
    Column("PROVIDER", lambda row: end_name(row["flow"]["provider"])),
    Column("TRAFFIC", lambda row: f"{row['flow']['protocol']} {port(row['flow'])}"),
    Column("CONNECTIONS", lambda row: row["flow"]["opened"], right=True),
    Column("OUTBOUND", lambda row: decided_by(row["deciding"].get("consumer"))),
    Column("INBOUND", lambda row: decided_by(row["deciding"].get("provider"))),
    Column("NODE", lambda row: decided_by(row["deciding"].get("node")), wide=True),
    Column("LOGGED BY", lambda row: ", ".join(map(decided_by, row["logged"])), wide=True),
]


@app.command()
def analyze(  # noqa: PLR0913, PLR0917 - one parameter for each option
    workspace: Annotated[str, typer.Argument(help="A workspace, or workspace@p2 for a version.")],
    since: SinceOption = "5m",
    until: UntilOption = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="Judge beside this one too; repeatable.")
    ] = None,
    category: Annotated[Category | None, typer.Option(help="Show these records only.")] = None,
    if_enforced: Annotated[
        bool,
        typer.Option("--if-enforced", help="What it would block of what passes, and what to add."),
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="1,2|all",
            help="With --if-enforced: add these, by number or id, as a new version.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="With --accept: show the new version only.")
    ] = False,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Count and list what a policy version would do to observed connections. Enforces nothing.

    permitted: passed, and the policy allows it. escaped: passed, but the policy denies it.
    rejected: dropped, and the policy denies it. misdropped: dropped, but the policy allows it.
    Log-only policies are told with the number of connections that each matches.

    With --if-enforced, exit code 2 if something that passes would be blocked.

    Example: ringfence analyze sock-shop --since 10m --category escaped

    ringfence analyze sock-shop --since 1d --if-enforced --accept 1,3
    """
    name, number = parse_version(workspace)
    client = connect()
    if if_enforced:
        if category:
            raise InputError("--category is not for --if-enforced, which tells what would escape")
        asked = {"workspace": name, "version": number, "since": since, "until": until}
        answer = ask(client, **asked, **({"with": with_} if with_ else {}))
        if accept is None:
            tell_what_if(answer, output)
            raise typer.Exit(2 if answer["blocked"] else 0)
        accept_some(client, answer, accept, dry_run=dry_run, yes=yes, output=output)
        return
    if accept or dry_run or yes:
        raise InputError("--accept, --dry-run and --yes go with --if-enforced")
    answer = client.get(
        "/analysis",
        workspace=name,
        version=number,
        since=since,
        until=until,
        category=category,
        **({"with": with_} if with_ else {}),
    )
    if output in (Format.JSON, Format.YAML):
        emit_data(answer, output)
        return
    counts = "  ".join(f"{name} {answer['counts'][name]}" for name in Category)
    tell(f"{answer['workspace']} p{answer['version']}: {counts}")
    for one in answer["logged"]:
        tell(f"{decided_by(one['decision'])}: {one['connections']}")
    emit(answer["records"], COLUMNS, output, "no connection in view")
