"""`ringfence discover`: the policies that the observed flows need, as a file to review."""

from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import read_document
from ringfence.cli.flows.options import (
    FlowsFileOption,
    InventoryFileOption,
    SinceOption,
    UntilOption,
    refuse_window,
)
from ringfence.cli.output import Column, Format, emit, emit_data, emit_text, say, tell
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.reasons import CORE
from ringfence.model.errors import InputError
from ringfence.model.words import counted

app = typer.Typer(add_completion=False)


class DiscoverFormat(StrEnum):
    """The forms of -o."""

    YAML = "yaml"
    JSON = "json"
    TABLE = "table"


class Shown(StrEnum):
    """What became of an edge, in the order of the table; `core` is noise of core services."""

    REVIEW = "review"
    ALLOW = "ALLOW"
    CORE = "core"
    NOISE = "noise"


def _shown(row: dict[str, Any]) -> Shown:
    return Shown.CORE if row["reasons"][0] in CORE else Shown(row["outcome"])


_COLUMNS = [
    Column("outcome", _shown),
    Column("consumer", itemgetter("consumer")),
    Column("provider", itemgetter("provider")),
    Column("service", itemgetter("service")),
    Column("protocol", itemgetter("protocol")),
    Column("ports", lambda row: ", ".join(row["ports"])),
    Column("seen", lambda row: row["evidence"]["conversations"]),
    Column("why", lambda row: ", ".join(one.partition(":")[0] for one in row["reasons"])),
]
_IN_SUM = [
    Column("outcome", lambda row: Shown.CORE if row["reason"] in CORE else Shown.NOISE),
    Column("why", lambda row: row["reason"].partition(":")[0]),
    Column("edges", itemgetter("count"), right=True),
    Column("such as", itemgetter("example")),
]
_GUESSED = [
    Column("role", itemgetter("role")),
    Column("workloads", lambda row: len(row["members"]), right=True),
    Column("such as", lambda row: row["members"][0]["key"]),
    Column("note", lambda row: row["members"][0]["note"]),
]
"""Of each role the workloads that declare nothing and were not seen to do anything."""
_USES = [
    Column("approved policy", itemgetter("policy")),
    Column("conversations", itemgetter("conversations"), right=True),
    Column("last", itemgetter("last")),
    Column("note", itemgetter("note")),
]


@app.command()
def discover(  # noqa: PLR0913, PLR0917 - one parameter for each option
    context: typer.Context,
    scope: Annotated[
        str | None, typer.Argument(help="The scope to propose a workspace for.")
    ] = None,
    since: SinceOption = "24h",
    until: UntilOption = None,
    inventory: InventoryFileOption = None,
    flows: FlowsFileOption = None,
    scopes: Annotated[
        list[Path] | None,
        typer.Option(
            "--scopes",
            "--policies",
            help="With files: YAML with the scopes, and workspaces of those above.",
        ),
    ] = None,
    scope_name: Annotated[
        str | None,
        typer.Option("--scope", help="With files: the scope; left out, the one above all."),
    ] = None,
    boundary: Annotated[
        Boundary, typer.Option(help="How finely policies tell ends apart.")
    ] = Boundary.FINE,
    ports: Annotated[
        int, typer.Option(min=1, max=5, help="How far ports are generalised; 1 is not at all.")
    ] = 2,
    compress: Annotated[
        int, typer.Option(min=1, max=5, help="How far policies are joined; 1 is not at all.")
    ] = 3,
    exclude: Annotated[
        str | None, typer.Option(help="A filter: propose nothing for these workloads.")
    ] = None,
    approved: Annotated[
        Path | None,
        typer.Option(
            help="A workspace in YAML: say what differs, and keep its clusters. Left out: the "
            "scope's own, as it is enforced, else its latest version."
        ),
    ] = None,
    own: Annotated[
        bool,
        typer.Option("--own", help="Add nothing to the workspaces of scopes above this one."),
    ] = False,
    begin: Annotated[
        bool,
        typer.Option(
            "--begin",
            help="Where no scope above has a workspace, begin one that allows all else.",
        ),
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Compare with no workspace, and keep no clusters.")
    ] = False,
    outcome: Annotated[
        list[Shown] | None,
        typer.Option(
            case_sensitive=False,
            help="With -o table and json: the edges with this outcome alone; several may be named.",
        ),
    ] = None,
    output: Annotated[
        DiscoverFormat, typer.Option("--output", "-o", help="How to print the proposal.")
    ] = DiscoverFormat.YAML,
) -> None:
    """Print a proposed workspace as YAML on stdout; what was taken for noise goes to stderr.

    Where a scope above has a workspace, what concerns others too is added to that, and it is
    printed as well.

    -o json and -o table tell of every observed edge what became of it and why, those to be
    reviewed first, and how often each approved policy decided a conversation of the time. The table
    has core services and noise in sum, and each edge of them with --outcome core or noise.

    What differs from the approved workspace goes to stderr: policies that were added, are now
    unused and for how long, or are generalised.

    With --inventory and --flows no server is asked: all that the flows' file tells of is taken, and
    --since means nothing. Without --scopes the scope is `all`, everything in the inventory.

    Of less than two hours nothing is known to be rare: only scans are told apart then, which a
    warning says.

    Exit code 2 if no connection was observed that needs a policy, not even of a core service: there
    is nothing to go by.

    Examples: ringfence discover sock-shop --since 24h > sock-shop.yaml

    ringfence discover sock-shop -o table --outcome review

    ringfence discover --inventory inventory.yaml --flows flows.parquet > all.yaml
    """
    asked = {
        "boundary": str(boundary),
        "ports": ports,
        "compress": compress,
        "exclude": exclude,
        "approved": _text(approved) if approved else None,
        "own": own,
        "begin": begin,
        "every_edge": output is not DiscoverFormat.YAML,
    }
    if outcome and output is DiscoverFormat.YAML:
        raise InputError("--outcome chooses edges of -o table and json; YAML has policies")
    if (approved and anew) or (own and begin):
        raise InputError("--approved and --anew exclude each other, and so do --own and --begin")
    if inventory and flows:
        if scope and scope_name:
            raise InputError("the scope is named twice: leave --scope out")
        if anew:
            raise InputError("files are compared with --approved only: leave --anew out")
        refuse_window(context)
        from ringfence.cli.discover_files import proposal_of_files  # noqa: PLC0415

        named, answer = proposal_of_files(
            inventory, flows, scopes or [], scope or scope_name, asked
        )
        hint = ""
    elif inventory or flows or scopes or scope_name:
        raise InputError("--inventory and --flows go together, --scopes and --scope with both")
    elif scope is None:
        raise InputError("name a scope, or --inventory and --flows to ask no server")
    else:
        window = {"since": since, **({"until": until} if until else {})}
        body = {"scope": scope, **window, **asked, "anew": anew}
        named, answer = scope, connect().post("/discover", body)
        hint = (
            ". --since asks for longer; `ringfence agents` tells who reports,"
            " `ringfence scopes list` whom a scope holds"
        )
    _print(answer, output, outcome or [])
    summary = answer["summary"]
    _tell(summary, output)
    if summary["brief"]:
        tell(
            "warning: less than two hours were seen: nothing is known to be rare in them, so that"
            " whatever was answered is allowed, but for scans; --since 24h, for files that of"
            " `ringfence flows export`, asks for more"
        )
    if not summary["edges"] or not (summary["policies"] or summary["served"]):
        any_seen = summary["edges"] or summary["noise"]
        seen = "that a policy is proposed for " if any_seen else ""
        tell(
            f"warning: no connection {seen}was observed in this time; to enforce this workspace"
            f" would cut everything off in {named}{hint}"
        )
        raise typer.Exit(2)


def _tell(summary: dict[str, Any], output: DiscoverFormat) -> None:
    """What goes with the proposal; a table has what was taken for noise itself."""
    policies = counted(summary["policies"], "policy", "policies")
    tell(f"{policies} from {counted(summary['edges'], 'edge')}")
    for noise in () if output is DiscoverFormat.TABLE else summary["noise"]:
        said = f"{noise['reason']} ({noise['count']}), such as {noise['example']}"
        tell(said if noise["reason"] in CORE else f"not proposed: {said}")
    for change in summary["changes"]:
        note = f" ({change['note']})" if change["note"] else ""
        tell(f"{change['change']}: {change['policy']}{note}")
    for warning in summary["warnings"]:
        tell(f"note: {warning}")


def _print(answer: dict[str, Any], output: DiscoverFormat, wanted: list[Shown]) -> None:
    if output is DiscoverFormat.YAML:
        emit_text(answer["documents"])
        return
    report = answer["report"]
    edges = [one for one in report["proposals"] if not wanted or _shown(one) in wanted]
    if output is DiscoverFormat.JSON:
        emit_data({**report, "proposals": edges}, Format.JSON)
        return
    in_turn = wanted or (Shown.REVIEW, Shown.ALLOW)
    rows = [edge for one in Shown if one in in_turn for edge in edges if _shown(edge) is one]
    emit(rows, _COLUMNS, Format.TABLE)
    in_sum = sorted(answer["summary"]["noise"], key=lambda one: one["reason"] not in CORE)
    unsure = (
        {"role": role["name"], "members": [one for one in role["members"] if not one["confidence"]]}
        for role in report["roles"]
    )
    guessed = [one for one in unsure if one["members"]]
    for more, columns in ((in_sum, _IN_SUM), (guessed, _GUESSED), (report["approved"], _USES)):
        if more and not wanted:
            say()
            emit(more, columns, Format.TABLE)


def _text(path: Path) -> str:
    return read_document(path)[1]
