"""`ringfence experiments`: what came of those that were begun."""

from typing import Annotated

import typer

from ringfence.cli.analysis import CATEGORIES, HITS
from ringfence.cli.client import connect
from ringfence.cli.decisions import decided_by
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    tell,
)

app = typer.Typer(no_args_is_help=True, add_completion=False)

NumberArgument = Annotated[int, typer.Argument(min=1, help="The experiment's number.")]

_NONE = "there is no experiment; begin one with `ringfence experiment WORKSPACE --since 7d`"


def _state(row: Row) -> str:
    if row["state"] == "running":
        return f"running, {row['hours_done']} of {row['hours']} hours"
    return f"failed: {row['problem']}" if row["problem"] else str(row["state"])


_LISTED = [
    Column("EXPERIMENT", lambda row: row["id"], right=True),
    Column("VERSION", lambda row: f"{row['workspace']}@p{row['version']}"),
    Column("FROM", lambda row: row["since"]),
    Column("TO", lambda row: row["until"]),
    Column("STATE", _state),
    *CATEGORIES,
    Column("BY", lambda row: row["actor"], wide=True),
]
_UNTOWARD = [
    Column("CATEGORY", lambda row: row["category"]),
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("TRAFFIC", lambda row: f"{row['protocol']} {row['port']}".strip()),
    Column("CONVERSATIONS", lambda row: row["conversations"], right=True),
    Column("LAST", lambda row: row["last"]),
    Column("OUTBOUND", lambda row: decided_by(row["deciding"].get("consumer"))),
    Column("INBOUND", lambda row: decided_by(row["deciding"].get("provider"))),
]


def tell_experiment(found: Row, output: Format) -> None:
    """Print one: its counts, what is untoward, and what each policy decided."""
    if output is not Format.TABLE:
        emit_data(found, output)
        return
    emit([found], _LISTED, output)
    if found["state"] != "done":
        return
    tell("")
    emit(found["untoward"], _UNTOWARD, output, "nothing would have been otherwise than it was")
    tell("")
    emit(found["hits"], HITS[:-1], output)


@app.command("list")
def list_(output: OutputOption = Format.TABLE) -> None:
    """List the experiments, the latest first.

    Example: ringfence experiments list
    """
    emit(connect().get("/experiments")["items"], _LISTED, output, _NONE)


@app.command("show")
def show(number: NumberArgument, output: AnswerOption = Format.TABLE) -> None:
    """Tell what came of an experiment: what would have been otherwise, and each policy's hits.

    Example: ringfence experiments show 3
    """
    tell_experiment(connect().get(f"/experiments/{number}"), output)


@app.command("remove")
def remove(number: NumberArgument) -> None:
    """Stop an experiment if it is under way, and forget it.

    Example: ringfence experiments remove 3
    """
    connect().delete(f"/experiments/{number}")
    tell(f"experiment {number} is removed")
