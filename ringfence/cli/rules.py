"""`ringfence rules`: a workload's rules as people read them, beside what the kernel has of them."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, emit_data, say, tell
from ringfence.model.policy import Action

app = typer.Typer(add_completion=False)

_SHOWN = 3
"""Members of a set in a table."""


def _direction(row: Row) -> str:
    """Whose decision; what a node receives for Services is judged apart, before translation."""
    return "received" if row["hook"] == "prerouting" else row["direction"]


def _action(row: Row) -> str:
    return "DENY, rejects" if row["action"] == Action.DENY and row["rejects"] else row["action"]


def _members(held: Row | None) -> str:
    if held is None:
        return "any"
    named = held["first"][:_SHOWN]
    more = held["count"] - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])]) or "nobody"


def _place(row: Row) -> str:
    """Where it stands in order, after the number of its program where there are several."""
    if not row["program"]:
        return "always"
    return f"{row['program']}.{row['place']}"


COLUMNS = [
    Column("DIRECTION", _direction),
    Column("ORDER", _place),
    Column("ACTION", _action),
    Column("PEER", lambda row: _members(row["peers"])),
    Column("OWN ADDRESS", lambda row: _members(row["local"]), wide=True),
    Column("TRAFFIC", lambda row: row["traffic"]),
    Column("POLICY", lambda row: row["policy"]),
    Column("SET", lambda row: (row["peers"] or {}).get("set"), wide=True),
    Column("WIDENED", lambda row: "; ".join(row["widenings"])),
]
_PACKETS = Column("PACKETS", lambda row: row["packets"], right=True)
_KERNEL = Column(
    "KERNEL",
    lambda row: "; ".join(f"{one['chain']}: {one['text']}" for one in row["kernel"]),
    wide=True,
)


@app.command()
def rules(
    workload: Annotated[
        str, typer.Argument(help="A node, a host, namespace/pod, namespace/owner or an address.")
    ],
    live: Annotated[
        bool, typer.Option("--live", help="Also ask the node's agent for the kernel's counters.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """List the rules of a workload in the order in which they are asked: the first match counts.

    Fail-safes of a node come before all others. Where several layers govern it, each has a
    program, ORDER is PROGRAM.PLACE, and all must allow. With --live, exit 1 if the agent does not
    answer.

    Examples:

    ringfence rules sock-shop/front-end

    ringfence rules node1 --live -o wide
    """
    answer = connect().get("/rules", workload=workload, live=live)
    if output in (Format.JSON, Format.YAML, Format.JSONL):
        emit_data(answer, output)
    else:
        columns = [*COLUMNS[:-1], *([_PACKETS, _KERNEL] if live else []), COLUMNS[-1]]
        emit(answer["rules"], columns, output, f"nothing governs {answer['workload']}")
        if output in (Format.TABLE, Format.WIDE):
            for one in answer["lookups"]:
                say(f"many in one: {one['chain']}: {one['text']}")
            for note in answer["notes"]:
                say(f"note: {note}")
    if answer["problem"]:
        tell(f"the kernel's rules are not known: {answer['problem']}")
        raise typer.Exit(1)
