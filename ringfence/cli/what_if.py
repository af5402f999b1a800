"""What `ringfence analyze --if-enforced` prints, and the acceptance of some of it."""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from ringfence.cli.client import Client
from ringfence.cli.decisions import decided_by
from ringfence.cli.documents import print_changes, tell_governance, tell_requests
from ringfence.cli.output import Column, Format, Row, emit, emit_data, say, tell, tell_notes
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.words import counted

ALL = "all"
_NOTHING = (
    "nothing that passes would be blocked; `ringfence analysis start` holds it against what comes, "
    "and `ringfence promote` leads its scope on"
)


def _denials(decisions: list[Row]) -> str:
    return ", ".join(map(decided_by, decisions))


COLUMNS = [
    Column("#", lambda row: row["number"], right=True),
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("BACKEND", lambda row: row["backend"], wide=True),
    Column("TRAFFIC", lambda row: f"{row['protocol']} {row['port']}"),
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("FIRST", lambda row: row["first"], wide=True),
    Column("LAST", lambda row: row["last"]),
    Column("DENIED BY", lambda row: _denials(row["denied_by"])),
    Column(
        "POLICY TO ADD",
        lambda row: row["policy"]["id"] + (" without review" if row["held"] else ""),
    ),
    Column("REVIEW", lambda row: row["review"].partition(":")[0]),
    Column("NOISE", lambda row: row["noise"].partition(":")[0]),
    Column("STILL DENIED BY", lambda row: _denials(row["still_denied_by"])),
]


def ask(client: Client, **query: Any) -> Row:
    """What would be blocked, each with its `number` from 1."""
    return numbered(client.get("/what-if", **query))


def numbered(answer: Row) -> Row:
    """The answer, with a `number` from 1 at each row."""
    for number, row in enumerate(answer["blocked"], 1):
        row["number"] = number
    return answer


def is_harmless(answer: Row) -> bool:
    """Whether something was judged, and what would be blocked of it is noise."""
    return bool(answer["judged"]) and all(row["noise"] for row in answer["blocked"])


def tell_what_if(answer: Row, output: Format) -> None:
    """Print what would be blocked."""
    if output in (Format.JSON, Format.YAML):
        emit_data(answer, output)
        return
    name = f"{answer['workspace']} p{answer['version']}"
    conversations = counted(answer["conversations"], "conversation")
    workloads = counted(answer["workloads"], "workload")
    tell(f"if {name} were enforced now, {conversations} of {workloads} would be blocked")
    tell_notes(answer)
    if not answer["judged"]:
        tell(
            f"warning: nothing passed that {name} has a say in: see that time, inventory and flows "
            "are those of its workloads"
        )
        return
    emit(answer["blocked"], COLUMNS, output, _NOTHING)
    if answer["untold"]:
        tell(f"{counted(answer['untold'], 'kind')} of conversations more are not told")
    if answer["blocked"] and output in (Format.TABLE, Format.WIDE):
        _tell_how(answer["blocked"])


def _tell_how(rows: list[Row]) -> None:
    """How to accept what would be blocked, and what should be looked at first."""
    if all(row["noise"] for row in rows):
        tell("discovery takes all of it for noise, such as a scan: nothing needs to be accepted")
        return
    if chosen(rows, ALL):
        tell("to let some of them pass: --accept 1,2 or --accept all")
    if left := _left_out(rows):
        tell(f"all leaves out {left}: name their numbers to accept them")


def _left_out(rows: list[Row]) -> str:
    """What of some rows `all` leaves out; empty for nothing."""
    noise = sum(bool(row["noise"]) for row in rows)
    review = sum(bool(row["review"]) and not row["noise"] for row in rows)
    which = [
        f"{review} that {'awaits' if review == 1 else 'await'} review" if review else "",
        f"the last {noise}, which discovery takes for noise" if noise else "",
    ]
    return " and ".join(filter(None, which))


def accept(
    client: Client, answer: Row, wanted: str, *, dry_run: bool, yes: bool, output: Format
) -> None:
    """Show the version that has the policies of some rows, ask, and make it.

    `wanted` is as `chosen` has it.
    """
    rows = accepted(answer, wanted)
    if not rows:
        return
    policies = {row["policy"]["id"]: row["policy"] for row in rows}
    clusters = {one["name"]: one for row in rows for one in row["clusters"]}
    body = {
        "workspace": answer["workspace"],
        "version": answer["version"],
        "policies": list(policies.values()),
        "clusters": list(clusters.values()),
    }
    path = "/what-if/accept"
    make_version(client, path, body, unhelped(rows), dry_run=dry_run, yes=yes, output=output)


def accepted(answer: Row, wanted: str) -> list[Row]:
    """The rows that are accepted, as `chosen` has it, having said what is left out."""
    rows = chosen(answer["blocked"], wanted)
    left = _left_out(answer["blocked"]) if wanted == ALL else ""
    if not rows:
        tell(f"there is nothing to accept{left and f' but {left}, whose numbers can be named'}")
    elif left:
        tell(f"all leaves out {left}: name their numbers to accept them")
    return rows


def unhelped(rows: list[Row]) -> list[str]:
    """What to say of rows whose policies do not let them pass by themselves."""
    return [
        f"{row['policy']['id']} alone does not help: {_denials(row['still_denied_by'])}"
        for row in rows
        if row["still_denied_by"]
    ]


def make_version(
    client: Client,
    path: str,
    body: Row,
    warnings: Sequence[str] = (),
    *,
    dry_run: bool,
    yes: bool,
    output: Format,
) -> None:
    """Show the version that `path` would make of a workspace, ask, and make it."""
    if not (yes or dry_run or sys.stdin.isatty()):
        raise InputError("nobody can answer here: pass --yes to go ahead, or --dry-run to see it")

    def send(*, dry_run: bool) -> dict[str, Any]:
        return dict(client.post(path, {**body, "dry_run": dry_run}))

    planned = send(dry_run=True)
    if output is Format.TABLE:
        print_changes(planned["changes"])
    else:
        emit_data(planned, output)
    tell_governance(planned)
    tell_requests(planned)
    for warning in warnings:
        tell(f"warning: {warning}")
    if dry_run:
        return
    if not yes and not typer.confirm("Go ahead?", err=True):
        raise RingfenceError("nothing was changed")
    (change,) = send(dry_run=False)["changes"]
    if output is Format.TABLE:
        say(f"{change['name']}@p{change['version']} is made; it is not enforced yet")


def chosen(rows: list[Row], wanted: str) -> list[Row]:
    """Those of some numbers, or ids of their policies, between commas; InputError.

    `all` are those that are no noise and await no review.
    """
    if wanted == ALL:
        return [row for row in rows if not (row["noise"] or row["review"])]
    if not rows:
        raise RingfenceError("there is nothing to accept: nothing that passes would be blocked")
    named = {row["policy"]["id"]: row for row in rows}
    named |= {str(row["number"]): row for row in rows}
    for text in wanted.split(","):
        if text not in named:
            raise InputError(
                f"--accept {text!r}: write numbers from 1 to {len(rows)} or ids of policies to "
                f"add, between commas, or {ALL}"
            )
    found = {named[text]["number"]: named[text] for text in wanted.split(",")}
    return [found[number] for number in sorted(found)]
