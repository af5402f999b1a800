"""`ringfence analyze`: what a version of the policies would do to live traffic."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.decisions import decided_by
from ringfence.cli.enforce import YesOption
from ringfence.cli.flows.columns import end_name, port
from ringfence.cli.flows.options import SinceOption, UntilOption, refuse_window
from ringfence.cli.output import (
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    emit_octets,
    tell,
    tell_notes,
)
from ringfence.cli.what_if import accept as accept_some
from ringfence.cli.what_if import ask, is_harmless, tell_what_if
from ringfence.model.errors import InputError
from ringfence.model.flow import Category
from ringfence.model.ids import parse_version

app = typer.Typer(add_completion=False)

_SHOWN = 200
"""Records of each category that people are shown."""


def _at_node(row: Row) -> str:
    """The rule that decides where a node received it for a Service, if one does."""
    decided = decided_by(row["deciding"].get("node"))
    return f"{decided} at {row['node']}" if decided else ""


COLUMNS = [
    Column("CATEGORY", lambda row: row["category"]),
    Column("CONSUMER", lambda row: end_name(row["flow"]["consumer"])),
    Column("PROVIDER", lambda row: end_name(row["flow"]["provider"])),
    Column("TRAFFIC", lambda row: f"{row['flow']['protocol']} {port(row['flow'])}"),
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("FIRST", lambda row: row["flow"]["first"], wide=True),
    Column("LAST", lambda row: row["flow"]["last"]),
    Column("OUTBOUND", lambda row: decided_by(row["deciding"].get("consumer"))),
    Column("INBOUND", lambda row: decided_by(row["deciding"].get("provider")) or _at_node(row)),
    Column("NODE", _at_node, wide=True),
    Column("LOGGED BY", lambda row: ", ".join(map(decided_by, row["logged"])), wide=True),
]


@app.command()
def analyze(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    workspace: Annotated[
        str | None, typer.Argument(help="A workspace, or workspace@p2 for a version.")
    ] = None,
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
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Records of each category; else 200, all of files with -o json."),
    ] = None,
    policies: Annotated[
        list[Path] | None,
        typer.Option(
            help="YAML with scopes and workspaces, which ask no server; repeatable. The last file "
            "that holds a workspace counts."
        ),
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option(help="With --policies: by `ringfence inventory export`.")
    ] = None,
    flows: Annotated[
        Path | None, typer.Option(help="With --policies: by `ringfence flows export`.")
    ] = None,
    of_files: Annotated[
        str | None,
        typer.Option("--workspace", help="With --policies: the one to analyse, if there are more."),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Count and list what a policy version would do to observed connections. Enforces nothing.

    permitted: passed, and the policy allows it. escaped: passed, but the policy denies it.
    rejected: dropped, and the policy denies it. misdropped: dropped, but the policy allows it.
    Log-only policies are told with the number of connections that each matches.

    With --if-enforced, exit code 2 if something that passes would be blocked, noise aside, or if
    nothing passes that the version has a say in.

    With --policies, --inventory and --flows no server is asked: all flows of the file are judged,
    by every primary workspace of the policies' files. --accept prints the workspace with what was
    accepted, for a file of its own.

    Example: ringfence analyze sock-shop --since 10m --category escaped

    ringfence analyze sock-shop --since 1d --if-enforced --accept 1,3

    ringfence analyze --policies all.yaml --inventory inventory.yaml --flows flows.parquet -o json

    ringfence analyze shop --policies scopes.yaml --policies shop.yaml --inventory inventory.yaml
    --flows flows.parquet --if-enforced --accept 1,3 > shop-2.yaml
    """
    if policies or inventory or flows or of_files:
        if not (policies and inventory and flows):
            raise InputError("--policies, --inventory and --flows go together")
        _refuse_others(
            (with_, "files are judged by all their workspaces: leave --with out"),
            (workspace and of_files, "the workspace is named twice: leave --workspace out"),
            (dry_run or yes, "of files nothing is changed: leave --dry-run and --yes out"),
        )
        refuse_window(context)
    elif workspace is None:
        raise InputError("name a workspace, or --policies, --inventory and --flows")
    _refuse_others(
        (if_enforced and category, "--if-enforced tells what would escape: leave --category out"),
        (if_enforced and limit, "--if-enforced has no records: leave --limit out"),
        (
            (accept or dry_run or yes) and not if_enforced,
            "--accept, --dry-run and --yes go with --if-enforced",
        ),
    )
    if policies and inventory and flows:
        asked_files = policies, inventory, flows, workspace or of_files
        if if_enforced:
            _what_if_files(*asked_files, accept=accept, output=output)
        else:
            _tell_files(*asked_files, category=category, limit=limit, output=output)
        return
    name, number = parse_version(workspace or "")
    client = connect()
    if if_enforced:
        asked = {"workspace": name, "version": number, "since": since, "until": until}
        answer = ask(client, **asked, **({"with": with_} if with_ else {}))
        if accept is None:
            tell_what_if(answer, output)
            raise typer.Exit(0 if is_harmless(answer) else 2)
        accept_some(client, answer, accept, dry_run=dry_run, yes=yes, output=output)
        return
    answer = client.get(
        "/analysis",
        workspace=name,
        version=number,
        since=since,
        until=until,
        category=category,
        limit=limit,
        **({"with": with_} if with_ else {}),
    )
    _tell(answer, output, "; --since asks for longer")


def _refuse_others(*others: tuple[object, str]) -> None:
    """Raise InputError for what was given and means nothing here."""
    for given, why in others:
        if given:
            raise InputError(why)


def _what_if_files(
    policies: list[Path],
    inventory: Path,
    flows: Path,
    workspace: str | None,
    *,
    accept: str | None,
    output: Format,
) -> None:
    from ringfence.cli.analysis_files import read_files  # noqa: PLC0415
    from ringfence.cli.recorded import strangers  # noqa: PLC0415
    from ringfence.cli.what_if_files import what_if_files, write_accepted  # noqa: PLC0415

    asked = read_files(policies, inventory, flows, workspace, each_slot=True)
    answer = what_if_files(asked)
    if accept is not None:
        write_accepted(asked, answer, accept, output)
        return
    tell_what_if(answer, output)
    if not answer["judged"]:
        tell(strangers(asked.seen, f"the scope of {answer['workspace']}"))
    raise typer.Exit(0 if is_harmless(answer) else 2)


def _tell_files(
    policies: list[Path],
    inventory: Path,
    flows: Path,
    workspace: str | None,
    *,
    category: Category | None,
    limit: int | None,
    output: Format,
) -> None:
    from ringfence.cli.analysis_files import analyze_files, read_files  # noqa: PLC0415
    from ringfence.cli.recorded import strangers  # noqa: PLC0415

    asked = read_files(policies, inventory, flows, workspace)
    found = analyze_files(asked)
    if output is Format.JSON:
        for part in found.document(category, limit):
            emit_octets(part)
    else:
        text = b"".join(found.document(category, limit or _SHOWN))
        _tell(json.loads(text), output)
    if not any(found.counts.values()):
        tell(strangers(asked.seen, f"the scope of {found.workspace}", what="distinct conversation"))


def _tell(answer: dict[str, Any], output: Format, hint: str = "") -> None:
    if output in (Format.JSON, Format.YAML):
        emit_data(answer, output)
        return
    counts = "  ".join(f"{name} {answer['counts'][name]}" for name in Category)
    tell(f"{answer['workspace']} p{answer['version']}: {counts}")
    tell_notes(answer)
    if not any(answer["counts"].values()):
        tell(f"none of its workloads had a connection in that time{hint}")
    for one in answer["logged"]:
        tell(f"{decided_by(one['decision'])}: {one['connections']}")
    records = answer["records"]
    emit(records, COLUMNS, output, "no connection in view")
    shown = Counter(row["category"] for row in records)
    cut = [
        f"{shown[name]} of {count} {name}"
        for name, count in answer["listed"].items()
        if 0 < shown[name] < count
    ]
    if cut:
        said = f"the newest records are shown, {', '.join(cut)}"
        tell(f"{said}: more with --limit, of one with --category")
